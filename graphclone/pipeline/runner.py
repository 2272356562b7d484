"""How passes are run: a pass is a frozen dataclass, a pipeline is a tuple of passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from graphclone.errors import InvariantError
from graphclone.graph.invariants import check_graph
from graphclone.pipeline.state import State


@runtime_checkable
class Pass(Protocol):
    """A step of the pipeline: a frozen dataclass whose fields are its options.

    ``requires`` and ``ensures`` name facts about the state; the runner checks that what a pass requires has been
    ensured before it.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]
    ensures: ClassVar[frozenset[str]]

    def __call__(self, state: State) -> bool:
        """Do it. Whether anything changed."""
        ...


@dataclass(frozen=True)
class Timing:
    """How long a pass took, and whether it changed anything."""

    name: str
    seconds: float
    changed: bool


def run(
    passes: Sequence[Pass],
    state: State,
    *,
    after: Callable[[Pass, State], None] | None = None,
    check: bool = False,
) -> list[Timing]:
    """Run passes in order.

    Args:
        passes: the pipeline.
        state: read and written.
        after: called after every pass, to print or to watch.
        check: test the graph's invariants after every pass.

    Raises:
        InvariantError: a pass is run before what it requires, or breaks the graph.
    """
    known: set[str] = set()
    timings: list[Timing] = []
    for step in passes:
        missing = step.requires - known
        if missing:
            raise InvariantError(f"{step.name} requires {', '.join(sorted(missing))}, which no earlier pass ensures")
        start = time.perf_counter()
        changed = step(state)
        timings.append(Timing(step.name, time.perf_counter() - start, changed))
        known |= step.ensures
        if check:
            check_graph(state.graph)
        if after is not None:
            after(step, state)
    return timings
