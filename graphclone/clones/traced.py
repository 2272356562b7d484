"""A traced model and its dims."""

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
        state: the graph, and the facts that the rules found out about it.
        timings: how long each pass took, in seconds.

    Examples:
        >>> for group in gc.trace(model, (x,)).dims:
        ...     print(group.name, group.size, group.pin or "can grow")
        0 6 can grow
        0.in 4 the input keeps its shape (input)
        2 2 the output keeps its shape (output)
    """

    state: State
    timings: Sequence[Timing]

    def __repr__(self) -> str:
        free = sum(len(group.dims) for group in self.dims if group.pin is None)
        dims = f"{free} dim" if free == 1 else f"{free} dims"
        return f"{type(self).__name__}({self.graph.name}, {len(self.graph.nodes)} nodes, {dims} that can grow)"

    @property
    def graph(self) -> Graph:
        return self.state.graph

    @cached_property
    def dims(self) -> list[Group]:
        """Its dims in groups. The names of the dims of a group differ in layer numbers only."""
        return groups(dims(self.state.facts))
