"""The graph every pass works on: values, nodes and initializers, the same for torch.export and ONNX.

A node keeps its operands by name, in the spelling of its own vocabulary (``aten.linear.default`` has ``input``,
``weight`` and ``bias``); an operand is a value, a literal, or a list of those; ``graphclone.graph.operands`` reads them
as what they are. What only the vocabulary itself understands (how to run a node, how to spell a multiplication) is
behind ``Dialect``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from graphclone.errors import InvariantError

Number: TypeAlias = bool | int | float | complex

Operand: TypeAlias = "Value | Number | str | Opaque | Sequence[Operand] | None"
"""A value, a literal, or a list of operands; None stands for one that is left out."""

Path = tuple[str | int, ...]
"""Where an operand sits in a node: its name, then indices into lists."""

_STORED_ONLY = ("float8", "float6e", "float4e")

Role = Literal["input", "initializer", "node"]

_Origin = TypeVar("_Origin")


@dataclass(eq=False)
class Value:
    """A tensor or a symbolic number that flows through the graph.

    Attributes:
        name: unique in its graph.
        shape: size of every axis; a hint where the axis is dynamic. None for a number (a symbolic size, say).
        dtype: ``float32``, ``int64`` and so on; empty for a number.
        dynamic: symbol of every dynamic axis.
        role: where the value comes from.
        producer: the node that computes it.
    """

    name: str
    shape: tuple[int, ...] | None
    dtype: str
    dynamic: Mapping[int, str] = field(default_factory=dict)
    role: Role = "node"
    producer: Node | None = None

    @property
    def is_tensor(self) -> bool:
        return self.shape is not None

    @property
    def rank(self) -> int:
        return len(self.shape or ())

    def size(self, axis: int) -> int:
        """The size of one axis, which may be counted from the end."""
        return (self.shape or ())[axis]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return prod(self.shape or ())

    @property
    def is_float(self) -> bool:
        """Whether it can be scaled: floats of eight bits and fewer are stored, not computed with."""
        return ("float" in self.dtype or "complex" in self.dtype) and not self.dtype.startswith(_STORED_ONLY)

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Opaque:
    """A literal that only its vocabulary understands, such as a dtype or a device.

    Attributes:
        content: what it is there; it is compared, and it does not change.
    """

    content: object

    def __repr__(self) -> str:
        return repr(self.content)


@dataclass(eq=False)
class Node:
    """One operation.

    Attributes:
        name: unique in its graph.
        op: qualified name, by which rules are found.
        operands: by name, in the order of the op's signature.
        outputs: the values it computes.
        target: what the dialect runs.
        scope: dotted path of the module or model part the node belongs to.
        several: whether the target returns a sequence, even of one.
        region: what the dialect runs it in, such as a region without autocast; None where that is nothing.
    """

    name: str
    op: str
    operands: dict[str, Operand]
    outputs: list[Value]
    target: Any = None
    scope: str = ""
    several: bool = False
    region: Any = None

    @property
    def inputs(self) -> Iterator[Value]:
        """Every value among the operands."""
        for operand in self.operands.values():
            if isinstance(operand, Value):
                yield operand
            elif isinstance(operand, list | tuple):
                yield from values_in(operand)

    def __repr__(self) -> str:
        return f"{self.name}: {self.op}"

    def operand(self, path: Path) -> Operand:
        """The operand at a path."""
        operand = self.operands[str(path[0])]
        for step in path[1:]:
            operand = items_of(operand)[int(step)]
        return operand

    def set_operand(self, path: Path, operand: Operand) -> None:
        """Replace the operand at a path, or give one that was left out; lists are never changed in place."""
        self.operands[str(path[0])] = _replaced(self.operands.get(str(path[0])), path[1:], operand)


@runtime_checkable
class Stored(Protocol):
    """Data that lies in a file, and is read anew whenever it is wanted, so that nothing stays in memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any:
        """The dtype of a tensor that is read from it."""
        ...

    def read(self) -> Any:
        """The tensor."""
        ...


