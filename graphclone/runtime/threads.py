"""Several tensors at a time, each in one thread: cheaper than several threads on one, which wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

WORKERS = 2
"""How many tensors at a time; memory is the limit beyond."""


@contextmanager
def workers(count: int = WORKERS) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in which torch uses one thread each; what is not begun when the block fails never is."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # for threads yet to come, and libraries that know one number only
