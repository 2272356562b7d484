"""The parameters to close in a block, so that it gives its stream out as it came in.

A block adds to its stream: ``x + f(x)``, once or several times. It computes the identity if every summand but the
stream is 0, and it is if the parameters are that it is *linear* in: the closing ones. To find them is to walk back from
the end of the block, along the stream to its sums, and from the other summands through what is linear, to the nearest
parameters: the weight and bias of the last linear layer, or of a norm behind that (to be 0, or -1 where the model reads
``1 + w``). A node that is not passed names itself. Nothing here knows an operator: the rules say what is a sum of
products.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from graphclone.analysis.facts import Facts, Literal, Summand
from graphclone.analysis.places import Writes
from graphclone.graph.aliases import sharing
from graphclone.graph.blocks import Block, Stack, stacks
from graphclone.graph.ir import Initializer, Node, Value

Closers = Mapping[Initializer, float]
"""Parameters, each with the number that it is to hold throughout."""

_HOLDS = {
    "float16": ("float16", "float32", "float64"),
    "bfloat16": ("bfloat16", "float32", "float64"),
    "float32": ("float32", "float64"),
    "float64": ("float64",),
}
"""The types that hold every number of a type."""


class Unclosable(Exception):
    """A block cannot be made the identity; the text says why."""


@dataclass(frozen=True, eq=False)
class Closing:
    """The parameters that close a block.

    Attributes:
        block: of a stack.
        closers: its closing parameters.
        obstacle: why there are none, if so.
    """

    block: Block
    closers: Closers
    obstacle: str = ""


@dataclass(frozen=True, eq=False)
class Tower:
    """A stack, with what closes each of its blocks."""

    stack: Stack
    closings: tuple[Closing, ...]

    @property
    def name(self) -> str:
        return self.stack.name

    @property
    def obstacle(self) -> str:
        """Why none of its blocks can be repeated; empty where one can."""
        return "" if any(not closing.obstacle for closing in self.closings) else self.closings[0].obstacle

    @property
    def whole(self) -> bool:
        """Whether every block can be repeated."""
        return not any(closing.obstacle for closing in self.closings)


def towers(facts: Facts) -> list[Tower]:
    """The stacks of a graph that can be made deeper, and those that cannot though several of their blocks are alike.

    Of stacks within stacks it is the outermost of which every block can be repeated; if that is none, as where each
    stage of a network has a width of its own, it is those within.
    """
    found = [Tower(stack, _closings(facts, stack)) for stack in stacks(facts.graph)]
    able = [tower for tower in found if not tower.obstacle]
    chosen = [tower for tower in able if tower.whole or not any(_within(other, tower) for other in able)]
    chosen = [tower for tower in chosen if not any(_within(tower, other) for other in chosen)]
    others = (tower for tower in found if tower.obstacle and len(set(tower.stack.kinds)) < len(tower.stack.kinds))
    return [*chosen, *(tower for tower in others if not any(_within(tower, other) for other in chosen))]


def _within(tower: Tower, other: Tower) -> bool:
    return tower is not other and f"{tower.name}.".startswith(f"{other.name}." if other.name else "")


def _closings(facts: Facts, stack: Stack) -> tuple[Closing, ...]:
    walker = _Walker(facts)
    closings: list[Closing] = []
    for block in stack.blocks:
        try:
            closings.append(Closing(block, walker.closers(block)))
        except Unclosable as problem:
            closings.append(Closing(block, {}, str(problem)))
    return tuple(closings)


class _Walker:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.users = facts.graph.users()
        self.initializers = facts.graph.initializer_of()
        self.block: Block | None = None

    @cached_property
    def written(self) -> set[Value]:
        """The values that are read by others than those that write into their memory."""
        groups, writes = sharing(self.facts.graph), self.facts.graph.dialect.writes
        changing = filter(Writes(self.facts).change, groups)
        return {v for v in changing if any(v not in writes(user) for user in self.users.get(v, ()))}

    def closers(self, block: Block) -> Closers:
        """The closing parameters of a block.

        Raises:
            Unclosable: there are none.
        """
        if block.obstacle:
            raise Unclosable(block.obstacle)
        taken, given = block.entry, block.exit
        if (taken.shape, taken.dynamic, taken.dtype) != (given.shape, given.dynamic, given.dtype):
            raise Unclosable(f"the block takes {_described(taken)} and gives {_described(given)}")
        self.block = block
        closers: dict[Initializer, float] = {}
        for branch in self.branches(block.exit):
            self.merge(closers, self.zeros(branch))
        if not closers:
            raise Unclosable("nothing in the block adds to the stream")
        self.check_poles(block, closers)
        return closers

    def check_poles(self, block: Block, closers: Closers) -> None:
        """See to it that nothing in a block divides by what becomes 0, or has a slope there that does not train."""
        zero = {initializer.value for initializer, number in closers.items() if not number}
        zero |= {value for value, (source, number) in self.facts.shifts.items() if self._is(source, -number, closers)}
        for node in self.facts.graph.nodes:
            if node in block.nodes:
                zero.update(value for value in node.outputs if value.is_float and self.becomes_zero(node, value, zero))
                if met := [value for value in self.facts.poles.get(node, ()) if value in zero]:
                    raise Unclosable(
                        f"{node.name} ({node.op}) cannot take, or not train with, the 0 that {met[0].name} becomes"
                    )

    def _is(self, value: Value, number: float, closers: Closers) -> bool:
        initializer = self.initializers.get(self.facts.source(value))
        return initializer is not None and closers.get(initializer) == number

    def becomes_zero(self, node: Node, value: Value, zero: Collection[Value]) -> bool:
        """Whether a value is 0, or so little that it only keeps a divisor from 0, where others are."""
        if value in self.facts.views:
            return self.facts.views[value][0] in zero
        if (source := self.facts.nearly(value)) is not None:
            return source in zero
        if value in self.facts.summands:
            summands = self.facts.summands[value]
            return all(any(factor in zero for factor in summand.factors) for summand in summands)
        read = [operand for operand in node.inputs if operand.is_tensor and operand.is_float]
        if node in self.facts.vanishing:
            return bool(read) and all(operand in zero for operand in read)
        powers = (b.terms for b in self.facts.balances.get(node, ()) if b.out is value)
        return any(
            sum(c for c, item in terms if not isinstance(item, Literal) and item in zero) > 0 for terms in powers
        )

    # Along the stream

    def branches(self, value: Value) -> list[Value]:
        """What is added to the stream on its way to a value."""
        assert self.block is not None
        if value is self.block.entry:
            return []
        node = value.producer
        if node is None or node not in self.block.nodes:
            raise Unclosable(f"{value.name} comes from outside the block")
        self.check_passed(value)
        if value.dtype not in _HOLDS.get(self.block.entry.dtype, ()):
            raise Unclosable(f"{node} rounds the stream to {value.dtype}")
        if value in self.facts.views and self.facts.views[value][1] == tuple(range(value.rank)):
            return self.branches(self.facts.views[value][0])
        if value in self.facts.regrouped:
            return self.branches(self.facts.regrouped[value])
        problem: Unclosable | None = None
        x, y = self.facts.added.get(value, (value, value))
        for stream, other in ((x, y), (y, x)):
            if stream is not value and stream.shape == value.shape:
                try:
                    return [*self.branches(stream), other]
                except Unclosable as refusal:
                    problem = problem or refusal
        raise problem or Unclosable(f"{node.name} ({node.op}) changes the stream itself, and does not only add to it")

    def check_passed(self, value: Value) -> None:
        """Refuse a value that is not what its node has computed, or through which no gradient reaches that."""
        if value in self.written:
            raise Unclosable(f"{value.name} is written in place")
        if value in self.facts.detached:
            raise Unclosable(f"{value.name} lets no gradient through, so that what comes before it would not train")

    # Along a branch

    def zeros(self, value: Value) -> dict[Initializer, float]:
        """The parameters that make a value 0.

        Raises:
            Unclosable: nothing does that it is linear in.
        """
        node = value.producer
        if (parameter := self.parameter(value)) is not None:
            return parameter
        self.check_passed(value)
        if value in self.facts.views:
            return self.zeros(self.facts.views[value][0])
        if value in self.initializers:
            trains = self.initializers[value].kind == "parameter"
            why = "is read by others than what it would close" if trains else "does not train"
            raise Unclosable(f"{self.initializers[value].name} {why}")
        if node is None or self.block is None or node not in self.block.nodes:
            raise Unclosable(f"{value.name} comes from outside the block, and is not 0")
        if self.is_zero(node, value):
            return {}
        if value not in self.facts.summands:
            raise Unclosable(f"{node.name} ({node.op}) is not linear in what would have to be 0 before it")
        closers: dict[Initializer, float] = {}
        for summand in self.facts.summands[value]:
            self.merge(closers, self.factor(node, summand))
        return closers

    def factor(self, node: Node, summand: Summand) -> dict[Initializer, float]:
        """What makes a product 0: the parameter that is one of its factors, or what makes one of the others 0."""
        problem: Unclosable | None = None

        def nearness(factor: Value) -> tuple[bool, bool]:
            return self.parameter(factor) is None, self.facts.source(factor) not in self.initializers

        for factor in sorted(summand.factors, key=nearness):
            try:
                return self.zeros(factor)
            except Unclosable as refusal:
                problem = problem or refusal
        raise problem or Unclosable(f"{node.name} ({node.op}) adds a number")

    def parameter(self, value: Value) -> dict[Initializer, float] | None:
        """The parameter that a value shows, perhaps with a number added, and what makes that 0; None for any other.

        One that something else reads as well, such as the norm of a weight, is none.
        """
        number = 0.0
        while True:
            if value in self.initializers:
                initializer = self.initializers[value]
                own = self.block is not None and initializer in self.block.initializers
                trains = initializer.kind == "parameter" and value.is_float
                return {initializer: 0.0 - number} if own and trains and self.is_read_once(value) else None
            if value in self.facts.detached:
                return None
            if value in self.facts.views:
                value, _ = self.facts.views[value]
            elif value in self.facts.shifts and not number:
                value, number = self.facts.shifts[value]
            else:
                return None
            if not self.is_read_once(value):
                return None

    def is_read_once(self, value: Value) -> bool:
        readers = self.users.get(value, ())
        return len(readers) == 1 and sum(read is value for read in readers[0].inputs) == 1

    def is_zero(self, node: Node, value: Value) -> bool:
        """Whether the code fills a value with zeros."""
        terms = [b.terms for b in self.facts.balances.get(node, ()) if b.out is value]
        return any(isinstance(item, Literal) and item.value == 0 for term in terms for _, item in term) and not any(
            isinstance(item, Value) for term in terms for _, item in term
        )

    def merge(self, closers: dict[Initializer, float], more: Closers) -> None:
        for initializer, number in more.items():
            if closers.setdefault(initializer, number) != number:
                raise Unclosable(f"{initializer.name} would have to be {closers[initializer]} and {number}")


def _described(value: Value) -> str:
    return f"{value.dtype} {'x'.join(map(str, value.shape or ()))}"
