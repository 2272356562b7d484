"""The nodes that belong into the branches of a condition, where they run only if they are wanted.

In a graph the bodies of branches lie among all other nodes. A branch can hold every node before its condition that
nobody else reads, unless something is written between the two, which it might read or be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphclone.graph.ir import Dialect, Node, Operand, Value, items_of, values_in

BRANCHES = ("then_branch", "else_branch")


@dataclass(frozen=True)
class Body:
    """A branch.

    Attributes:
        nodes: in order.
        results: what it returns.
    """

    nodes: list[Node]
    results: Sequence[Operand]

    @property
    def captured(self) -> list[Value]:
        """The values that it reads from the graph around it."""
        inside = {value for node in self.nodes for value in node.outputs}
        reads = [*(value for node in self.nodes for value in node.inputs), *values_in(self.results)]
        return [value for value in dict.fromkeys(reads) if value not in inside]


def bodies(
    dialect: Dialect, nodes: Sequence[Node], results: Sequence[Operand]
) -> tuple[list[Node], dict[Node, list[Body]]]:
    """Sort the nodes of a graph, or of a branch, into those that stay and those of the branches of each condition.

    Args:
        dialect: of the graph.
        nodes: in order.
        results: what the graph or the branch returns.
    """
    branches: dict[Node, list[Body]] = {}
    inner: set[Node] = set()
    for condition in [node for node in reversed(nodes) if node.op == "hop.cond"]:
        if condition in inner:  # by a branch of another
            continue
        branches[condition] = []
        for branch in BRANCHES:
            own = _own(dialect, nodes, condition, branch, results)
            inner |= own
            branches[condition].append(
                Body([node for node in nodes if node in own], items_of(condition.operands[branch]))
            )
    return [node for node in nodes if node not in inner], branches


def _own(
    dialect: Dialect, nodes: Sequence[Node], condition: Node, branch: str, results: Sequence[Operand]
) -> set[Node]:
    """The nodes before a condition that only one of its branches reads."""
    elsewhere = {**condition.operands, branch: None}
    foreign = {*values_in(list(results)), *values_in(list(elsewhere.values()))}
    place = nodes.index(condition)
    foreign.update(value for node in nodes[place + 1 :] for value in node.inputs)
    needs = set(values_in(condition.operands[branch]))
    own: set[Node] = set()
    for node in reversed(nodes[:place]):
        if dialect.mutates(node):
            break
        if needs.intersection(node.outputs) and foreign.isdisjoint(node.outputs):
            own.add(node)
            needs.update(node.inputs)
        else:
            foreign.update(node.inputs)
    return own
