"""Write the new sizes and factors into the nodes, and the shapes into the values.

A factor that no parameter and no literal absorbs becomes a multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import ClassVar

from graphclone.algebra.growth import Concat, Layout, Product
from graphclone.analysis.facts import Follow, Literal
from graphclone.errors import GraphcloneError
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
        growth = _ratio(layout)
        if growth is None:
            raise GraphcloneError(f"{follow.node.name}: a computed size has parts that grow differently")
        graph = state.graph
        name = f"{size.name}_widened_for_{follow.node.name}_{follow.path[-1]}"
        nodes = [graph.dialect.multiply(size, growth.numerator, name)]
        if growth.denominator > 1:
            nodes.append(graph.dialect.divide(nodes[0].outputs[0], growth.denominator, f"{name}_over"))
        place = graph.nodes.index(follow.node)
        graph.nodes[place:place] = nodes
        follow.node.set_operand(follow.path, nodes[-1].outputs[0])

    def _resize(self, state: State, value: Value) -> None:
        layouts = [state.layout(axis) for axis in state.facts.of[value]]
        if any(layout.grows for layout in layouts):
            value.shape = tuple(layout.new_size for layout in layouts)


def _ratio(layout: Layout) -> Fraction | None:
    """By how much an axis grows whatever the sizes of a run; None where that depends on them.

    The sizes that grow are those of the trace in every run, so that the denominator divides them.
    """
    if isinstance(layout, Product | Concat):
        ratios = [_ratio(part) for part in layout.parts]
        if None in ratios or (isinstance(layout, Concat) and len(set(ratios)) > 1):
            return None
        return prod((r for r in ratios if r), start=Fraction(1)) if isinstance(layout, Product) else ratios[0]
    return Fraction(layout.new_size, layout.size)


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
