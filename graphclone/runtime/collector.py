"""Python's garbage collector, less often: graphs are many small objects that live long, and looking through them all,
again and again, is a seventh of the time that a trace takes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 100_000
"""New objects between two looks at the youngest; some megabytes."""


@contextmanager
def seldom() -> Iterator[None]:
    """Collect seldom within a block, or within a function that this decorates."""
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], _OBJECTS) if before[0] else 0, *before[1:])  # 0 is off, and stays off
    try:
        yield
    finally:
        gc.set_threshold(*before)
