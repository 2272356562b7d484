"""Write the new sizes and factors into the nodes, and the shapes into the values.

A factor that no parameter and no literal absorbs becomes a multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from graphclone.algebra.growth import Layout
from graphclone.analysis.facts import Follow, Literal
from graphclone.graph.ir import Node, Value, items_of, values_in
from graphclone.pipeline.state import Mend, State


@dataclass(frozen=True)
class RewriteLiterals:
    """Turn the source graph into the clone's graph."""

    name: ClassVar[str] = "rewrite-literals"
    requires: ClassVar[frozenset[str]] = frozenset({"dims", "widths", "scales"})
    ensures: ClassVar[frozenset[str]] = frozenset({"literals"})

    def __call__(self, state: State) -> bool:
        changed = bool(state.scales.mends)
        for mend, factor in sorted(state.scales.mends.items(), key=lambda item: not item[0].on_operand):
            _insert(state, mend, factor)  # of one reader before those of all, who would else read something new
        for follow in state.facts.follows:
            layouts = [state.layout(axis) for axis in follow.axes]
            if any(layout.grows for layout in layouts):
                self._follow(state, follow, layouts)
                changed = True
        for item, scale in state.scales.factors.items():
            if isinstance(item, Literal) and scale != 1.0:
                item.node.set_operand(item.path, item.value * scale)
                changed = True
        for value in state.facts.of:
            self._resize(state, value)
        return changed

    def _follow(self, state: State, follow: Follow, layouts: list[Layout]) -> None:
        size = follow.node.operand(follow.path)
        if not isinstance(size, Value):
            follow.node.set_operand(follow.path, follow.sign * sum(layout.new_size for layout in layouts))
            return
        (layout,) = layouts
        growth = Fraction(layout.new_size, layout.size)
        graph = state.graph
        name = f"{size.name}_widened_for_{follow.node.name}_{follow.path[-1]}"
        nodes = [graph.dialect.multiply(size, growth.numerator, name)]
        if growth.denominator > 1:  # which divides the product, as the size is a multiple of what grows
            nodes.append(graph.dialect.divide(nodes[0].outputs[0], growth.denominator, f"{name}_in_parts"))
        place = graph.nodes.index(follow.node)
        graph.nodes[place:place] = nodes
        follow.node.set_operand(follow.path, nodes[-1].outputs[0])

    def _resize(self, state: State, value: Value) -> None:
        layouts = [state.layout(axis) for axis in state.facts.of[value]]
        if any(layout.grows for layout in layouts):
            value.shape = tuple(layout.new_size for layout in layouts)


def _insert(state: State, mend: Mend, factor: float) -> None:
    """Put a multiplication into the graph."""
    graph = state.graph
    position = graph.nodes.index(mend.node) + (0 if mend.on_operand else 1)
    node = graph.dialect.multiply(mend.value, factor, mend.name)
    product = node.outputs[0]
    state.facts.of[product] = state.facts.of[mend.value]
    if mend.on_operand:
        _replace_operand(mend.node, mend.value, product)
    else:
        graph.replace(mend.value, product)
    graph.nodes.insert(position, node)


def _replace_operand(node: Node, old: Value, new: Value) -> None:
    """Let the node read the new value where it first reads the old one: a square takes a factor once."""
    for name, operand in node.operands.items():
        if operand is old:
            node.operands[name] = new
            return
        if old in values_in(operand):
            items = list(items_of(operand))
            items[items.index(old)] = new
            node.operands[name] = items
            return
