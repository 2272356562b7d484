"""Snapshots of a graph, to tell later whether it has changed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from graphclone.graph.ir import Graph, Node, Operand, Value

_Typed = tuple[Value, tuple[int, ...] | None, str, dict[int, str]]
"""A value with its shape, its dtype and its dynamic axes."""


@dataclass(frozen=True)
class Snapshot:
    """Everything about a graph that inference reads. To compare it is quick: identities are looked at first.

    Attributes:
        nodes: every node with its op, its operands and its outputs.
        values: every value with its type.
        outputs: what the graph returns.
    """

    nodes: list[tuple[Node, str, dict[str, Operand], list[Value]]]
    values: list[_Typed]
    outputs: list[Operand]

    @classmethod
    def of(cls, graph: Graph) -> Snapshot:
        """The graph as it is now."""
        nodes = [(node, node.op, dict(node.operands), list(node.outputs)) for node in graph.nodes]
        return cls(nodes, _typed(graph), [output.operand for output in graph.outputs])

    def difference(self, graph: Graph) -> str | None:
        """The name of the first node or value that is not as it was; None where all are."""
        for kept, node in zip_longest(self.nodes, graph.nodes):
            if kept is None or node is None:
                return str((kept[0] if kept else node).name)
            was, op, operands, outputs = kept
            if was is not node or op != node.op or operands != node.operands or outputs != node.outputs:
                return node.name
        for before, now in zip_longest(self.values, _typed(graph)):
            if before != now:
                return str((now or before)[0].name)
        now_returned = [output.operand for output in graph.outputs]
        return None if now_returned == self.outputs else "the outputs"


def _typed(graph: Graph) -> list[_Typed]:
    values = [*graph.inputs, *(initializer.value for initializer in graph.initializers)]
    values += [value for node in graph.nodes for value in node.outputs]
    return [(value, value.shape, value.dtype, dict(value.dynamic)) for value in values]
