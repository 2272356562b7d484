"""Put more blocks into the stacks of a graph: nodes are copied, names numbered anew, the stream led through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, NamedTuple

from graphclone.errors import GraphcloneError
from graphclone.graph.blocks import Block, Stack
from graphclone.graph.ir import Graph, Initializer, Node, Value, substitute
from graphclone.graph.names import fresh
from graphclone.graph.order import with_sources


class Slot(NamedTuple):
    """The block at one place of a deeper stack.

    Attributes:
        block: a block of the source, by its place there.
        new: whether this is another of its kind, and not that block itself.
    """

    block: int
    new: bool


NewTensor = Callable[[Initializer, str], Any]
"""The data of an initializer of a new block, given the one that it is made after, and its name."""


@dataclass(frozen=True, eq=False)
class Addition:
    """A new block.

    Attributes:
        name: such as ``layers.4``.
        entry: the stream as it comes in.
        exit: the stream as it goes out, which must be the same.
    """

    name: str
    entry: str
    exit: str


@dataclass(frozen=True, eq=False)
class Depth:
    """The record of a deepening: the graph before it, and the block at each place now.

    Attributes:
        source: the graph as it was.
        additions: the new blocks, in order.
        nodes: the name that a node of the source has now, where that is another.
        origins: the initializer of the source that each initializer is, by name; those of new blocks are none.
        plans: what stands at every place of each stack.
    """

    source: Graph
    additions: tuple[Addition, ...]
    nodes: Mapping[str, str]
    origins: Mapping[str, Initializer]
    plans: tuple[Sequence[Slot], ...]


def deepen(graph: Graph, plans: Mapping[Stack, Sequence[Slot]], new_tensor: NewTensor) -> Depth:
    """Give stacks more blocks, in place.

    Args:
        graph: canonical.
        plans: what is to stand at every place of some stacks of the graph, the blocks of the source in order.
        new_tensor: makes the data of new blocks; it is asked for every initializer of theirs but constants.

    Raises:
        GraphcloneError: a node that cannot be copied, or a block that would have to be computed before what it reads.
    """
    source = graph.copy()
    own = dict(zip(graph.initializers, source.initializers, strict=True))
    deepening = _Deepening(graph, new_tensor)
    for stack, slots in plans.items():
        deepening.stack(stack, slots)
    _order(graph)
    origins = {i.name: own[i] for i in graph.initializers if i in own}
    return Depth(source, tuple(deepening.additions), deepening.renamed, origins, tuple(plans.values()))


@dataclass(eq=False)
class _Instance:
    """A block in its place: of the source, with its own nodes or copies of them, or a new one."""

    slot: Slot
    block: Block
    number: int
    nodes: list[Node]
    exit: Value
    added: list[Initializer] = field(default_factory=list)


class _Deepening:
    def __init__(self, graph: Graph, new_tensor: NewTensor) -> None:
        self.graph, self.new_tensor = graph, new_tensor
        self.additions: list[Addition] = []
        self.renamed: dict[str, str] = {}
        self.node_names = {node.name for node in graph.nodes}
        self.names = {value.name for value in graph.inputs} | {v.name for node in graph.nodes for v in node.outputs}
        self.names |= {name for i in graph.initializers for name in (i.value.name, *i.names)}

    def stack(self, stack: Stack, slots: Sequence[Slot]) -> None:
        """Put together one stack.

        The nodes of a block stay where they are, and copies follow them. So if a new block is to come before the one
        that it is made after, it takes that one's nodes and leaves it the copies: what the code outside reads of the
        first of several blocks, such as a size, is then still to be had.
        """
        self.renumber(stack, slots)
        instances: list[_Instance] = []
        for index, group in groupby(enumerate(slots), key=lambda item: item[1].block):
            places = list(group)
            block = stack.blocks[index]
            here = any(not slot.new for _, slot in places)
            copies = [self.copied(stack, block, stack.first + place) for place, _ in places[here:]]
            nodes = [list(block.nodes), *(nodes for nodes, _ in copies)] if here else [nodes for nodes, _ in copies]
            exits = [block.exit, *(given for _, given in copies)] if here else [given for _, given in copies]
            group_instances = [
                _Instance(slot, block, stack.first + place, own, given)
                for (place, slot), own, given in zip(places, nodes, exits, strict=True)
            ]
            self.place(group_instances, instances[-1] if instances else None)
            instances += group_instances
        for instance in instances:
            self.furnish(stack, instance)
        self.lead(stack, instances)

    # Names

    def renumber(self, stack: Stack, slots: Sequence[Slot]) -> None:
        """Number the blocks of the source by their new places, in names and in scopes."""
        own = ((place, stack.blocks[slot.block]) for place, slot in enumerate(slots) if not slot.new)
        numbers = {block.number: stack.first + place for place, block in own}
        inside = {node for block in stack.blocks for node in block.nodes}
        users = self.graph.users()
        private = {initializer for block in stack.blocks for initializer in block.initializers}
        for node in inside:
            node.scope = self.moved(stack, node.scope, numbers)
        names: dict[Initializer, tuple[str, ...]] = {}
        for initializer in self.graph.initializers:
            if initializer in private or not inside.isdisjoint(users.get(initializer.value, ())):
                names[initializer] = tuple(self.moved(stack, name, numbers) for name in initializer.names)
                if initializer not in private:  # new blocks have it, too, under a name of theirs
                    names[initializer] += tuple(_additional(stack, initializer, slots))
        for initializer, new in names.items():
            if initializer.value.name == initializer.name:
                initializer.value.name = new[0]
            initializer.names = new
        self.names |= {name for new in names.values() for name in new}

    @staticmethod
    def moved(stack: Stack, name: str, numbers: Mapping[int, int]) -> str:
        number = stack.number(name)
        return name if number is None or number not in numbers else stack.renumbered(name, numbers[number])

    # Nodes

    def copied(self, stack: Stack, block: Block, number: int) -> tuple[list[Node], Value]:
        """The nodes of a block once more, and the stream as they give it; they read what those of the block read."""
        values: dict[Value, Value] = {}
        nodes: list[Node] = []
        for node in block.nodes:
            copy = self.graph.dialect.copy(node)
            copy.name = fresh(node.name, self.node_names)
            copy.operands = {name: substitute(operand, values) for name, operand in node.operands.items()}
            copy.outputs = [replace(out, name=fresh(out.name, self.names), producer=copy) for out in node.outputs]
            if stack.number(node.scope) is not None:
                copy.scope = stack.renumbered(node.scope, number)
            values.update(zip(node.outputs, copy.outputs, strict=True))
            nodes.append(copy)
        return nodes, values[block.exit]

    def place(self, instances: Sequence[_Instance], previous: _Instance | None) -> None:
        """Put copies behind the block whose nodes they are copies of, or else behind the block before them."""
        nodes = self.graph.nodes
        new = [instance for instance in instances if instance.nodes != list(instance.block.nodes)]
        before = next((i for i in instances if i not in new), previous)
        where = 1 + max(nodes.index(node) for node in before.nodes) if before else 0
        nodes[where:where] = [node for instance in new for node in instance.nodes]

    # Initializers

    def furnish(self, stack: Stack, instance: _Instance) -> None:
        """Let an instance read initializers of its own; a block of the source keeps those that it had."""
        if not instance.slot.new:
            self.renamed.update(
                (old.name, new.name)
                for old, new in zip(instance.block.nodes, instance.nodes, strict=True)
                if old is not new
            )
            return
        values: dict[Value, Value] = {}
        for initializer in instance.block.initializers:
            copy = self.another(stack, instance, initializer)
            values[initializer.value] = copy.value
            instance.added.append(copy)
        _substitute(instance.nodes, values)

    def another(self, stack: Stack, instance: _Instance, initializer: Initializer) -> Initializer:
        """An initializer of a new block, after one of the block that it is made after."""
        names = tuple(
            stack.renumbered(name, instance.number) if stack.number(name) is not None else fresh(name, self.names)
            for name in initializer.names
        )
        constant = initializer.kind == "constant"
        tensor = initializer.tensor if constant else self.new_tensor(initializer, names[0])
        self.names.update(names)
        named_alike = initializer.value.name == initializer.name
        name = names[0] if named_alike else fresh(initializer.value.name, self.names)
        return Initializer(replace(initializer.value, name=name), names, initializer.kind, tensor)

    # The stream

    def lead(self, stack: Stack, instances: Sequence[_Instance]) -> None:
        """Lead the stream through all blocks, and list the initializers in their order."""
        stream = stack.blocks[0].entry
        for instance in instances:
            _substitute(instance.nodes, {instance.block.entry: stream})
            if instance.slot.new:
                name = f"{stack.name}.{instance.number}" if stack.name else str(instance.number)
                self.additions.append(Addition(name, stream.name, instance.exit.name))
            stream = instance.exit
        inside = {node for instance in instances for node in instance.nodes}
        after = {stack.blocks[-1].exit: stream}
        _substitute((node for node in self.graph.nodes if node not in inside), after)
        self.graph.outputs = [replace(o, operand=substitute(o.operand, after)) for o in self.graph.outputs]
        self.list(stack, instances)

    def list(self, stack: Stack, instances: Sequence[_Instance]) -> None:
        """Put the initializers of new blocks where their numbers want them."""
        order = {initializer: place for place, initializer in enumerate(self.graph.initializers)}
        keys: dict[Initializer, tuple[int, int, int]] = {i: (place, 0, 0) for i, place in order.items()}
        first = min((order[i] for block in stack.blocks for i in block.initializers), default=0)
        for place, instance in enumerate(instances):
            listed = instance.added if instance.slot.new else instance.block.initializers
            keys.update((i, (first, 1 + place, at)) for at, i in enumerate(listed))
        self.graph.initializers = sorted(keys, key=keys.__getitem__)


def _additional(stack: Stack, shared: Initializer, slots: Sequence[Slot]) -> Iterator[str]:
    """The names that a parameter which several blocks read gets from new ones."""
    for place, slot in enumerate(slots):
        for name in shared.names if slot.new else ():
            if stack.number(name) == stack.blocks[slot.block].number:
                yield stack.renumbered(name, stack.first + place)


def _substitute(nodes: Iterable[Node], values: Mapping[Value, Value]) -> None:
    for node in nodes:
        if not values.keys().isdisjoint(node.inputs):
            node.operands = {name: substitute(operand, values) for name, operand in node.operands.items()}


def _order(graph: Graph) -> None:
    """Let no node come before what it reads; those that need not move stay in order.

    Raises:
        GraphcloneError: nodes read each other.
    """
    done: set[Node] = set()
    moved = False
    ordered: list[Node] = []
    for node in graph.nodes:
        group = with_sources(node, done)
        moved = moved or len(group) > 1
        ordered += group
    if moved and any(graph.dialect.mutates(node) for node in ordered):
        raise GraphcloneError(f"{graph.name}: blocks that write in place cannot be put into another order")
    graph.nodes = ordered
