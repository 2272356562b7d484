"""The runner of passes: a pass is a frozen dataclass, a pipeline is a tuple of passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from graphclone.errors import InvariantError, PipelineError
from graphclone.pipeline.conditions import CONDITIONS, OF_THE_SOURCE, defect
from graphclone.pipeline.invariants import check_state
from graphclone.pipeline.state import State


@runtime_checkable
class Pass(Protocol):
    """A step of the pipeline: a frozen dataclass whose fields are its options.

    ``requires`` and ``ensures`` name conditions (see ``graphclone.pipeline.conditions``). The runner tests what a pass
    requires before the pass runs, and what it ensures afterwards.

    Attributes:
        name: in kebab-case, as pipelines are written.
        requires: the conditions that must hold before.
        ensures: the conditions that hold afterwards.

    Examples:
        >>> from graphclone.passes import default_pipeline
        >>> [step.name for step in default_pipeline()][:3]
        ['canonicalize', 'deepen', 'infer-dims']
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]
    ensures: ClassVar[frozenset[str]]

    def __call__(self, state: State) -> bool:
        """Run on a state, and return whether anything changed."""
        ...


@dataclass(frozen=True)
class Timing:
    """The time that a pass took, and whether it changed anything."""

    name: str
    seconds: float
    changed: bool


def run(
    passes: Sequence[Pass],
    state: State,
    *,
    goal: Collection[str] = (),
    after: Callable[[Pass, State], None] | None = None,
    check: bool = False,
) -> list[Timing]:
    """Run passes in order.

    Args:
        passes: the pipeline.
        state: read and written.
        goal: conditions that must hold in the end.
        after: called after every pass, to print or to watch.
        check: test the invariants of graph and state after every pass.

    Raises:
        PipelineError: a pass is run before what it requires, or the goal is not reached.
        InvariantError: a pass breaks the graph, or does not ensure what it says.
    """
    contracts = _Contracts(state)
    timings: list[Timing] = []
    for step in passes:
        contracts.require(f"{step.name} requires", step.requires)
        start = time.perf_counter()
        changed = step(state)
        timings.append(Timing(step.name, time.perf_counter() - start, changed))
        contracts.ensure(step)
        if check:
            check_state(state)
        if after is not None:
            after(step, state)
    contracts.require("the pipeline must reach", goal)
    return timings


class _Contracts:
    """Which conditions were found to hold.

    Attributes:
        ensured: by any pass so far.
        holding: of which it was tested since the last pass ran; others may have been broken by it.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.ensured: set[str] = set()
        self.holding: set[str] = set()

    def require(self, what: str, names: Collection[str]) -> None:
        untested = sorted(set(names) - self.holding)
        defects = {name: self.defect(name) for name in untested}
        unmet = [name for name in untested if defects[name] is not None]
        if unmet:
            broken = self.ensured.issuperset(unmet)
            how = "no longer holds" if broken else "no earlier pass ensures"
            reasons = "; ".join(dict.fromkeys(str(defects[name]) for name in unmet if defects[name]))
            raise PipelineError(f"{what} {', '.join(unmet)}, which {how}" + (f": {reasons}" if reasons else ""))
        self.holding.update(names)

    def defect(self, name: str) -> str | None:
        """Why a condition does not hold; a name of a user's own means that an earlier pass ensures it."""
        return defect(name, self.state) if name in CONDITIONS else None if name in self.ensured else ""

    def ensure(self, step: Pass) -> None:
        for name in sorted(step.ensures):
            if (problem := defect(name, self.state)) is not None:
                raise InvariantError(f"{step.name} does not ensure {name}, as it says: {problem}")
        self.ensured |= step.ensures
        self.holding = set(step.ensures)


def lacking(passes: Sequence[Pass], goal: Collection[str]) -> tuple[Pass | None, list[str]] | None:
    """The first pass that requires what no pass before it ensures, and what that is; before anything is run.

    Whether a graph meets a condition as it is read is not known then, and not asked.

    Args:
        passes: a pipeline.
        goal: conditions that must hold in the end; where they are lacking the pass is None.
    """
    ensured = set(OF_THE_SOURCE)
    for step in passes:
        if missing := step.requires - ensured:
            return step, sorted(missing)
        ensured |= step.ensures
    missing = frozenset(goal) - ensured
    return (None, sorted(missing)) if missing else None
