"""Several tensors at a time, each in one thread: cheaper than several threads on one, which wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

FEWEST, MOST = 2, 8
"""How many tensors at a time, be there ever so few or many cores; memory is the limit beyond."""


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """A pool of as many threads as torch may use, with one thread of torch each.

    What is not begun when the block fails never is.
    """
    threads = torch.get_num_threads()
    count = min(max(threads, FEWEST), MOST)
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # for threads yet to come, and libraries that know one number only
