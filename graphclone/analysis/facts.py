"""The facts that inference learns about a graph: the axes of every value, and all that rules stated about nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import NamedTuple

from graphclone.algebra.axes import Axes, Axis, Why
from graphclone.algebra.growth import Fill
from graphclone.graph.ir import Graph, Node, Path, Value, values_in


@dataclass(frozen=True, eq=False)
class Literal:
    """A number written into a node that carries a scale of its own, such as the factor of an attention."""

    node: Node
    path: Path
    value: float


@dataclass(frozen=True)
class Follow:
    """A size in a node that equals the widened size of some axes, added up.

    A literal is replaced; a computed size is multiplied by the growth of its one axis.

    Attributes:
        axes: what the literal counts.
        sign: -1 where the literal counts from the end.
    """

    node: Node
    path: Path
    axes: tuple[Axis, ...]
    sign: int = 1


@dataclass(frozen=True, eq=False)
class Contraction:
    """A sum over axes that two operands share, in a linear layer, a convolution or a product of activations.

    Attributes:
        operands: the values that could absorb the multiplicity, each with the indices of its contracted axes.
        axes: the contracted axes.
        others: values that have some of them, with the index of an axis that a contracted one is, or is a part of.
    """

    node: Node
    operands: tuple[tuple[Value, tuple[int, ...]], ...]
    axes: tuple[Axis, ...]
    others: tuple[tuple[Value, int], ...] = ()


@dataclass(frozen=True)
class IntegerSum:
    """A sum over axes of products of integers of eight bits, in 32 bits.

    Attributes:
        axes: that may grow.
        places: how many summands there are for every index of the axes.
        out: the sum, where it is a result; None where the operator itself divides it by a scale.
        added: integers of 32 bits that are added to the sum, and so must be as many times greater as it is.
        offset: the greatest magnitude among these.
    """

    node: Node
    axes: tuple[Axis, ...]
    places: int = 1
    out: Value | None = None
    added: Value | None = None
    offset: int = 0

    def fits(self, copies: int) -> bool:
        """Whether the sum stays within 32 bits with so many copies of every index, whatever the integers are.

        A number less its zero point is at most 255 in magnitude.
        """
        size = prod(axis.size for axis in self.axes)
        return copies * (self.places * size * 255**2 + self.offset) < 2**31


Scaled = Value | Literal

_EPSILON = 1e-5
"""Whoever divides by this at the most has a slope of 100,000 there, and more than that behind it."""


class Summand(NamedTuple):
    """A product of values, elementwise along every axis that it keeps; a result is a sum of such.

    Attributes:
        factors: tensors, in each of which the product is linear.
        divisors: tensors that it is divided by.
        centred: whether another factor is what a norm makes of its input, which is 0 where that holds the fill that the
            norm wants.
        apart: whether it is beside the others, and not added to them.
    """

    factors: tuple[Value, ...]
    divisors: tuple[Value, ...] = ()
    centred: bool = False
    apart: bool = False


@dataclass(frozen=True, eq=False)
class Gathering:
    """A sum, mean or norm over an axis, which may have pads if these hold what does not count.

    Attributes:
        node: that computes it.
        axis: over which.
        choices: values, each with the index of the axis, that must hold a fill at its pads; one of them will do.
        alone: whether that does only for a dim that is all there is to sum or average over.
    """

    node: Node
    axis: Axis
    choices: tuple[tuple[Value, int, Fill], ...]
    alone: bool = False


@dataclass(frozen=True)
class Balance:
    """An equation between scales, in logarithms: of a result (``out``), or a requirement that a sum is zero.

    ``log c_out = sum of coefficient * log c + sum of coefficient * log n``, n the multiplicity of an axis.

    Attributes:
        terms: coefficient of the scale of every value or literal.
        logs: coefficient of the logarithm of the multiplicity of every axis.
        unbiased: coefficient of log (n S - 1) / ((S - 1) n), what an unbiased variance over S shrinks by.
        averages: coefficient of log (n S / S'), what a mean over an axis of S shrinks by as it grows to S', n copies of
            each index and pads of 0; with the value averaged, whose pads may hold the mean instead, which counts.
        contraction: where the result is a contraction, whose axes count only if no parameter absorbs them.
        mendable: whether a multiplication may be put into the graph where nothing else balances it: on the first
            factor of a contraction, on the result of anything else.
    """

    node: Node
    out: Value | None
    terms: tuple[tuple[Fraction, Scaled], ...]
    logs: tuple[tuple[Fraction, Axis], ...] = ()
    unbiased: tuple[tuple[Fraction, Axis], ...] = ()
    averages: tuple[tuple[Fraction, Axis, Value | None], ...] = ()
    contraction: Contraction | None = None
    mendable: bool = True


@dataclass(frozen=True)
class Refusal:
    """A node whose rule, or lack of one, pinned axes."""

    node: Node
    why: Why


@dataclass
class Facts:
    """Everything known about a graph after inference.

    Attributes:
        axes: the system of axes.
        of: the axes of every tensor.
        follows: literals that count a widened axis.
        contractions: every contraction.
        sums: every sum of integers over axes that may grow.
        carriers: integers that have a scale, as their readers pass it on, or as what they are added to has it; set by
            ``settle_sums``.
        balances: scale equations by node.
        views: values that show another value unchanged but for the order of its axes: the value seen, and for
            each axis of the view the axis it shows (None for a new axis of size 1).
        refusals: nodes that pinned what they touch.
        folded: parameters that absorb the multiplicity of what they contract, with the axes they contract; set by
            ``fold`` once all rules have spoken.
        shifts: values that are another value plus a number.
        floors: values that are another value, or a number above 0 where that is less.
        picked: values each of whose elements is, bit for bit, an element of one of these values, or a literal.
        moved: those of them that have the elements of one value, wherever they have got to.
        regrouped: those of them that have them in the same order, in another shape; with that value.
        summands: of every value that is known to be a sum of products.
        added: values that are two others added up as they are.
        filled: values whose elements are all the same when they are made.
        joins: nodes whose result may be a constant where two operands are functions of one number.
        detached: results through which no gradient passes.
        vanishing: nodes whose results are 0 where all their tensors are.
        poles: operands that must not be 0, by node: divisors, and what has no value or no slope there.
        means: values that are the mean of a value over axes, which it keeps with size 1.
        gatherings: what sums and averages want of pads.
        extremes: values that are the greatest or least elements over some axes.
        differences: nodes whose result is a constant where their two operands are equal.
        tables: values whose first axis is looked up by number.
        outlines: operands of which a node reads nothing but the shape or the type.
        unread: results that no node reads and that are not returned.
        jumps: nodes whose results jump: comparisons, rounding, casts to integers.
        steps: those of them whose results are floats and whole numbers, whatever they read.
        saturating: nodes whose results are a chosen number for many operands, such as the bounds of a clamp.
        distinct: axes that must keep unequal sizes, by which a node tells what it is to compute.
        labels: names that rules suggest for dims (``heads``, ``head_dim``).
    """

    graph: Graph
    axes: Axes = field(default_factory=Axes)
    of: dict[Value, tuple[Axis, ...]] = field(default_factory=dict)
    follows: list[Follow] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    sums: list[IntegerSum] = field(default_factory=list)
    carriers: set[Value] = field(default_factory=set)
    balances: dict[Node, list[Balance]] = field(default_factory=dict)
    views: dict[Value, tuple[Value, tuple[int | None, ...]]] = field(default_factory=dict)
    folded: dict[Value, tuple[int, ...]] = field(default_factory=dict)
    shifts: dict[Value, tuple[Value, float]] = field(default_factory=dict)
    floors: dict[Value, tuple[Value, float]] = field(default_factory=dict)
    picked: dict[Value, tuple[Value, ...]] = field(default_factory=dict)
    moved: set[Value] = field(default_factory=set)
    regrouped: dict[Value, Value] = field(default_factory=dict)
    summands: dict[Value, tuple[Summand, ...]] = field(default_factory=dict)
    added: dict[Value, tuple[Value, Value]] = field(default_factory=dict)
    filled: set[Value] = field(default_factory=set)
    joins: set[Node] = field(default_factory=set)
    detached: set[Value] = field(default_factory=set)
    vanishing: set[Node] = field(default_factory=set)
    poles: dict[Node, tuple[Value, ...]] = field(default_factory=dict)
    means: dict[Value, tuple[Value, tuple[Axis, ...]]] = field(default_factory=dict)
    gatherings: list[Gathering] = field(default_factory=list)
    extremes: dict[Value, tuple[Axis, ...]] = field(default_factory=dict)
    differences: set[Node] = field(default_factory=set)
    tables: set[Value] = field(default_factory=set)
    outlines: set[tuple[Node, Value]] = field(default_factory=set)
    unread: set[Value] = field(default_factory=set)
    jumps: set[Node] = field(default_factory=set)
    steps: set[Node] = field(default_factory=set)
    saturating: set[Node] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)
    distinct: list[tuple[Axis, Axis, Why]] = field(default_factory=list)
    labels: list[tuple[Axis, str]] = field(default_factory=list)

    def is_scaled(self, value: Value) -> bool:
        """Whether a value may have a scale other than 1: floats, and integers that carry one."""
        return value.is_float or value in self.carriers

    def leaves(self, values: Iterable[Value]) -> set[Axis]:
        """The dims that some values have, alone or as parts of their axes."""
        return {leaf for value in values for axis in self.of.get(value, ()) for leaf in self.axes.leaves(axis)}

    def fold(self) -> None:
        """Find the parameters that absorb the multiplicity of what they contract.

        A parameter does so if every use of it, seen through views, contracts the same of its axes, and nothing
        it is contracted with does so already. One that is also looked up, added or contracted over another axis
        is replicated as it is; its contractions, and those of two activations, are balanced by scales, which
        takes one multiplicity for all of an axis.
        """
        users = self.graph.users()
        contracted: dict[tuple[Node, Value], list[Contraction]] = {}
        for contraction in self.contractions:
            for value, _ in contraction.operands:
                contracted.setdefault((contraction.node, value), []).append(contraction)
        returned = {value for output in self.graph.outputs for value in values_in(output.operand)}
        for initializer in self.graph.initializers:
            if initializer.kind == "parameter" and initializer.value.is_float:
                uses = set(self._uses(initializer.value, users, contracted, returned))
                if len(uses) == 1 and (axes := uses.pop()) is not None:
                    self.folded[initializer.value] = axes
        for contraction in self.contractions:
            if not self.absorbed(contraction):
                for at, axis in enumerate(contraction.axes):
                    self.axes.uniform(axis, Why(contraction.node.name, "summed over"))
                    choices = tuple((value, axes[at], Fill.ZERO) for value, axes in contraction.operands)
                    self.gatherings.append(Gathering(contraction.node, axis, choices))

    def absorbed(self, contraction: Contraction) -> bool:
        """Whether a parameter absorbs the multiplicity of a contraction."""
        return any(self.source(value) in self.folded for value, _ in contraction.operands)

    def _uses(
        self,
        parameter: Value,
        users: Mapping[Value, list[Node]],
        contracted: Mapping[tuple[Node, Value], list[Contraction]],
        returned: Collection[Value],
    ) -> Iterator[tuple[int, ...] | None]:
        """For each use of a parameter, the axes it contracts, in sorted order, or None for any other use."""
        pending = [(parameter, tuple(range(parameter.rank)))]
        while pending:
            value, origin = pending.pop()
            if value in returned:
                yield None
            for node in users.get(value, ()):
                views = [out for out in node.outputs if out in self.views and self.views[out][0] is value]
                for out in views:
                    order = self.views[out][1]
                    pending.append((out, tuple(-1 if axis is None else origin[axis] for axis in order)))
                contractions = contracted.get((node, value), [])
                for contraction in contractions:
                    yield self._absorbable(contraction, parameter, value, origin)
                if not views and len(contractions) != sum(operand is value for operand in node.inputs):
                    yield None

    def _absorbable(
        self, contraction: Contraction, parameter: Value, value: Value, origin: Sequence[int]
    ) -> tuple[int, ...] | None:
        """The axes of a parameter that a contraction sums over, unless another operand sums them up already."""
        sources = [self.source(operand) for operand, _ in contraction.operands]
        if sources.count(parameter) > 1 or any(source in self.folded for source in sources):
            return None
        axes = next(axes for operand, axes in contraction.operands if operand is value)
        return tuple(sorted(origin[axis] for axis in axes if origin[axis] >= 0))  # new axes of size 1 do not count

    def nearly(self, value: Value) -> Value | None:
        """What a value is but for a number so small that it only keeps a divisor from 0; None if there is no such."""
        source, number = self.shifts.get(value) or self.floors.get(value) or (None, 0.0)
        return source if 0 < number <= _EPSILON else None

    def source(self, value: Value) -> Value:
        """The value that a view shows, seen through all views."""
        while value in self.views:
            value = self.views[value][0]
        return value
