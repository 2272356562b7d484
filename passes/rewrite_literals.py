"""Write the new sizes and factors into the nodes, and the shapes into the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphclone.algebra.growth import Layout
from graphclone.analysis.facts import Follow, Literal
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Value
from graphclone.pipeline.state import State


@dataclass(frozen=True)
class RewriteLiterals:
    """Turn the source graph into the clone's graph."""

    name: ClassVar[str] = "rewrite-literals"
    requires: ClassVar[frozenset[str]] = frozenset({"widths", "scales"})
    ensures: ClassVar[frozenset[str]] = frozenset({"literals"})

    def __call__(self, state: State) -> bool:
        changed = False
        for follow in state.known.follows:
            layouts = [state.layout(axis) for axis in follow.axes]
            if any(layout.grows for layout in layouts):
                self._follow(state, follow, layouts)
                changed = True
        for item, scale in (state.scales or {}).items():
            if isinstance(item, Literal) and scale != 1.0:
                item.node.set_operand(item.path, item.value * scale)
                changed = True
        for value in state.known.of:
            self._resize(state, value)
        return changed

    def _follow(self, state: State, follow: Follow, layouts: list[Layout]) -> None:
        size = follow.node.operand(follow.path)
        if not isinstance(size, Value):
            follow.node.set_operand(follow.path, follow.sign * sum(layout.new_size for layout in layouts))
            return
        (layout,) = layouts
        factor, rest = divmod(layout.new_size, layout.size)
        if rest:
            raise GraphcloneError(
                f"{follow.node.name}: a computed size cannot grow from {layout.size} to {layout.new_size}"
            )
        graph = state.graph
        name = f"{size.name}_widened_for_{follow.node.name}_{follow.path[-1]}"
        node = graph.dialect.multiply(size, factor, name)
        graph.nodes.insert(graph.nodes.index(follow.node), node)
        follow.node.set_operand(follow.path, node.outputs[0])

    def _resize(self, state: State, value: Value) -> None:
        layouts = [state.layout(axis) for axis in state.known.of[value]]
        if any(layout.grows for layout in layouts):
            value.shape = tuple(layout.new_size for layout in layouts)
