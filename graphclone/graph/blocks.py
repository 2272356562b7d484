"""The blocks of a graph: its repeated stretches, each of which takes a stream in and gives it out again.

Names say which nodes belong together: ``layers.3`` of ``layers.3.mlp.weight``, or of the module that a node lies in.
The flow says whether they are a block: all that comes in by way of the stream goes out by way of it. What else a block
reads (masks, tables of rotations) comes from outside, and is the same for a copy of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from graphclone.graph.ir import Graph, Initializer, Node, Operand, Value, items_of, values_in
from graphclone.graph.stream import Course, Flow, Vertex


@dataclass(frozen=True, eq=False)
class Block:
    """One block.

    Attributes:
        number: in its names.
        entry: the stream as it comes in.
        exit: the stream as it goes out.
        nodes: in graph order.
        initializers: those that nothing outside of it reads, and those that nothing reads but that have its number.
        obstacle: why there cannot be more of it, if so.
    """

    number: int
    entry: Value
    exit: Value
    nodes: tuple[Node, ...]
    initializers: tuple[Initializer, ...]
    obstacle: str = ""


@dataclass(frozen=True, eq=False)
class Stack:
    """Blocks one behind the other.

    Attributes:
        name: what their names begin with, before the number.
        blocks: in order, numbered without gaps.
        kinds: which kind each of them is; equal numbers mean equal operators on equal shapes.
    """

    name: str
    blocks: tuple[Block, ...]
    kinds: tuple[int, ...] = field(default=())

    @property
    def first(self) -> int:
        """The number of its first block."""
        return self.blocks[0].number

    def matches(self, pattern: str) -> bool:
        """Whether a name, its beginning, or a pattern with wildcards means this stack."""
        return fnmatchcase(self.name, pattern) or f"{self.name}.".startswith(f"{pattern}.")

    def number(self, name: str) -> int | None:
        """The number of the block that a dotted name belongs to; None where it belongs to none."""
        prefix = f"{self.name}." if self.name else ""
        digits = name.removeprefix(prefix).partition(".")[0] if name.startswith(prefix) else ""
        return int(digits) if digits.isdigit() else None

    def renumbered(self, name: str, number: int) -> str:
        """The name of a part of a block in a block of another number."""
        prefix = f"{self.name}." if self.name else ""
        _, dot, rest = name.removeprefix(prefix).partition(".")
        return f"{prefix}{number}{dot}{rest}"


def stacks(graph: Graph) -> list[Stack]:
    """All stacks of blocks, those within blocks of others included, the outer ones first.

    Where a graph returns something of every block, as caches of keys and values, the blocks are those on the way to one
    of its outputs, and that is their obstacle.
    """
    labels = _labels(graph)
    found: dict[str, Stack] = {}
    for outputs in (graph.outputs, *([output] for output in graph.outputs if len(graph.outputs) > 1)):
        finder = _Finder(Flow(graph, outputs), labels)
        for prefix in finder.prefixes:
            stack = finder.stack(prefix)
            if stack is not None and (prefix not in found or len(stack.blocks) > len(found[prefix].blocks)):
                found[prefix] = stack
    return list(found.values())


def _labels(graph: Graph) -> dict[Node, dict[str, int]]:
    """The numbers in the names of what every node belongs to, by what comes before them.

    The module that a node lies in knows best; else it is the parameters that it reads.
    """
    of_value = {i.value: _numbers(i.name) for i in graph.initializers}
    of_scope: dict[str, dict[str, int]] = {}
    labels: dict[Node, dict[str, int]] = {}
    for node in graph.nodes:
        own = of_scope.setdefault(node.scope, _numbers(node.scope))
        labels[node] = {k: n for value in node.inputs for k, n in of_value.get(value, {}).items()} | own
    return labels


def _numbers(name: str) -> dict[str, int]:
    parts = [part.partition("@")[0] for part in name.split(".")]
    return {".".join(parts[:k]): int(part) for k, part in enumerate(parts) if part.isdecimal()}


class _Stretch(NamedTuple):
    """Where a block lies on a course: between two of its cuts, by their places."""

    number: int
    start: int
    end: int


class _Finder:
    """Looks for the stacks of a graph, given which of its outputs count."""

    def __init__(self, flow: Flow, labels: Mapping[Node, Mapping[str, int]]) -> None:
        self.flow, self.graph, self.labels = flow, flow.graph, labels
        self.users = self.graph.users()
        self.own = {i.value: i for i in self.graph.initializers}
        self.returned = {value: o.name for o in self.graph.outputs for value in values_in(o.operand)}
        self.courses: dict[Vertex, Course] = {}
        self.vertex_of = {node: vertex for vertex, node in flow.nodes()}
        prefixes = dict.fromkeys(prefix for numbers in labels.values() for prefix in numbers)
        self.prefixes = sorted(prefixes, key=lambda prefix: prefix.count(".") + bool(prefix))
        self.fed = self._fed()

    def _fed(self) -> set[Node]:
        """The nodes that depend on what the user feeds."""
        values: set[Value] = set(self.graph.inputs)
        fed: set[Node] = set()
        for node in self.graph.nodes:
            if not values.isdisjoint(node.inputs):
                fed.add(node)
                values.update(node.outputs)
        return fed

    def stack(self, prefix: str) -> Stack | None:
        """The stack whose names begin so; None where these are no blocks one behind the other."""
        numbers = {v: own[prefix] for v, node in self.flow.nodes() if prefix in (own := self.labels[node])}
        best: list[_Stretch] = []
        course = None
        for candidate in self._candidates(numbers):
            stretches = _stretches(candidate, numbers, self._foreign(candidate, numbers))
            if stretches is not None and len(stretches) > len(best):
                best, course = stretches, candidate
        if course is None:
            return None
        blocks: list[Block] = []
        for stretch in best:
            taken, given = (self.flow.value(course.cuts[place]) for place in (stretch.start, stretch.end))
            if taken is None or given is None:
                return None
            inside = self._inside(course, prefix, stretch)
            nodes = tuple(node for node in self.graph.nodes if node in inside)
            read = tuple(self._own_initializers(nodes, inside))
            blocks.append(Block(stretch.number, taken, given, nodes, read, self._obstacle(nodes, inside, given)))
        return _known_by_kind(self._cleared(Stack(prefix, tuple(blocks))), self.graph)

    def _candidates(self, numbers: Mapping[Vertex, int]) -> Iterator[Course]:
        """The courses of all that a stream may begin with, and those of what the first block reads.

        What comes of an input may go around all blocks (a long skip), and what the first of them reads not.
        """
        first, least = min(numbers), min(numbers.values())
        read = {reader for readers in self.flow.readers for reader in readers}
        starts = [start for start in range(max(first, len(self.graph.inputs))) if start not in read]
        begun = {vertex for vertex, number in numbers.items() if number == least}
        entries = [
            v for v, readers in enumerate(self.flow.readers) if v not in numbers and not begun.isdisjoint(readers)
        ]
        for start in dict.fromkeys([*starts, *entries]):
            if len(path := self.flow.path(start)) > 1:
                if start not in self.courses:
                    self.courses[start] = Course(self.flow, path)
                yield self.courses[start]

    def _foreign(self, course: Course, numbers: Mapping[Vertex, int]) -> set[int]:
        """The places of cuts before which parameters are read that have no number."""
        foreign: set[int] = set()
        for vertex, node in self.flow.nodes():
            place = course.before[vertex]
            if place is None or vertex in numbers or course.after[vertex] < place - 1:
                continue
            if any(value in self.own and self.own[value].kind == "parameter" for value in node.inputs):
                foreign.add(place)
        return foreign

    # Blocks

    def _inside(self, course: Course, prefix: str, stretch: _Stretch) -> set[Node]:
        """The nodes of a block: those on the stream's way, and those that nothing else reads.

        Such are views of weights, and sizes. What is made of the graph's inputs must bear the name of the block, too.
        What lies in a module elsewhere is outside, even if one block alone reads it, as it may a table of rotations.
        """
        start, vertices = stretch.start, self.vertex_of
        inside = {
            node
            for vertex, node in self.flow.nodes()
            if (place := course.before[vertex]) is not None
            and start < place <= stretch.end
            and course.after[vertex] >= start
        }
        ahead = {self.flow.value(cut) for cut in course.cuts[: start + 1]}
        pending = [-vertices[node] for node in inside]
        heapq.heapify(pending)
        seen = set(pending)
        while pending:
            node = self.graph.nodes[-heapq.heappop(pending) - len(self.graph.inputs)]
            if node not in inside:
                bears = self.labels[node].get(prefix) == stretch.number
                elsewhere = bool(node.scope) and not f"{node.scope}.".startswith(f"{prefix}." if prefix else "")
                apart = elsewhere or (node in self.fed and course.touched[vertices[node]] < start)
                if (apart and not bears) or not self._is_private(node, inside) or not ahead.isdisjoint(node.outputs):
                    continue
                inside.add(node)
            for value in node.inputs:
                if value.producer is not None and -vertices[value.producer] not in seen:
                    seen.add(-vertices[value.producer])
                    heapq.heappush(pending, -vertices[value.producer])
        return inside

    def _is_private(self, node: Node, inside: Collection[Node]) -> bool:
        readers = (user for value in node.outputs for user in self.users.get(value, ()))
        return self.returned.keys().isdisjoint(node.outputs) and all(reader in inside for reader in readers)

    def _own_initializers(self, nodes: Sequence[Node], inside: Collection[Node]) -> Iterator[Initializer]:
        for value in dict.fromkeys(value for node in nodes for value in node.inputs if value in self.own):
            if value not in self.returned and all(user in inside for user in self.users[value]):
                yield self.own[value]

    def _obstacle(self, nodes: Sequence[Node], inside: Collection[Node], given: Value) -> str:
        """What else of a block is read outside of it, or written by it."""
        for node in nodes:
            for value in self.graph.dialect.writes(node):
                if value.producer is not None and value.producer not in inside:
                    return f"{node.name} ({node.op}) writes into {value.name}, which is not its own"
            for value in node.outputs:
                if value is given or not value.is_tensor:
                    continue
                outside = [user for user in self.users.get(value, ()) if user not in inside]
                outside = [user for user in outside if any(out.is_tensor for out in user.outputs)]
                if value in self.returned or outside:
                    return self._leak(value, inside)
        return ""

    def _leak(self, value: Value, inside: Collection[Node]) -> str:
        reached = {value}
        for node in self.graph.nodes:
            if node not in inside and not reached.isdisjoint(node.inputs):
                reached.update(node.outputs)
        name = next((name for returned, name in self.returned.items() if returned in reached), None)
        where = "is read outside the block" if name is None else f"goes to the output {name}"
        return f"what {value.producer or value.name} gives {where} as well"

    def _cleared(self, stack: Stack) -> Stack:
        """The stack, with what nothing reads given to the blocks whose number it has, and with later obstacles."""
        blocks = []
        between = (self.returned[block.exit] for block in stack.blocks[:-1] if block.exit in self.returned)
        returned = next((f"the stream between blocks is the output {name}" for name in between), "")
        for block in stack.blocks:
            unread = [
                i
                for i in self.graph.initializers
                if not self.users.get(i.value) and {stack.number(name) for name in i.names} == {block.number}
            ]
            obstacle = block.obstacle or self._shared(stack, block) or returned
            own = {*block.initializers, *unread}
            listed = tuple(i for i in self.graph.initializers if i in own)
            blocks.append(replace(block, initializers=listed, obstacle=obstacle))
        return replace(stack, blocks=tuple(blocks))

    def _shared(self, stack: Stack, block: Block) -> str:
        for initializer in block.initializers:
            if len(numbers := {stack.number(name) for name in initializer.names} - {None}) > 1:
                return f"{initializer.name} is shared by blocks {', '.join(map(str, sorted(numbers)))}"  # type: ignore[type-var]
        return ""


def _stretches(course: Course, numbers: Mapping[Vertex, int], foreign: Collection[int]) -> list[_Stretch] | None:
    """The stretches of a course whose nodes have one number each, in order; None where others lie between them."""
    at: dict[int, set[int]] = {}
    for vertex, number in numbers.items():
        place = course.before[vertex]
        if place and course.after[vertex] >= place - 1:
            at.setdefault(place, set()).add(number)
    places = sorted(at)
    stretches: list[_Stretch] = []
    for place in places:
        if len(at[place]) > 1:
            return None
        (number,) = at[place]
        if stretches and stretches[-1].number == number:
            stretches[-1] = stretches[-1]._replace(end=place)
        elif stretches and number != stretches[-1].number + 1:
            return None
        else:
            stretches.append(_Stretch(number, stretches[-1].end if stretches else place - 1, place))
    if not stretches or any(place in foreign for place in range(places[0], places[-1] + 1)):
        return None
    return stretches


# Kinds


def _known_by_kind(stack: Stack, graph: Graph) -> Stack:
    known: dict[object, int] = {}
    kinds = [known.setdefault(form, len(known)) for form in forms(stack, graph, exact=True)]
    return replace(stack, kinds=tuple(kinds))


def forms(stack: Stack, graph: Graph, *, exact: bool, constants: bool = True) -> list[object]:
    """The form of each block of a stack: equal forms mean equal operators, put together equally.

    What is read from outside is known by the order in which the stack reads it first.

    Args:
        stack: of the graph.
        graph: that it lies in.
        exact: whether numbers and shapes count; at other widths they differ.
        constants: whether it counts which constant is read; a mask that one block alone reads is its own, and is
            outside of each if there are two such blocks.
    """
    own = graph.initializer_of()
    outside: dict[Value, int] = {}
    return [_form(block, own, outside, exact=exact, constants=constants) for block in stack.blocks]


def _form(
    block: Block, own: Mapping[Value, Initializer], outside: dict[Value, int], *, exact: bool, constants: bool
) -> object:
    private: dict[Value, object] = {block.entry: "entry"}
    weights = {initializer.value for initializer in block.initializers}

    def known(operand: Operand) -> object:
        if isinstance(operand, Value):
            if operand in private:
                return private[operand]
            any_constant = not constants and operand in own and own[operand].kind == "constant"
            if operand in weights or any_constant:
                return (own[operand].kind, operand.dtype, operand.shape if exact else operand.rank)
            return ("outside", outside.setdefault(operand, len(outside)))
        if isinstance(operand, list | tuple):
            return tuple(known(item) for item in items_of(operand))
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            return str(operand)
        return operand if exact else type(operand)

    form: list[object] = []
    for node in block.nodes:
        form.append((node.op, tuple((name, known(operand)) for name, operand in node.operands.items())))
        for value in node.outputs:
            private[value] = len(private)
    return tuple(form)
