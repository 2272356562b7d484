"""Widen random modules in random ways and compare what comes out with what went in.

    python -m tests.fuzz [--seconds 600] [--count N] [--seed 0]

prints every failure as a module of its own, made small, and the counts. The exit code is 1 if a clone was wrong or
anything but a clear refusal was raised.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator

from tests.fuzz.runner import Tally, run


def seeds(first: int, seconds: float, count: int | None) -> Iterator[int]:
    """Seeds until the time is over, or as many as asked for."""
    end = time.perf_counter() + seconds
    for seed in itertools.count(first) if count is None else range(first, first + count):
        if count is None and time.perf_counter() > end:
            return
        yield seed


def _progress(tally: Tally) -> None:
    print(f"\r{tally.programs} graphs, {tally.requests} requests", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long to go on (default: 600)")
    parser.add_argument("--count", type=int, help="how many graphs, in place of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the first graph (default: 0)")
    arguments = parser.parse_args()
    numbers = seeds(arguments.seed, arguments.seconds, arguments.count)
    tally = run(numbers, lambda text: print(text, flush=True), _progress if sys.stderr.isatty() else None)
    for text, count in tally.refusals.most_common(5):
        print(f"refused {count} times: {text[:160]}")
    print(tally)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