@dataclass(eq=False)
class Initializer:
    """A parameter, buffer or constant of the model.

    Attributes:
        value: the value the graph reads.
        names: every name it has in the state dict; the first is the one shown. Tied weights have several.
        kind: a parameter trains, a buffer is saved with the model, a constant does neither.
        tensor: its data, where that is stored, or a tensor without data where the model was traced without weights.
    """

    value: Value
    names: tuple[str, ...]
    kind: Literal["parameter", "buffer", "constant"]
    tensor: Any

    def read(self) -> Any:
        """Its data, from the file if it is stored in one. Not to be written into."""
        return self.tensor.read() if isinstance(self.tensor, Stored) else self.tensor

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True)
class Output:
    """One output of the graph: a value or a literal, under the name that the user knows.

    Attributes:
        name: as the caller knows it.
        operand: what is returned.
        free: whether it may grow, since nobody relies on its shape, and if it does have another scale.
    """

    name: str
    operand: Operand
    free: bool = False


Respelled = tuple[str, dict[str, Operand]]
"""Another op, and the operands with which it computes the same outputs."""


@dataclass(frozen=True)
class Spelling:
    """A respelling of nodes of one operator, so that rules understand them.

    Attributes:
        of: the canonical spelling of a node; None where it has that one.
        copies: whether its result is new memory where the node's may be a part of its operand's.
    """

    of: Callable[[Node], Respelled | None]
    copies: bool = False


class Dialect(Protocol):
    """The abilities that a graph's own vocabulary must have.

    Attributes:
        name: of the vocabulary.
        assertions: ops that assert what the trace knows and compute nothing.
        spellings: by op, for those that have others than the canonical one.
    """

    name: str
    assertions: Collection[str]
    spellings: Mapping[str, Spelling]

    def run(self, node: Node, operands: Mapping[str, Any], *, lift: bool = False) -> Sequence[Any]:
        """Compute the node's outputs from operands as ``evaluated`` gives them.

        Lifted, it computes in float64 also where the node asks for lower precision, and always the same, whatever
        chance or stale memory have to say.
        """
        ...

    def mutates(self, node: Node) -> bool:
        """Whether the node may change anything but its results."""
        ...

    def writes(self, node: Node) -> Collection[Value]:
        """The inputs that the node may write into."""
        ...

    def aliases(self, node: Node) -> Collection[Value]:
        """The inputs that a result may be, or be a part of, in the same memory."""
        ...

    def is_random(self, node: Node) -> bool:
        """Whether the node may compute something else every time."""
        ...

    def respell(self, node: Node, op: str, operands: dict[str, Operand]) -> None:
        """Make the node another op that computes the same outputs."""
        ...

    def copy(self, node: Node) -> Node:
        """Another node that computes the same; its operands, its outputs and its name are still those of the node.

        Raises:
            GraphcloneError: there can be no other.
        """
        ...

    def multiply(self, value: Value, factor: float, name: str) -> Node:
        """A node that multiplies a value, a tensor or a size, by a number."""
        ...

    def divide(self, size: Value, divisor: int, name: str) -> Node:
        """A node that divides a size by a number which it is a multiple of."""
        ...


