"""One thread at a time, where a trace or a verification changes for a while what all threads share.

torch.export and the graphs read from it need some functions of torch, and of the user's module, to behave otherwise
while they work. What a second thread did then would see them so, or put back the wrong ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """Let no other thread of this process into such a block, or into a function that this decorates."""
    with _LOCK:
        yield
