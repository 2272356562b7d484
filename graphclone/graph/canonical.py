"""The canonical form of a graph, in which every operation has one spelling.

A graph is canonical if there is nothing that any of these functions finds: assertions, nodes spelled in a way that
rules do not know, nodes that could be computed ahead, nodes whose results nobody reads.
"""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from graphclone.graph.aliases import last_writes
from graphclone.graph.ir import Graph, Initializer, Node, Respelled, Spelling, Value, values_in
from graphclone.graph.operands import OperandError

_LARGEST_CONSTANT = 1 << 24
"""Elements of the largest constant worth computing ahead."""


def defect(graph: Graph, *, untie: bool = False) -> str | None:
    """Why a graph is not canonical; None where it is.

    Args:
        graph: to be looked at.
        untie: whether a shared parameter is to be one for each of its uses.
    """
    for node in assertions(graph):
        return f"{node.name} ({node.op}) only asserts something"
    for _, name, _ in separable(graph) if untie else ():
        return f"{name} is tied to another parameter"
    for node, _ in respellings(graph):
        return f"{node.name} ({node.op}) is spelled in a way that no rule knows"
    for node in computable(graph):
        return f"{node.name} ({node.op}) depends on no input and no parameter"
    for node in graph.unread():
        return f"nothing reads {node.name} ({node.op})"
    return None


def assertions(graph: Graph) -> list[Node]:
    """Nodes that assert what the trace knows and compute nothing."""
    return [node for node in graph.nodes if node.op in graph.dialect.assertions]


def separable(graph: Graph) -> list[tuple[Initializer, str, list[Node]]]:
    """Names of shared parameters that belong to modules of their own, each with the nodes there that read it."""
    users = graph.users()
    names: list[tuple[Initializer, str, list[Node]]] = []
    for initializer in graph.initializers:
        readers = users.get(initializer.value, [])
        for name in initializer.names[1:]:
            own = [node for node in readers if node.scope == name.rpartition(".")[0]]
            if own and len(own) < len(readers):
                names.append((initializer, name, own))
    return names


def respellings(graph: Graph) -> list[tuple[Node, Respelled]]:
    """Nodes that have another spelling, with the one that rules know.

    A view of what is written into later keeps its own: the other may copy, and the write would be lost. So does a node
    that would read what it does not read now, if that is written into.
    """
    spellings = graph.dialect.spellings
    writes: dict[Value, int] | None = None
    respelled: list[tuple[Node, Respelled]] = []
    for place, node in enumerate(graph.nodes):
        spelling = spellings.get(node.op)
        canonical = _canonical(spelling, node) if spelling is not None else None
        if spelling is None or canonical is None:
            continue
        if spelling.copies:
            writes = last_writes(graph) if writes is None else writes
            others = {v for operand in canonical[1].values() for v in values_in(operand)}.difference(node.inputs)
            if writes.get(node.outputs[0], -1) > place or not writes.keys().isdisjoint(others):
                continue
        respelled.append((node, canonical))
    return respelled


def _canonical(spelling: Spelling, node: Node) -> Respelled | None:
    """The spelling that rules know; what is not what it is taken for stays as it is, for a rule to refuse."""
    try:
        return spelling.of(node)
    except OperandError:
        return None


def computable(graph: Graph) -> list[Node]:
    """Nodes that depend on no input and no parameter, such as tables of positions, in graph order.

    What is written into in place, by whatever name, is no constant, nor is what the caller is given, who may write
    into it.
    """
    nodes = _constant(graph, ())
    return _constant(graph, last_writes(graph, by_caller=True)) if nodes else nodes


def _constant(graph: Graph, written: Collection[Value]) -> list[Node]:
    constants: set[Value] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        if constants.issuperset(node.inputs) and _is_constant(graph, node, written):
            constants.update(node.outputs)
            nodes.append(node)
    return nodes


def _is_constant(graph: Graph, node: Node, written: Collection[Value]) -> bool:
    """Whether a node without other inputs than constants computes constants."""
    return (
        not graph.dialect.mutates(node)
        and not graph.dialect.is_random(node)
        and not any(value in written for value in node.outputs)
        and not any(output.dynamic or prod(output.shape or ()) > _LARGEST_CONSTANT for output in node.outputs)
    )
