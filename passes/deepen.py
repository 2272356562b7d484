"""Put more blocks into a model without changing what it computes, before it is made wider.

A new block is a copy of one of the source's whose *closing* parameters are such that it adds nothing to the stream; see
``graphclone.analysis.closing``. What else it holds is the copy's, or random. All of it trains: the closing parameters
from the first step on, the others from the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graphclone.analysis.closing import Tower, towers
from graphclone.analysis.depth import aligned_blocks, arranged, depths_asked
from graphclone.errors import GraphcloneError
from graphclone.graph.deepen import Slot, deepen
from graphclone.graph.ir import Graph, Initializer
from graphclone.passes.infer_dims import InferDims
from graphclone.pipeline.state import Request, State
from graphclone.runtime.new_tensors import Drawn, Filled


@dataclass(frozen=True)
class Deepen:
    """Make stacks of blocks as deep as the request says."""

    name: ClassVar[str] = "deepen"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical", "depth"})

    def __call__(self, state: State) -> bool:
        request = state.request
        if request.depth is None:
            return False
        found = towers_of(state)
        asked = depths_asked(found, request.depth, state.graph.name)
        plans = {tower: arranged(tower, depth, request.new_blocks) for tower, depth in asked.items()}
        return _deepened(state, plans)


@dataclass(frozen=True, eq=False)
class MatchDepth:
    """Make stacks of blocks as deep as those of another model of the same code.

    Attributes:
        target: its canonical graph.
    """

    target: Graph
    name: ClassVar[str] = "match-depth"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical", "depth"})

    def __call__(self, state: State) -> bool:
        if len(self.target.nodes) <= len(state.graph.nodes):
            return False
        aligned = aligned_blocks(state.graph, self.target, state.request.new_blocks)
        by_name = {stack.name: slots for stack, slots in aligned.items()}
        plans = {tower: by_name.pop(tower.name) for tower in towers_of(state) if tower.name in by_name}
        if by_name:
            raise GraphcloneError(f"{state.graph.name}: no block of {next(iter(by_name))} can be repeated")
        return bool(plans) and _deepened(state, plans)


def towers_of(state: State) -> list[Tower]:
    """The stacks of a graph that is canonical; see ``towers``. The state stays as it is."""
    probe = State(state.graph, state.request, state.rules)
    InferDims()(probe)
    return towers(probe.facts)


def _deepened(state: State, plans: Mapping[Tower, Sequence[Slot]]) -> bool:
    """Put blocks into the graph. Whether there are any."""
    closers: dict[Initializer, float] = {}
    for tower, slots in plans.items():
        for slot in slots:
            if slot.new:
                if problem := tower.closings[slot.block].obstacle:
                    number = tower.stack.blocks[slot.block].number
                    raise GraphcloneError(f"block {number} of {tower.name} cannot be repeated: {problem}")
                closers.update(tower.closings[slot.block].closers)

    def new_tensor(initializer: Initializer, name: str) -> Any:
        return _new_tensor(state.request, initializer, name, closers.get(initializer))

    state.depth = deepen(state.graph, {tower.stack: slots for tower, slots in plans.items()}, new_tensor)
    return bool(state.depth.additions)


def _new_tensor(request: Request, initializer: Initializer, name: str, closed: float | None) -> Any:
    if closed is not None:
        return Filled(initializer.tensor, closed)
    if request.new_from == "random" and initializer.kind == "parameter" and initializer.value.is_float:
        return Drawn(initializer.tensor, name, request.seed)
    return initializer.tensor
