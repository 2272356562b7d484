"""Python's garbage collector, less often: graphs are many small objects that live long, and looking through them all,
again and again, is a seventh of the time that a trace takes.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 100_000
"""New objects between two looks at the youngest; some megabytes."""


_LOCK = threading.Lock()
_before: list[tuple[int, int, int]] = []
"""The thresholds that each block under way has found, whichever thread it is in; the first are the user's."""


@contextmanager
def seldom() -> Iterator[None]:
    """Collect seldom within a block, or within a function that this decorates; as before when all such have ended."""
    with _LOCK:
        _before.append(found := gc.get_threshold())
        gc.set_threshold(max(found[0], _OBJECTS) if found[0] else 0, *found[1:])  # 0 is off, and stays off
    try:
        yield
    finally:
        with _LOCK:
            first = _before[0]
            _before.pop()
            if not _before:
                gc.set_threshold(*first)
