"""Comparisons that hold only because both sides are one number, to the last bit.

``h == h.max()`` marks the greatest element. Were the axis of h repeated, it would have to mark every copy of it, but
copies are equal up to rounding only: a matrix product computes each in an order of its own. So where a comparison, or
another function that jumps, or one that is steep at 0, may see a number beside itself, the axes along which the two are
taken from different places keep their size. Thresholds in general, which no rounding crosses, are left alone.

Computations are told apart by value numbering: two results have one number if the same op computes them from operands
of the same numbers. What moves elements, or takes the greatest, keeps the number, and what picks some among others
remembers theirs. Inputs that can be given the same tensor have one number: a model may compare what one encoder makes
of two texts, and the texts may be equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest

from graphclone.algebra.axes import Axis, Why
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Node, Operand, Value

_REASON = "a number is compared with itself, and copies differ by rounding"

_NONE: frozenset[Axis] = frozenset()


def pin_ties(facts: Facts) -> None:
    """Pin what comparisons between copies of one number would tell apart."""
    ties = _Ties(facts)
    for node in facts.graph.nodes:
        ties.read(node)


@dataclass(frozen=True)
class _Origin:
    """What the elements of a value are.

    Attributes:
        number: of the computation.
        among: numbers of computations whose results the elements may be, bit for bit.
        bases: numbers of computations of which the elements are functions, of one element each.
        extremes: axes over which the greatest or least elements were taken on the way.
        tied: axes along which it is the difference or the ratio of a number and itself; then it is a constant there.
        met: axes along which functions of one number, from different places, have met on the way, each with each.
    """

    number: int
    among: frozenset[int]
    bases: frozenset[int]
    extremes: frozenset[Axis] = _NONE
    tied: frozenset[Axis] = _NONE
    met: frozenset[Axis] = _NONE


class _Ties:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.numbers: dict[Hashable, int] = {}
        self.origins: dict[Value, _Origin] = {}
        self.sums = {contraction.node for contraction in facts.contractions}
        self.constants = {i.value for i in facts.graph.initializers if i.kind == "constant"}

    def origin(self, value: Value) -> _Origin:
        """Of a value that no node computes it is the value itself."""
        if value not in self.origins:
            number = self.number(_kind(value) if value.role == "input" else value)
            self.origins[value] = _Origin(number, frozenset([number]), frozenset([number]))
        return self.origins[value]

    def number(self, computation: Hashable) -> int:
        return self.numbers.setdefault(computation, len(self.numbers))

    def read(self, node: Node) -> None:
        operands = [v for v in dict.fromkeys(node.inputs) if v.is_tensor and (node, v) not in self.facts.outlines]
        if self.constants.issuperset(operands):
            self.constants.update(node.outputs)
        floats = [value for value in operands if value.is_float]
        jumps = node in self.facts.jumps or any(out.is_tensor and not out.is_float for out in node.outputs)
        differs = node in self.facts.differences or node in self.facts.joins
        beside = [axis for a, b in combinations(self.akin(floats), 2) for axis in self.tie(a, b, alike=not differs)]
        computed = [value for value in floats if value not in self.constants]
        met = self.meeting(node, computed).union(*(self.origin(value).met for value in computed))
        if jumps:
            self.pin(node, met.union(beside, *(self.origin(value).tied for value in floats)))
        for value in self.facts.poles.get(node, ()):  # a copy is a rounding off 0, and the function is steep there
            self.pin(node, self.origin(value).met | self.origin(value).tied)
        for index, out in enumerate(node.outputs):
            if out.is_tensor:
                origin = self.result(node, index, computed)
                alone = len(floats) == 1 and out.elements == floats[0].elements
                tied = self.origin(floats[0]).tied if alone else frozenset(beside if differs else [])
                weighed = node in self.sums and len(computed) > 1  # by numbers that somebody trained, say
                whole = self.origin(self.facts.picked[out][0]).met if out in self.facts.moved else met
                left = _NONE if weighed else whole & self.facts.leaves([out])
                self.origins[out] = replace(origin, tied=tied, met=left)

    def result(self, node: Node, index: int, computed: list[Value]) -> _Origin:
        out = node.outputs[index]
        sources = [self.origin(value) for value in self.facts.picked.get(out, ())]
        if out in self.facts.moved:
            number = sources[0].number
        else:
            number = self.number((node.op, index, *map(self.key, node.operands.values())))
        among = frozenset([number]).union(*(source.among for source in sources))
        alone = len(computed) == 1 and (out in self.facts.moved or out.elements == computed[0].elements)
        bases = frozenset([number]) | (self.origin(computed[0]).bases if alone else frozenset())
        extremes = map(self.facts.axes.find, self.facts.extremes.get(out, ()))
        return _Origin(number, among, bases, frozenset(extremes).union(*(self.origin(v).extremes for v in computed)))

    def key(self, operand: Operand) -> Hashable:
        if isinstance(operand, Value):
            return self.origin(operand).number
        return tuple(map(self.key, operand)) if isinstance(operand, list | tuple) else repr(operand)

    def akin(self, values: list[Value]) -> list[Value]:
        """Those values that have something in common with another one; of a thousand that are put together few do."""
        origins = [self.origin(value) for value in values]
        numbers = {origin.number for origin in origins}
        counts = Counter(number for o in origins for number in o.bases | (o.among & numbers))
        akin = (any(counts[number] > 1 for number in o.bases | (o.among & numbers)) for o in origins)
        return [value for value, related in zip(values, akin, strict=True) if related]

    def tie(self, a: Value, b: Value, *, alike: bool) -> Iterator[Axis]:
        """The axes along which two values hold one number from different places, or functions of it, if not alike."""
        left, right = self.origin(a), self.origin(b)
        if left.number in right.among or right.number in left.among:
            yield from left.extremes ^ right.extremes
            yield from self.apart(a, b)
        elif not alike and not left.bases.isdisjoint(right.bases):
            yield from left.extremes ^ right.extremes

    def meeting(self, node: Node, values: list[Value]) -> frozenset[Axis]:
        """The axes along which functions of one number meet from different places; in a sum none is alone."""
        axes: list[Axis] = []
        for a, b in combinations(self.akin(values), 2) if node not in self.sums else ():
            left, right = self.origin(a), self.origin(b)
            if left.extremes == right.extremes and not left.bases.isdisjoint(right.bases):
                axes += self.apart(a, b)
        return frozenset(axes)

    def apart(self, a: Value, b: Value) -> Iterator[Axis]:
        """The axes along which the elements of two values that meet come from different places."""
        find = self.facts.axes.find
        axes = [[find(axis) for axis in self.facts.of[value]] for value in (a, b)]
        for x, y in zip_longest(*(reversed(side) for side in axes)):
            if x is not y:
                yield from (axis for axis in (x, y) if axis is not None)
        for x, y in combinations(axes[0], 2):  # one dim twice: the two may be exchanged
            yield from set(self.facts.axes.leaves(x)) & set(self.facts.axes.leaves(y))

    def pin(self, node: Node, axes: Iterable[Axis]) -> None:
        for axis in axes:
            self.facts.axes.pin(axis, Why(node.name, _REASON))


def _kind(value: Value) -> Hashable:
    """What an input may be: those of one kind can be given one tensor."""
    return value.dtype, tuple(None if axis in value.dynamic else size for axis, size in enumerate(value.shape or ()))
