"""What every graph must obey, as code: run between passes in tests, and after the whole pipeline."""

from __future__ import annotations

from graphclone.errors import InvariantError
from graphclone.ir import Graph, Value, values_in


def check_graph(graph: Graph) -> None:
    """Names are unique, every value is computed once and before it is read, producers are right.

    Raises:
        InvariantError: naming the first node or value that is wrong.
    """
    defined: set[Value] = set()
    names: set[str] = set()

    def define(value: Value, where: str) -> None:
        if value in defined or value.name in names:
            raise InvariantError(f"{where} defines {value.name} a second time")
        defined.add(value)
        names.add(value.name)

    for value in graph.inputs:
        define(value, "an input")
    for initializer in graph.initializers:
        define(initializer.value, f"initializer {initializer.name}")
    node_names: set[str] = set()
    for node in graph.nodes:
        if node.name in node_names:
            raise InvariantError(f"two nodes are called {node.name}")
        node_names.add(node.name)
        for value in node.inputs:
            if value not in defined:
                raise InvariantError(f"{node.name} reads {value.name} before it is computed")
        for value in node.outputs:
            if value.producer is not node:
                raise InvariantError(f"{value.name} is an output of {node.name} but names another producer")
            define(value, node.name)
    for output in graph.outputs:
        for value in values_in(output.operand):
            if value not in defined:
                raise InvariantError(f"output {output.name} returns {value.name}, which nothing computes")
