"""Programs and requests one after another, counted, and what failed made small."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch

from tests.fuzz import graphs
from tests.fuzz.exports import Exports
from tests.fuzz.minimise import minimised
from tests.fuzz.oracle import Verdict, judged
from tests.fuzz.program import Built, Program
from tests.fuzz.requests import Request, drawn

REQUESTS = 12
"""Requests per program."""


CALL = """
if __name__ == "__main__":
    import graphclone as gc
    from tests.fuzz.requests import own_strategy

    clone = {call}
    for sizes in {sizes}:
        args, kwargs = inputs(*sizes)
        print(sizes, make()(*args, **kwargs), clone.module()(*args, **kwargs), sep="\\n")
"""
"""Code that shows a failure."""


@dataclass(frozen=True)
class Failure:
    """A request that crashed or came out wrong."""

    seed: int
    request: Request
    program: Program
    verdict: Verdict

    def __str__(self) -> str:
        head = f"# seed {self.seed}, {self.request}\n# {self.verdict.kind}: {self.verdict.why}\n"
        return head + self.program.source() + CALL.format(call=self.verdict.call, sizes=self.program.probed)

    def smaller(self) -> Failure:
        """The same failure of a smaller program."""
        small = minimised(self.program, self._fails_alike)
        return Failure(self.seed, self.request, small, judged(Built(small), self.request))

    def _fails_alike(self, program: Program) -> bool:
        try:
            verdict = judged(Built(program), self.request) if graphs.runs(program) else None
        except Exception:  # code that cannot even be compiled
            return False
        return verdict is not None and _kind(verdict) == _kind(self.verdict)


def _kind(verdict: Verdict) -> tuple[str, str]:
    """What makes two failures alike: for a crash, the beginning of its message."""
    return verdict.kind, verdict.why[:40] if verdict.kind == "crashed" else ""


@dataclass
class Tally:
    """What came of a run."""

    programs: int = 0
    requests: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    narrow: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        kinds = ("grown", "flat", "refused", "skipped", "crashed", "wrong")
        counts = ", ".join(f"{self.kinds[kind]} {kind}" for kind in kinds)
        each = self.seconds / max(self.requests, 1)
        return (
            f"{self.programs} graphs, {self.requests} requests: {counts}; {sum(self.narrow.values())} other sizes "
            f"refused; {each:.2f} s a request"
        )


def run(
    seeds: Iterator[int], say: Callable[[str], None] = lambda _: None, progress: Callable[[Tally], None] | None = None
) -> Tally:
    """Programs of the seeds, and some requests for each; an interrupt ends it, and what there is counts."""
    tally, start = Tally(), time.perf_counter()
    with doubles(), suppress(KeyboardInterrupt):
        for seed in seeds:
            program = graphs.program(seed)
            built, rng = Built(program), random.Random(seed)
            exports, seen = Exports(built.source), set[tuple[str, str]]()
            tally.programs += 1
            for request in [drawn(rng) for _ in range(REQUESTS)]:
                with exports.kept():
                    verdict = judged(built, request)
                tally.requests += 1
                tally.kinds[verdict.kind] += 1
                tally.narrow.update(text.partition(": ")[2][:80] for text in verdict.narrow)
                if verdict.kind == "refused":
                    tally.refusals[verdict.why] += 1
                if verdict.bad and _kind(verdict) not in seen:  # one of a kind is enough to make small
                    seen.add(_kind(verdict))
                    failure = Failure(seed, request, program, verdict).smaller()
                    tally.failures.append(failure)
                    say(str(failure))
            tally.seconds = time.perf_counter() - start
            if progress is not None:
                progress(tally)
    return tally


@contextmanager
def doubles() -> Iterator[None]:
    """Everything in float64 and in one thread, and no log of code that torch refuses."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        log.setLevel(level)
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)
