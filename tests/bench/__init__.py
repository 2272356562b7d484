"""Benchmarks: every piece of work is timed against a yardstick in the same run, so machines can be compared.

Run ``python -m tests.bench``. A benchmark is a function that returns ``Timing``s; list it in ``__main__``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

REPEATS = 7


@dataclass(frozen=True)
class Timing:
    """Median seconds of a piece of work and of what it is measured against."""

    name: str
    yardstick: str
    seconds: float
    yardstick_seconds: float

    @property
    def ratio(self) -> float:
        """How many times the yardstick the work takes."""
        return self.seconds / self.yardstick_seconds

    def __str__(self) -> str:
        times = f"{1e3 * self.seconds:9.2f} ms  {1e3 * self.yardstick_seconds:9.2f} ms"
        return f"{self.name:<44} {times}  {self.ratio:6.2f} x {self.yardstick}"


def against(name: str, work: Callable[[], object], yardstick_name: str, yardstick: Callable[[], object]) -> Timing:
    """Times both in turn, so that a busy moment of the machine hits both; the first round only warms up."""
    rounds = [(_seconds(work), _seconds(yardstick)) for _ in range(REPEATS + 1)][1:]
    work_seconds, yardstick_seconds = (statistics.median(column) for column in zip(*rounds, strict=True))
    return Timing(name, yardstick_name, work_seconds, yardstick_seconds)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
