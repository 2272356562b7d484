"""Write the new sizes and factors into the nodes, and the shapes into the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphclone.facts import Literal
from graphclone.ir import Value
from graphclone.pipeline import State


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
                follow.node.set_operand(follow.path, follow.sign * sum(layout.new_size for layout in layouts))
                changed = True
        for item, scale in (state.scales or {}).items():
            if isinstance(item, Literal) and scale != 1.0:
                item.node.set_operand(item.path, item.value * scale)
                changed = True
        for value in state.known.of:
            self._resize(state, value)
        return changed

    def _resize(self, state: State, value: Value) -> None:
        layouts = [state.layout(axis) for axis in state.known.of[value]]
        if any(layout.grows for layout in layouts):
            value.shape = tuple(layout.new_size for layout in layouts)
