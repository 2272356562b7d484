"""Whole numbers that are summed up and then told apart.

``((h > 0).float() @ powers).long()`` reads a binary number. Were h repeated three times, each copy would count a third,
and the sum of thirds is off by what each is rounded to: 7 becomes 6. Numbers that depend on weights or on float inputs
come near such a step by accident only. Those that are made of nothing but integers, comparisons and constants lie on
one. So may the bounds at which a clamp or a sigmoid stays, and what ``x + (round(x) - x)`` rounds. Where a function
that jumps reads such numbers, the axes that they were summed over keep their size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from graphclone.algebra.axes import Axis, Why
from graphclone.analysis.facts import Facts, Summand
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
        self.mixed: dict[Value, tuple[Value, ...]] = {}

    def read(self, node: Node) -> Sums:
        """Note what a node computes.

        Returns:
            What the numbers that it tells apart were summed over.
        """
        operands = [value for value in node.inputs if value.is_tensor and (node, value) not in self.facts.outlines]
        counts = operands if self.are_counts(operands) else None
        for out in node.outputs:
            if out.is_tensor and out.is_float and (whole := self.whole(node, counts, out)) is not None:
                self.sums[out] = {**self.together(whole), **dict.fromkeys(self.summed(operands, out), node)}
        tells = node in self.facts.jumps or any(out.is_tensor and not out.is_float for out in node.outputs)
        return self.together(counts) if counts and tells else {}

    def whole(self, node: Node, counts: list[Value] | None, out: Value) -> Iterable[Value] | None:
        """The whole numbers that are in a result, if it is made of such, or of chosen numbers for many an operand.

        Args:
            node: that computes it.
            counts: the operands, if they are made of nothing else.
            out: the result.
        """
        if node in self.facts.steps:
            return ()
        if counts is not None:
            return counts
        picked = self.facts.picked.get(out, ())
        chosen = [value for value in picked if self.is_count(value)] if len(picked) > 1 else []
        return chosen if chosen or node in self.facts.saturating else self.rounded(out)

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

    def rounded(self, out: Value) -> Iterable[Value] | None:
        """What is left of a sum where a number is added and taken away: x + (round(x) - x) or x - x % 1, if whole.

        What is added up is remembered where that may be so. Signs are not: what occurs twice is taken to cancel.
        """
        summands = self.facts.summands.get(out, ())
        factors = [self.facts.source(summand.factors[0]) for summand in summands if summand.factors]
        near = len(set(factors)) < len(factors) or any(map(self.is_near, factors))
        if not near or any(summand != Summand(summand.factors[:1]) for summand in summands):
            return None
        terms = [term for factor in factors for term in self.mixed.get(factor, (factor,))]
        self.mixed[out] = tuple(term for term, times in Counter(terms).items() for _ in range(min(times, 2)))
        left = once = {term for term in terms if terms.count(term) == 1}
        for rest in [term for term in once if term.producer in self.facts.jumps and not self.is_count(term)]:
            whole = {rest, *map(self.facts.source, rest.producer.inputs if rest.producer else ())}
            left = left - whole if whole <= left else left
        return left if once and len(terms) > len(left) and self.are_counts(left) else None

    def is_near(self, value: Value) -> bool:
        """Whether a value is whole, or a whole number is added to others in it, or it is how far it is from one."""
        return value in self.sums or value in self.mixed or value.producer in self.facts.jumps

    def together(self, values: Iterable[Value]) -> Sums:
        return {axis: node for value in values for axis, node in self.sums.get(value, {}).items()}

    def summed(self, operands: list[Value], out: Value) -> Iterator[Axis]:
        """The axes that a result has no more; picking elements is no sum."""
        if out in self.facts.picked or out in self.facts.extremes:
            return
        kept = set(self.leaves(out))
        yield from (axis for value in operands for axis in self.leaves(value) if axis not in kept and axis.size > 1)

    def leaves(self, value: Value) -> Iterator[Axis]:
        for axis in self.facts.of[value]:
            yield from self.facts.axes.leaves(axis)
