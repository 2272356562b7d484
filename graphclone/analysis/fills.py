"""The fills: what tensors hold at the pads of dims that grow by no whole number.

A dim that is averaged over cannot be repeated unevenly, but it can have pads: new indices that repeat nothing and hold
what does not count. An RMS norm wants 0 there, and a LayerNorm the mean, which it takes off again. So a *demand* for a
fill starts where a sum or an average reads a value, and is passed back to what writes it:

- a sum holds 0 if each of its summands does, a product if one of its factors does;
- what is linear holds the mean of its result if its operand holds the mean of its own;
- what is expanded along the dim is one number there, which is its mean, and a factor that changes nothing;
- a product with a parameter, a vector over the dim, holds the mean of its result if the parameter holds 1 and the other
  factor its own mean, weighted by the parameter;
- a function f with f(0) = 0 passes 0, and so does what is homogeneous: f(c x) = c^k f(x), k > 0, as the scales say;
- a parameter holds what is demanded, as it is ours to write;
- anything else cannot, and names itself.

What nobody demands is free, and new capacity: a norm's weight, and the columns of a weight that meet 0. Where nothing
sums or averages over a dim its pads may be anything, and the columns that meet them are 0: either way one of the two is
free, and all that is new has a gradient from the second step on, whatever functions lie between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from graphclone.algebra.axes import Axis, Kind, Why
from graphclone.algebra.growth import Fill, Growth
from graphclone.analysis.facts import Contraction, Facts, Literal, Summand
from graphclone.graph.aliases import last_writes
from graphclone.graph.ir import Initializer, Node, Value, values_in


class Place(NamedTuple):
    """A dim in an axis of a value."""

    value: Value
    at: int
    dim: Axis


Fills = Mapping[Place, Fill]
"""What is demanded of every place; nothing where a value holds something that nobody asks for."""


class Unfillable(Exception):
    """A dim cannot have pads; the reason names the node that cannot bear them."""

    def __init__(self, node: str, text: str) -> None:
        super().__init__(text)
        self.why = Why(node, text)
        self.dim: Axis | None = None


def infer_fills(facts: Facts, growths: Mapping[Axis, Growth]) -> Fills:
    """The fills by which every dim with pads leaves the results as they are.

    Args:
        facts: of the graph.
        growths: of the dims that grow.

    Raises:
        Unfillable: there are none.
    """
    inference = Inference(facts)
    for dim in (axis for axis, growth in growths.items() if growth.padded):
        try:
            inference.check_ports(dim)
            inference.fill(dim)
        except Unfillable as problem:
            problem.dim = dim
            raise
    return inference.fills


class Inference:
    """Demands so far, in order, so that a try that fails can be taken back."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.axes = facts.axes
        self.fills: dict[Place, Fill] = {}
        self.writes = _Writes(facts)
        self.contractions: dict[Node, list[Contraction]] = {}
        for contraction in facts.contractions:
            self.contractions.setdefault(contraction.node, []).append(contraction)
        self.gathered: dict[Node, list[Axis]] = {}
        for gathering in facts.gatherings:
            self.gathered.setdefault(gathering.node, []).append(gathering.axis)

    # Where demands start

    def fill(self, dim: Axis) -> None:
        """Find what is to be held at the pads of a dim."""
        self.check_bearable(dim)
        for gathering in sorted(
            self.facts.gatherings, key=lambda gathering: len(gathering.choices)
        ):  # forced ones first
            leaves = [leaf for leaf in self.axes.leaves(gathering.axis) if leaf.size > 1]
            if dim in leaves:
                if gathering.alone and len(leaves) > 1:
                    raise Unfillable(gathering.node.name, f"{gathering.node.op} averages over it together with others")
                zero = self.has_segments(gathering.axis)  # a mean weighs segments
                offered = [choice for choice in gathering.choices if choice[2] == Fill.ZERO or not zero]
                choices = [(Place(value, i, dim), fill) for value, i, fill in offered]
                self.demand_one(choices, gathering.node, "sums or averages over")
        gathered = any(self.has(axis, dim) for axes in self.gathered.values() for axis in axes)
        for column, partners in self.absorbed(dim):
            self.free(column, partners if gathered else [])

    def check_bearable(self, dim: Axis) -> None:
        """Whatever averages over the dim, or takes it away, says what its pads may hold."""
        gathered = {(node.name, self.axes.find(axis)) for node, axes in self.gathered.items() for axis in axes}
        for axis, why in self.axes.uniforms:
            if self.has(axis, dim) and (why.node, self.axes.find(axis)) not in gathered:
                raise Unfillable(why.node, f"{why.text} it, which only whole multiples leave as it is")
        for node in self.facts.graph.nodes:
            if not self.averages(node, dim) and self.takes_away(node, dim):
                raise Unfillable(node.name, f"{node.op} takes it together")

    def check_ports(self, dim: Axis) -> None:
        """Nothing goes in or out that would have pads."""
        graph = self.facts.graph
        returned = {value for output in graph.outputs for value in values_in(output.operand)}
        for value in (*graph.inputs, *returned):
            if self.places(value, dim):
                raise Unfillable(value.name, "an input or an output, which has no pads")

    def takes_away(self, node: Node, dim: Axis) -> bool:
        """Whether a result has the dim less often than an operand, neither summed up by a contraction nor left out."""
        if any(self.has(axis, dim) for contraction in self.contractions.get(node, ()) for axis in contraction.axes):
            return False
        carried = max((self.times(value, dim) for value in self.felt(node)), default=0)
        lacking = (value for value in node.outputs if value.is_tensor and self.times(value, dim) < carried)
        return any(value not in self.facts.picked or value in self.facts.extremes for value in lacking)

    def absorbed(self, dim: Axis) -> Iterator[tuple[Place, list[Place]]]:
        """Places of parameters that are contracted over the dim and absorb it, with what they are multiplied with."""
        for contraction in self.facts.contractions:
            for at, axis in enumerate(contraction.axes):
                if not self.has(axis, dim):
                    continue
                places = [Place(value, axes[at], dim) for value, axes in contraction.operands]
                places += [
                    Place(value, i, dim) for value, i in contraction.others if self.has(self.facts.of[value][i], dim)
                ]
                for own in places:
                    if self.facts.source(own.value) in self.facts.folded:
                        yield self.origin(own), [place for place in places if place.value is not own.value]

    def free(self, column: Place, partners: list[Place]) -> None:
        """Leave the columns of a weight free if one of their partners can be 0; else they are 0 themselves."""
        if column in self.fills:
            return
        for partner in partners:
            if self.tried(partner, Fill.ZERO):
                return
        self.demand(column, Fill.ZERO)

    # Demands

    def demand_one(self, choices: Iterable[tuple[Place, Fill]], node: Node, doing: str) -> None:
        """Demand the first of several that can be had."""
        failure: Unfillable | None = None
        for place, fill in choices:
            marks = len(self.fills)
            try:
                self.demand(place, fill)
            except Unfillable as problem:
                failure = failure or problem
                self.take_back(marks)
            else:
                return
        raise failure or Unfillable(node.name, f"{node.op} {doing} it")

    def tried(self, place: Place, fill: Fill) -> bool:
        marks = len(self.fills)
        try:
            self.demand(place, fill)
        except Unfillable:
            self.take_back(marks)
            return False
        return True

    def first_to_hold(self, places: Sequence[Place], fill: Fill) -> Place:
        """The first of several places that can hold a fill, all that takes included; the last if none can."""
        *some, last = places
        return next((place for place in some if self.tried(place, fill)), last)

    def take_back(self, marks: int) -> None:
        for place in list(self.fills)[marks:]:
            del self.fills[place]

    def demand(self, place: Place, fill: Fill) -> None:
        """Let a value hold a fill, and all that it is made from what that takes."""
        pending = [(place, fill)]
        while pending:
            place, fill = pending.pop()
            held = self.fills.get(place)
            if held is None:
                self.fills[place] = fill
                pending += self.implied(place, fill)
            elif held != fill:
                both = _both(held, fill)
                raise Unfillable(_name(place.value), f"{place.value.name} would have to hold {both} at once")

    def implied(self, place: Place, fill: Fill) -> list[tuple[Place, Fill]]:
        """The demands on other values that make a value hold a fill."""
        value, node = place.value, place.value.producer
        if not value.is_float or value.dtype.startswith("complex"):
            raise Unfillable(_name(value), f"{value.name} holds no floating-point numbers")
        self.writes.check(value)
        if node is None:
            if value.role != "initializer":
                raise Unfillable(value.name, "an input, which has no pads")
            return []
        if value in self.facts.views:
            return [(self.seen(place), fill)]
        if fill == Fill.ONE:
            return [(p, fill) for p in self.places(self.facts.regrouped[value], place.dim)]
        mean = self.difference_from_mean(place)
        if fill == Fill.ZERO and mean is not None:
            return [(mean, Fill.MEAN)]
        if value in self.facts.summands:
            return [d for summand in self.facts.summands[value] for d in self.of_summand(node, place, summand, fill)]
        if fill == Fill.ZERO and not self.averages(node, place.dim) and self.passes_zero(node, place):
            return [(p, fill) for operand in node.inputs for p in self.carriers(node, operand, place.dim)]
        raise Unfillable(node.name, f"{node.op} does not keep {fill.text}")

    def of_summand(self, node: Node, place: Place, summand: Summand, fill: Fill) -> list[tuple[Place, Fill]]:
        """The demands that make one summand hold its part of a fill; none if it holds it anyway."""
        carriers = [p for factor in summand.factors for p in self.varying(node, factor, place.dim)]
        if any(self.varying(node, divisor, place.dim) for divisor in summand.divisors):
            raise Unfillable(node.name, f"{node.op} divides by it")
        if summand.apart and not carriers:
            return []
        if fill == Fill.ZERO:
            if summand.centred and self.averages(node, place.dim):
                return []
            if not carriers:
                raise Unfillable(node.name, f"{node.op} adds what is not 0")
            return [(p, fill) for p in self.holding_zero(node, place, sorted(carriers, key=self.reluctance))]
        summands = self.facts.summands[place.value]
        linear = {value for summand in summands for value in (*summand.factors, *summand.divisors)}
        others = [value for value in self.felt(node) if value not in linear]
        if any(self.varying(node, value, place.dim) for value in others):
            raise Unfillable(node.name, f"{node.op} does not keep {fill.text}")
        if not carriers and not fill.weights:
            return []
        vectors = {carrier: self.vector(carrier) for carrier in carriers} if len(carriers) > 1 else {}
        weights = {carrier: vector for carrier, vector in vectors.items() if vector is not None}
        averaged = [carrier for carrier in carriers if carrier not in weights]
        if len(averaged) != 1:
            raise Unfillable(node.name, f"{node.op} does not keep {fill.text}")
        return [(averaged[0], fill.weighted(*weights.values())), *((weight, Fill.ONE) for weight in weights)]

    def holding_zero(self, node: Node, place: Place, carriers: Sequence[Place]) -> Sequence[Place]:
        """Places of factors at which a product is 0 where it is to be.

        A product that has the dim once is 0 where one factor is. If it has it twice, as a square has, that must be a
        factor that is beside it there, or one that has the dim as often. A contraction has every axis of its operands.
        """
        needed = self.times(place.value, place.dim)
        if needed == 1:
            return [self.first_to_hold(carriers, Fill.ZERO)]
        multiplied = {v for contraction in self.contractions.get(node, ()) for v, _ in contraction.operands}
        contracts = any(carrier.value in multiplied for carrier in carriers)
        if not contracts and (beside := [carrier for carrier in carriers if self.is_beside(carrier, place)]):
            return [self.first_to_hold(beside, Fill.ZERO)]
        for factor in dict.fromkeys(carrier.value for carrier in carriers):
            places, marks = [carrier for carrier in carriers if carrier.value is factor], len(self.fills)
            if self.times(factor, place.dim) == needed and all(self.tried(own, Fill.ZERO) for own in places):
                return places
            self.take_back(marks)
        if not contracts:
            raise Unfillable(node.name, f"{node.op} adds what is not 0")
        return carriers

    def is_beside(self, place: Place, other: Place) -> bool:
        """Whether two places are the same axis of tensors that are broadcast with one another."""
        axes = [self.axes.find(self.facts.of[value][at]) for value, at, _ in (place, other)]
        return axes[0] is axes[1] and place.at - place.value.rank == other.at - other.value.rank

    def vector(self, place: Place) -> Initializer | None:
        """The initializer that a factor is, in whatever shape, if it is a vector over the dim and can weight a mean."""
        value = place.value
        while value.producer is not None:
            if value not in self.facts.views and value not in self.facts.regrouped:
                return None
            value = self.facts.views[value][0] if value in self.facts.views else self.facts.regrouped[value]
        long = [self.axes.find(axis) for axis in self.facts.of[value] if axis.size > 1]
        return self.initializers.get(value) if long == [place.dim] else None

    @cached_property
    def initializers(self) -> dict[Value, Initializer]:
        return self.facts.graph.initializer_of()

    def reluctance(self, place: Place) -> int:
        """In which order factors are asked to hold 0: a parameter first, and last what the code alone computes."""
        if place.value in self.constants:
            return 2
        return 0 if place.value.role == "initializer" else 1

    @cached_property
    def constants(self) -> set[Value]:
        """The tensors that no parameter is in: tables, what is computed from them, and from inputs."""
        graph = self.facts.graph
        weighed = {i.value for i in graph.initializers if i.kind != "constant"}
        for node in graph.nodes:
            if any(value in weighed for value in node.inputs):
                weighed.update(node.outputs)
        values = (*graph.inputs, *(i.value for i in graph.initializers), *(v for n in graph.nodes for v in n.outputs))
        return {value for value in values if value not in weighed}

    def difference_from_mean(self, place: Place) -> Place | None:
        """The place of x in ``x - mean(x)``, which is 0 where x holds the mean."""
        summands = self.facts.summands.get(place.value, ())
        if place.value.producer not in self.facts.differences or len(summands) != 2:
            return None
        (x, *_), (mean, *_) = (summand.factors or (place.value,) for summand in summands)
        source, axes = self.facts.means.get(mean, (None, ()))
        over = [leaf for axis in axes for leaf in self.axes.leaves(axis) if leaf.size > 1]
        places = self.places(x, place.dim)
        return places[0] if source is x and over == [place.dim] and len(places) == 1 else None

    def passes_zero(self, node: Node, place: Place) -> bool:
        """Whether a result is 0 where all operands that have the dim are: f(0) = 0, or f(c x) = c^k f(x) with k > 0."""
        carrying = {value for value in node.inputs if self.carriers(node, value, place.dim)}
        often = {self.times(value, place.dim) for value in (place.value, *carrying)}
        if not carrying or len(often) > 1:  # a square of what has the dim once is not 0 where one side is
            return False
        if node in self.facts.vanishing:
            summed = {value for contraction in self.contractions.get(node, ()) for value, _ in contraction.others}
            return carrying >= {value for value in node.inputs if value.is_tensor} - summed
        degree = None
        for balance in self.facts.balances.get(node, ()):
            own = (c for c, item in balance.terms if not isinstance(item, Literal) and item in carrying)
            power = sum(own, Fraction(0))
            if balance.out is None:  # a requirement between scales, which those of the operands alone must meet
                power += sum(c * (degree or 0) for c, item in balance.terms if item is place.value)
                if power != 0:
                    return False
            elif balance.out is place.value:
                degree = power
        return degree is not None and degree > 0

    # Reading the graph

    def has(self, axis: Axis, dim: Axis) -> bool:
        return dim in self.axes.leaves(axis)

    def has_segments(self, axis: Axis) -> bool:
        """Whether some part of an axis is a concat."""
        axis = self.axes.find(axis)
        return axis.kind is Kind.CONCAT or any(self.has_segments(part) for part in axis.parts)

    def places(self, value: Value, dim: Axis) -> list[Place]:
        """The axes of a tensor that have the dim."""
        axes = self.facts.of.get(value, ())
        return [Place(value, index, dim) for index, axis in enumerate(axes) if self.has(axis, dim)]

    def times(self, value: Value, dim: Axis) -> int:
        """How often an element of a tensor depends on the dim: of segments that are side by side, it is in one."""
        return sum(self.times_in(axis, dim) for axis in self.facts.of.get(value, ()))

    def times_in(self, axis: Axis, dim: Axis) -> int:
        axis = self.axes.find(axis)
        if axis.kind is Kind.DIM:
            return int(axis is dim)
        counts = [self.times_in(part, dim) for part in axis.parts]
        return max(counts) if axis.kind is Kind.CONCAT else sum(counts)

    def carriers(self, node: Node, value: Value, dim: Axis) -> list[Place]:
        """The axes of an operand that have the dim. Axes that the node contracts do not count."""
        contracted: set[int] = set()
        for contraction in self.contractions.get(node, ()):
            if any(self.has(axis, dim) for axis in contraction.axes):
                contracted |= {i for operand, axes in contraction.operands if operand is value for i in axes}
                contracted |= {i for operand, i in contraction.others if operand is value}
        return [place for place in self.places(value, dim) if place.at not in contracted]

    def varying(self, node: Node, value: Value, dim: Axis) -> list[Place]:
        """The axes of an operand that have the dim, but for those along which it is one number."""
        return [place for place in self.carriers(node, value, dim) if not self.is_constant(self.origin(place))]

    def is_constant(self, place: Place) -> bool:
        """Whether a value is one number along a dim: it was expanded or made along it, and no operand has it."""
        node = place.value.producer
        if node is None or place.value not in self.facts.summands or self.writes.change(place.value):
            return False
        return not any(self.places(value, place.dim) for value in self.felt(node))

    def felt(self, node: Node) -> Iterator[Value]:
        """The operands of which more than the shape or the type is read."""
        return (value for value in node.inputs if (node, value) not in self.facts.outlines)

    def averages(self, node: Node, dim: Axis) -> bool:
        """Whether a node sums or averages over the dim."""
        return any(self.has(axis, dim) for axis in self.gathered.get(node, ()))

    def seen(self, place: Place) -> Place:
        """The place that a view shows."""
        source, axes = self.facts.views[place.value]
        index = axes[place.at]
        assert index is not None, "a new axis of size 1 is no dim"
        return Place(source, index, place.dim)

    def origin(self, place: Place) -> Place:
        """The place that a view of a view shows in the end."""
        while place.value in self.facts.views:
            place = self.seen(place)
        return place


