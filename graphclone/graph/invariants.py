"""What every graph must obey, as code: run between passes in tests, and after the whole pipeline."""

from __future__ import annotations

from graphclone.errors import InvariantError
from graphclone.graph.ir import Graph, Node, Operand, Value, values_in


def check_graph(graph: Graph) -> None:
    """Names are unique, every value is computed once and before it is read, producers are right.

    Raises:
        InvariantError: naming the first node or value that is wrong.
    """
    known = _Known()
    for value in graph.inputs:
        known.define(value, "an input")
    for initializer in graph.initializers:
        known.define(initializer.value, f"initializer {initializer.name}")
    for node in graph.nodes:
        known.add_node(node)
    for output in graph.outputs:
        known.read(output.operand, f"output {output.name}")


class _Known:
    """What has been computed so far."""

    def __init__(self) -> None:
        self.values: set[Value] = set()
        self.value_names: set[str] = set()
        self.node_names: set[str] = set()

    def define(self, value: Value, where: str) -> None:
        if value in self.values or value.name in self.value_names:
            raise InvariantError(f"{where} defines {value.name} a second time")
        self.values.add(value)
        self.value_names.add(value.name)

    def read(self, operand: Operand, where: str) -> None:
        for value in values_in(operand):
            if value not in self.values:
                raise InvariantError(f"{where} reads {value.name} before it is computed")

    def add_node(self, node: Node) -> None:
        if node.name in self.node_names:
            raise InvariantError(f"two nodes are called {node.name}")
        self.node_names.add(node.name)
        self.read(list(node.operands.values()), node.name)
        for value in node.outputs:
            if value.producer is not node:
                raise InvariantError(f"{value.name} is an output of {node.name} but names another producer")
            self.define(value, node.name)
