"""Benchmarks: every piece of work is measured against an anchor in the same run, so machines can be compared.

Run ``python -m tests.bench``, or ``python -m tests.bench memory shapes`` for some. A benchmark is a function that
returns ``Figure``s; list it in ``__main__``. ``docs/performance.md`` has the table that came out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPEATS = 7


@dataclass(frozen=True)
class Figure:
    """What was measured, and what it is measured against.

    Attributes:
        name: what was measured.
        amount: how much of it, a median.
        anchor: what it is measured against in the same run.
        anchor_amount: how much of that.
        unit: of both, ``s`` or ``MB``.
        bound: that the ratio should not exceed, if it is known what it should be.
    """

    name: str
    amount: float
    anchor: str
    anchor_amount: float
    unit: str = "s"
    bound: float | None = None

    @property
    def ratio(self) -> float:
        return self.amount / self.anchor_amount

    def __str__(self) -> str:
        bound = "" if self.bound is None else f"{self.bound:.2g}"
        amounts = f"{self._shown(self.amount)} | {self.anchor} | {self._shown(self.anchor_amount)}"
        return f"| {self.name} | {amounts} | {self.ratio:.2f} | {bound} |"

    def _shown(self, amount: float) -> str:
        if self.unit == "MB":
            return f"{amount / 1e6:.0f} MB"
        return f"{amount:.2f} s" if amount >= 1 else f"{1e3 * amount:.1f} ms"


HEADER = "| figure | measured | anchor | measured | ratio | bound |\n|---|---|---|---|---|---|"


def against(
    name: str,
    work: Callable[[], object],
    anchor: str,
    other: Callable[[], object],
    *,
    bound: float | None = None,
    repeats: int = REPEATS,
) -> Figure:
    """Times both in turn, so that a busy moment of the machine hits both; the first round only warms up."""
    rounds = [(_seconds(work), _seconds(other)) for _ in range(repeats + 1)][1:]
    amount, anchor_amount = (statistics.median(column) for column in zip(*rounds, strict=True))
    return Figure(name, amount, anchor, anchor_amount, bound=bound)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_memory() -> int:
    """The most bytes that this process has held. It is not ru_maxrss, which begins with that of who started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def child(script: str, *arguments: str, cache: str | None = None) -> Any:
    """What a process of its own prints, as JSON, with the cache in a folder, or an empty one."""
    command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as empty:
        environment = {**os.environ, "XDG_CACHE_HOME": cache or empty}
        result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout)