class _Writes:
    """Which values are written into while others read them, so that they hold one thing before and another after."""

    def __init__(self, facts: Facts) -> None:
        graph = facts.graph
        self.last = last_writes(graph)
        self.place = {node: place for place, node in enumerate(graph.nodes)}
        self.users = graph.users() if self.last else {}
        self.writers: dict[int, set[Node]] = {}
        for node in graph.nodes if self.last else ():
            for value in graph.dialect.writes(node):
                self.writers.setdefault(self.last[value], set()).add(node)

    def change(self, value: Value) -> bool:
        """Whether a value is written into after it was made, by whatever name."""
        made = self.place[value.producer] if value.producer is not None else -1
        return self.last.get(value, made) > made

    def check(self, value: Value) -> None:
        """Refuse a value that is read after it has been written into."""
        if not self.change(value):
            return
        last = self.last[value]
        read = max((self.place[node] for node in self.users.get(value, ())), default=-1)
        if read > last or len(self.writers.get(last, ())) > 1:
            raise Unfillable(_name(value), f"{value.name} is written in place")


def _name(value: Value) -> str:
    return value.producer.name if value.producer is not None else value.name


def _both(a: Fill, b: Fill) -> str:
    """Two fills in words."""
    if a.is_mean and b.is_mean:
        return "two means"
    first, second = sorted((a.text, b.text))
    return f"{first} and {second.removesuffix(' over the dim')}"
