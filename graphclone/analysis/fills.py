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

What is divided by must not be 0 at pads, nor what a root or a logarithm is taken of: 0 / 0 is no number, and no column
of 0 behind it makes it 0 again. This demand comes first, and others have to do without the zeros that it forbids.

What nobody demands is free, and new capacity: a norm's weight, and the columns of a weight that meet 0. Where nothing
sums or averages over a dim its pads may be anything, and the columns that meet them are 0: either way one of the two is
free, and all that is new has a gradient from the second step on, whatever functions lie between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cached_property, partial

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Fill, Growth
from graphclone.analysis.facts import Facts, Literal, Summand
from graphclone.analysis.places import Place, Places, Unfillable, name_of
from graphclone.graph.ir import Initializer, Node, Value, values_in

Fills = Mapping[Place, Fill]
"""What is demanded of every place; nothing where a value holds something that nobody asks for."""


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


class Inference(Places):
    """Demands so far, in order, so that a try that fails can be taken back."""

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.fills: dict[Place, Fill] = {}
        self.nonzero: dict[Place, Node] = {}  # where no 0 may be, with what that is for

    # Where demands start

    def fill(self, dim: Axis) -> None:
        """Find what is to be held at the pads of a dim."""
        self.check_bearable(dim)
        for node, values in self.facts.poles.items():
            self.keep_from_zero((place for value in values for place in self.varying(node, value, dim)), node)
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
        """Nothing goes in or out that would have pads, unless nobody relies on it."""
        graph = self.facts.graph
        returned = {value for output in graph.outputs if not output.free for value in values_in(output.operand)}
        for value in (*graph.inputs, *returned):
            if self.places(value, dim):
                raise Unfillable(value.name, "an input or an output, which has no pads")

    def takes_away(self, node: Node, dim: Axis) -> bool:
        """Whether a result has the dim less often than an operand, neither summed up by a contraction nor left out."""
        if any(self.has(axis, dim) for contraction in self.contractions.get(node, ()) for axis in contraction.axes):
            return False
        carried = max((self.times(value, dim) for value in self.felt(node)), default=0)
        results = (value for value in node.outputs if value.is_tensor and value not in self.facts.unread)
        lacking = (value for value in results if self.times(value, dim) < carried)
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
            marks = self.marks()
            try:
                self.demand(place, fill)
            except Unfillable as problem:
                failure = failure or problem
                self.take_back(marks)
            else:
                return
        raise failure or Unfillable(node.name, f"{node.op} {doing} it")

    def tried(self, place: Place, fill: Fill) -> bool:
        return self.works(partial(self.demand, place, fill))

    def works(self, demand: Callable[[], None]) -> bool:
        """Whether a demand can be met; if not, nothing is changed."""
        marks = self.marks()
        try:
            demand()
        except Unfillable:
            self.take_back(marks)
            return False
        return True

    def first_to_hold(self, places: Sequence[Place], fill: Fill) -> Place:
        """The first of several places that can hold a fill, all that takes included; the last if none can."""
        *some, last = places
        return next((place for place in some if self.tried(place, fill)), last)

    def marks(self) -> tuple[int, int]:
        """How much has been demanded so far."""
        return len(self.fills), len(self.nonzero)

    def take_back(self, marks: tuple[int, int]) -> None:
        for place in list(self.fills)[marks[0] :]:
            del self.fills[place]
        for place in list(self.nonzero)[marks[1] :]:
            del self.nonzero[place]

    def demand(self, place: Place, fill: Fill) -> None:
        """Let a value hold a fill, and all that it is made from what that takes."""
        pending = [(place, fill)]
        while pending:
            place, fill = pending.pop()
            held = self.fills.get(place)
            if held is None:
                if fill == Fill.ZERO and place in self.nonzero:
                    raise _at_pole(place.value, self.nonzero[place])
                self.fills[place] = fill
                pending += self.implied(place, fill)
            elif held != fill:
                both = _both(held, fill)
                raise Unfillable(name_of(place.value), f"{place.value.name} would have to hold {both} at once")

    def implied(self, place: Place, fill: Fill) -> list[tuple[Place, Fill]]:
        """The demands on other values that make a value hold a fill."""
        value, node = place.value, place.value.producer
        if not value.is_float:
            raise Unfillable(name_of(value), f"{value.name} holds no floating-point numbers")
        if value.dtype.startswith("complex") and fill not in (Fill.ZERO, Fill.MEAN):
            raise Unfillable(name_of(value), f"{value.name} is complex and cannot hold {fill.text}")
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
            # f(c x) = c^k f(x) holds whatever the operands are that have no scale, such as an index.
            asked = (o for o in node.inputs if node in self.facts.vanishing or self.facts.is_scaled(o))
            return [(p, fill) for operand in asked for p in self.carriers(node, operand, place.dim)]
        raise Unfillable(node.name, f"{node.op} does not keep {fill.text}")

    def of_summand(self, node: Node, place: Place, summand: Summand, fill: Fill) -> list[tuple[Place, Fill]]:
        """The demands that make one summand hold its part of a fill; none if it holds it anyway."""
        carriers = [p for factor in summand.factors for p in self.varying(node, factor, place.dim)]
        if fill != Fill.ZERO and any(self.varying(node, divisor, place.dim) for divisor in summand.divisors):
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
            places, marks = [carrier for carrier in carriers if carrier.value is factor], self.marks()
            if self.times(factor, place.dim) == needed and all(self.tried(own, Fill.ZERO) for own in places):
                return places
            self.take_back(marks)
        if not contracts:
            raise Unfillable(node.name, f"{node.op} adds what is not 0")
        return carriers

    def keep_from_zero(self, places: Iterable[Place], reader: Node) -> None:
        """Let values not be 0 at pads, nor all that they would be 0 by.

        Args:
            places: of the values.
            reader: what cannot read 0.
        """
        pending = [*places]
        while pending:
            place = pending.pop()
            if self.fills.get(place) == Fill.ZERO:
                raise _at_pole(place.value, reader)
            if place not in self.nonzero:
                self.nonzero[place] = reader
                pending += self.sources_of_zero(place, reader)

    def sources_of_zero(self, place: Place, reader: Node) -> Sequence[Place]:
        """The places that must not be 0 either, lest a value is; the first of several ways that can be had."""
        value, node, dim = place.value, place.value.producer, place.dim
        if value in self.facts.views:
            return [self.seen(place)]
        if (source := self.facts.nearly(value)) is not None:
            return self.places(source, dim)
        if node is None or self.facts.shifts.get(value, (value, 0))[1]:
            return []
        if self.difference_from_mean(place) is not None:
            raise _at_pole(value, reader)
        if value in self.facts.summands:
            counted = [s for s in self.facts.summands[value] if not (s.centred and self.averages(node, dim))]
            ways = [[p for factor in s.factors for p in self.varying(node, factor, dim)] for s in counted]
            if not ways:
                raise _at_pole(value, reader)
            ways = [way for way in ways if way] if all(summand.apart for summand in counted) else ways
        else:
            carriers = [p for operand in node.inputs for p in self.carriers(node, operand, dim)]
            ways = [[carrier] for carrier in carriers] if self.keeps_zero(node, place) else []
        for way in ways[:-1]:
            if self.works(partial(self.keep_from_zero, way, reader)):
                return []
        return ways[-1] if ways else []

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
        # A square of what has the dim once is not 0 where one side is.
        return len(often) == 1 and self.keeps_zero(node, place)

    def keeps_zero(self, node: Node, place: Place) -> bool:
        """Whether a result is 0 where all operands that have the dim are 0 in all of its axes."""
        carrying = {value for value in node.inputs if self.carriers(node, value, place.dim)}
        if not carrying:
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


def _at_pole(value: Value, reader: Node) -> Unfillable:
    return Unfillable(
        reader.name, f"{value.name} would have to hold 0, which {reader.op} cannot take, or not train with"
    )


def _both(a: Fill, b: Fill) -> str:
    """Two fills in words."""
    if a.is_mean and b.is_mean:
        return "two means"
    first, second = sorted((a.text, b.text))
    return f"{first} and {second.removesuffix(' over the dim')}"
