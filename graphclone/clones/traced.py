"""A traced model, and what is known about its dims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from graphclone.analysis.dims import Group, dims, groups
from graphclone.graph.ir import Graph
from graphclone.pipeline.runner import Timing
from graphclone.pipeline.state import State


@dataclass(frozen=True, repr=False)
class Traced:
    """A traced model and what is known about its dims.

    Attributes:
        state: the graph and the facts.
        timings: of the passes.
    """

    state: State
    timings: Sequence[Timing]

    def __repr__(self) -> str:
        free = sum(len(group.dims) for group in self.dims if group.pin is None)
        return f"{type(self).__name__}({self.graph.name}, {len(self.graph.nodes)} nodes, {free} dims that can grow)"

    @property
    def graph(self) -> Graph:
        return self.state.graph

    @cached_property
    def dims(self) -> list[Group]:
        """Its dims, grouped by what they are called but for layer numbers."""
        return groups(dims(self.state.facts))
