"""Where dims are in the axes of values, and which operands of a node have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from graphclone.algebra.axes import Axis, Kind, Why
from graphclone.analysis.facts import Contraction, Facts
from graphclone.graph.aliases import last_writes
from graphclone.graph.ir import Node, Value


class Place(NamedTuple):
    """A dim in an axis of a value."""

    value: Value
    at: int
    dim: Axis


class Unfillable(Exception):
    """A dim cannot have pads; the reason names the node that cannot bear them."""

    def __init__(self, node: str, text: str) -> None:
        super().__init__(text)
        self.why = Why(node, text)
        self.dim: Axis | None = None


class Places:
    """The places of dims, as what is known about a graph has them.

    Args:
        facts: of the graph.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.axes = facts.axes
        self.writes = Writes(facts)
        self.contractions: dict[Node, list[Contraction]] = {}
        for contraction in facts.contractions:
            self.contractions.setdefault(contraction.node, []).append(contraction)
        self.gathered: dict[Node, list[Axis]] = {}
        for gathering in facts.gatherings:
            self.gathered.setdefault(gathering.node, []).append(gathering.axis)

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


class Writes:
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
            raise Unfillable(name_of(value), f"{value.name} is written in place")


def name_of(value: Value) -> str:
    """The node that computes a value, or its own name where none does."""
    return value.producer.name if value.producer is not None else value.name
