"""Whole numbers that are summed up and then told apart.

``((h > 0).float() @ powers).long()`` reads a binary number. Were h repeated three times, each copy would count a third,
and the sum of thirds is off by what each is rounded to: 7 becomes 6. Numbers that depend on weights or on float inputs
come near such a step by accident only. Those that are made of nothing but integers, comparisons and constants lie on
one. So where a function that jumps reads such numbers, the axes that they were summed over keep their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from graphclone.algebra.axes import Axis, Why
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Initializer, Node, Value

Sums = dict[Axis, Node]
"""Axes that a number was summed over, each with where."""


def pin_counts(facts: Facts, is_whole: Callable[[Initializer], bool]) -> None:
    """Pin what is summed over on the way to numbers that lie on the steps of a function that jumps.

    Args:
        facts: of the graph.
        is_whole: whether the numbers in an initializer are whole, as numbers that somebody trained are not.
    """
    counts = _Counts(facts, is_whole)
    for node in facts.graph.nodes:
        for axis, summed in counts.read(node).items():
            facts.axes.pin(axis, Why(summed.name, f"whole numbers are summed up, and {node.name} tells them apart"))


class _Counts:
    """Which floats are made of nothing but integers, comparisons and constants, and what they were summed over."""

    def __init__(self, facts: Facts, is_whole: Callable[[Initializer], bool]) -> None:
        self.facts = facts
        self.is_whole = is_whole
        self.stored = facts.graph.initializer_of()
        self.sums: dict[Value, Sums] = {}

    def read(self, node: Node) -> Sums:
        """Note what a node computes.

        Returns:
            What the numbers that it tells apart were summed over.
        """
        operands = [value for value in node.inputs if value.is_tensor and (node, value) not in self.facts.outlines]
        counts, steps = self.are_counts(operands), node in self.facts.steps
        before = self.together(value for value in operands if value.is_float) if counts else {}
        for out in node.outputs:
            if (counts or steps) and out.is_tensor and out.is_float:
                self.sums[out] = {**({} if steps else before), **dict.fromkeys(self.summed(operands, out), node)}
        tells = node in self.facts.jumps or any(out.is_tensor and not out.is_float for out in node.outputs)
        return before if tells else {}

    def are_counts(self, values: Iterable[Value]) -> bool:
        """Whether values are made of nothing else; initializers are looked at last."""
        return all(map(self.is_count, sorted(values, key=self.stored.__contains__)))

    def is_count(self, value: Value) -> bool:
        if not value.is_float or value in self.sums:
            return True
        if (initializer := self.stored.get(value)) is not None and self.is_whole(initializer):
            self.sums[value] = {}
            return True
        return False

    def together(self, values: Iterable[Value]) -> Sums:
        return {axis: node for value in values for axis, node in self.sums[value].items()}

    def summed(self, operands: list[Value], out: Value) -> Iterator[Axis]:
        """The axes that a result has no more; picking elements is no sum."""
        if out in self.facts.picked or out in self.facts.extremes:
            return
        kept = set(self.leaves(out))
        yield from (axis for value in operands for axis in self.leaves(value) if axis not in kept and axis.size > 1)

    def leaves(self, value: Value) -> Iterator[Axis]:
        for axis in self.facts.of[value]:
            yield from self.facts.axes.leaves(axis)