@dataclass(eq=False)
class Graph:
    """A traced model.

    Attributes:
        name: what messages call it.
        inputs: what the user feeds, in order.
        initializers: in the order of the state dict.
        nodes: in an order that can be executed.
        outputs: what it returns.
        dialect: the vocabulary of its nodes.
        notes: what the user should know about how it was read.
        origin: what it was read from, by which it is written out again; ``origin_as`` gives it its type.
    """

    name: str
    inputs: list[Value]
    initializers: list[Initializer]
    nodes: list[Node]
    outputs: list[Output]
    dialect: Dialect
    notes: list[str] = field(default_factory=list)
    origin: object = None

    def __repr__(self) -> str:
        return f"Graph({self.name}, {len(self.nodes)} nodes)"

    def origin_as(self, kind: type[_Origin]) -> _Origin:
        """The origin of the graph, which is of the given type.

        Raises:
            InvariantError: it is not.
        """
        if not isinstance(self.origin, kind):
            raise InvariantError(f"{self.name} was not read from an {kind.__name__}")
        return self.origin

    def copy(self) -> Graph:
        """The same graph in new values and nodes, under the same names; tensors are shared."""
        values: dict[Value, Value] = {}

        def copied(value: Value, producer: Node | None = None) -> Value:
            values[value] = replace(value, producer=producer)
            return values[value]

        inputs = [copied(value) for value in self.inputs]
        initializers = [replace(i, value=copied(i.value)) for i in self.initializers]
        nodes = []
        for node in self.nodes:
            operands = {name: substitute(operand, values) for name, operand in node.operands.items()}
            nodes.append(new := replace(node, operands=operands, outputs=[]))
            new.outputs = [copied(output, new) for output in node.outputs]
        outputs = [replace(o, operand=substitute(o.operand, values)) for o in self.outputs]
        graph = replace(self, inputs=inputs, initializers=initializers, nodes=nodes, outputs=outputs)
        graph.notes = list(self.notes)
        return graph

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value, in graph order."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                users.setdefault(value, []).append(node)
        return users

    def read(self) -> set[Value]:
        """The values that a node reads or the graph returns."""
        return {*self.users(), *values_in([output.operand for output in self.outputs])}

    def initializer_of(self) -> dict[Value, Initializer]:
        """The initializer behind each value that is one."""
        return {initializer.value: initializer for initializer in self.initializers}

    def replace(self, old: Value, new: Operand) -> None:
        """Let every reader of a value read another operand instead."""
        for node in self.nodes:
            for name, operand in node.operands.items():
                node.operands[name] = substitute(operand, {old: new})
        self.outputs = [replace(o, operand=substitute(o.operand, {old: new})) for o in self.outputs]

    def unread(self) -> list[Node]:
        """Nodes whose results nobody reads and that change nothing."""
        live = set(values_in([output.operand for output in self.outputs]))
        dead: list[Node] = []
        for node in reversed(self.nodes):
            if not live.isdisjoint(node.outputs) or self.dialect.mutates(node):
                live.update(node.inputs)
            else:
                dead.append(node)
        return dead[::-1]

    def prune(self) -> bool:
        """Drop nodes whose results nobody reads and that change nothing. Whether any was dropped."""
        unread = self.unread()
        self.remove(unread)
        return bool(unread)

    def remove(self, nodes: Collection[Node]) -> None:
        """Take nodes out of the graph."""
        removals = set(nodes)
        self.nodes = [node for node in self.nodes if node not in removals]


def items_of(operand: Operand) -> Sequence[Operand]:
    """The items of an operand that is a list; of any other there are none."""
    return operand if isinstance(operand, list | tuple) else ()


def values_in(operand: Operand) -> Iterator[Value]:
    """Every value in an operand, depth first."""
    if isinstance(operand, Value):
        yield operand
    elif isinstance(operand, list | tuple):
        for item in operand:
            yield from values_in(item)


def substitute(operand: Operand, values: Mapping[Value, Operand]) -> Operand:
    """The operand with values replaced."""
    if isinstance(operand, Value):
        return values.get(operand, operand)
    if isinstance(operand, list | tuple):
        return [substitute(item, values) for item in operand]
    return operand


def evaluated(operand: Operand, results: Mapping[Value, Any]) -> Any:
    """The runtime value of an operand: the result of a value, or what a literal stands for."""
    if isinstance(operand, list | tuple):
        return [evaluated(item, results) for item in operand]
    if isinstance(operand, Opaque):
        return operand.content
    return results.get(operand, operand) if isinstance(operand, Value) else operand


def _replaced(operand: Operand, path: Path, new: Operand) -> Operand:
    if not path:
        return new
    head, *rest = path
    return [_replaced(item, tuple(rest), new) if i == head else item for i, item in enumerate(items_of(operand))]
