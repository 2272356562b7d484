"""The invariants of every graph, as code: run between passes in tests.

A graph is a list of values that are defined once each, and before they are read:

- inputs, initializers and nodes define values, each under a name of its own; a value knows which of the three it is
  from, and the node that computes it;
- a tensor has a dtype and a size for every axis; an axis is dynamic if it has a symbol, and its size then is that of
  the trace. A number (a symbolic size, say) has neither shape nor dtype;
- an initializer has the rank of its data and at least one name, which no other has;
- a node has a qualified op, ``vocabulary.name``, and operands by name. An operand is a value, a literal, or a list of
  operands. A literal is a number, text, None, or opaque: what only the vocabulary understands, such as a dtype, which
  says what it says by itself, so it is no part of a graph, and no container that could change.

``graphclone.pipeline.invariants`` has those that take more than the graph.
"""

from __future__ import annotations

from collections.abc import MutableMapping, MutableSequence, MutableSet

from graphclone.errors import InvariantError
from graphclone.graph.ir import Graph, Initializer, Node, Opaque, Operand, Output, Role, Value

_KINDS = ("parameter", "buffer", "constant")

_OF_GRAPHS = (Graph, Node, Value, Initializer, Output)
_CONTAINERS = (MutableMapping, MutableSequence, MutableSet)


def check_graph(graph: Graph) -> None:
    """Test all of the above.

    Raises:
        InvariantError: naming the first node or value that is wrong.
    """
    reading = _Reading()
    for value in graph.inputs:
        reading.define(value, "an input", "input")
    for initializer in graph.initializers:
        reading.initializer(initializer)
    for node in graph.nodes:
        reading.node(node)
    for output in graph.outputs:
        reading.operand(output.operand, f"output {output.name}")


class _Reading:
    """A walk through a graph in the order in which it is run.

    Attributes:
        values: that have been defined so far.
        value_names: of them.
        stored_names: of the initializers so far.
        node_names: of the nodes so far.
    """

    def __init__(self) -> None:
        self.values: set[Value] = set()
        self.value_names: set[str] = set()
        self.stored_names: set[str] = set()
        self.node_names: set[str] = set()

    def define(self, value: Value, where: str, role: Role, producer: Node | None = None) -> None:
        if value in self.values or value.name in self.value_names:
            raise InvariantError(f"{where} defines {value.name} a second time")
        if not value.name:
            raise InvariantError(f"{where} defines a value without a name")
        if value.producer is not producer:
            raise InvariantError(
                f"{value.name} is an output of {where} but names another producer"
                if producer is not None
                else f"{value.name} is {where} but names a producer"
            )
        if value.role != role:
            raise InvariantError(f"{value.name} is {where}, but its role is {value.role}")
        self.type_of(value)
        self.values.add(value)
        self.value_names.add(value.name)

    def type_of(self, value: Value) -> None:
        if value.shape is None:
            if value.dtype or value.dynamic:
                raise InvariantError(f"{value.name} is a number but has a dtype or a dynamic axis")
            return
        if not value.dtype:
            raise InvariantError(f"{value.name} is a tensor but has no dtype")
        if not isinstance(value.shape, tuple) or any(not _is_size(size) for size in value.shape):
            raise InvariantError(f"{value.name} has a shape that is none: {value.shape}")
        for axis, symbol in value.dynamic.items():
            if not 0 <= axis < value.rank or not symbol:
                raise InvariantError(f"{value.name} has {value.rank} axes, but its axis {axis} is dynamic ({symbol!r})")

    def initializer(self, initializer: Initializer) -> None:
        if not initializer.names:
            raise InvariantError(f"the initializer behind {initializer.value.name} has no name")
        self.define(initializer.value, f"initializer {initializer.name}", "initializer")
        if initializer.kind not in _KINDS:
            raise InvariantError(f"initializer {initializer.name} is a {initializer.kind}, which is no kind")
        for name in initializer.names:
            if name in self.stored_names:
                raise InvariantError(f"two initializers are called {name}")
            self.stored_names.add(name)
        if len(initializer.tensor.shape) != initializer.value.rank:
            data, rank = tuple(initializer.tensor.shape), initializer.value.rank
            raise InvariantError(f"initializer {initializer.name} has {rank} axes, but its data are {data}")

    def node(self, node: Node) -> None:
        if node.name in self.node_names:
            raise InvariantError(f"two nodes are called {node.name}")
        self.node_names.add(node.name)
        if not all(node.op.partition(".")):
            raise InvariantError(f"{node.name} has an op without a vocabulary: {node.op!r}")
        for name, operand in node.operands.items():
            if not isinstance(name, str) or not name:
                raise InvariantError(f"{node.name} has an operand without a name")
            self.operand(operand, node.name)
        for value in node.outputs:
            self.define(value, node.name, "node", node)

    def operand(self, operand: Operand, where: str) -> None:
        if isinstance(operand, Value):
            if operand not in self.values:
                raise InvariantError(f"{where} reads {operand.name} before it is computed")
        elif isinstance(operand, list | tuple):
            for item in operand:
                self.operand(item, where)
        elif isinstance(operand, Opaque):
            if isinstance(operand.content, (*_OF_GRAPHS, *_CONTAINERS)):
                raise self.no_literal(operand.content, where)
        elif operand is not None and not isinstance(operand, int | float | complex | str):
            raise self.no_literal(operand, where)

    def no_literal(self, content: object, where: str) -> InvariantError:
        return InvariantError(f"{where} has an operand that is a {type(content).__name__}, which is no literal")


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 0
