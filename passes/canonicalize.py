"""One spelling per operation, so that rules need to know only one.

What the canonical form is, ``graphclone.graph.canonical`` says, and the graph's dialect, which has the spellings:
assertions about metadata go, nodes are respelled, and subgraphs without inputs or parameters become constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from graphclone.graph.canonical import assertions, computable, respellings, separable
from graphclone.graph.ir import Graph, Initializer, Node, Respelled, Value, evaluated, substitute
from graphclone.pipeline.state import State


@dataclass(frozen=True)
class Canonicalize:
    """Rewrite nodes to their canonical spelling and fold constants."""

    name: ClassVar[str] = "canonicalize"
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})

    def __call__(self, state: State) -> bool:
        changed = False
        while _rewrite(state.graph, untie=state.request.untie):  # what is folded or dropped may make room for more
            changed = True
        return changed


def _rewrite(graph: Graph, *, untie: bool) -> bool:
    """Rewrite whatever is not canonical as the graph is now. Whether anything was."""
    if asserting := assertions(graph):
        graph.remove(asserting)
    if tied := separable(graph) if untie else []:
        _untie(graph, tied)
    if odd := respellings(graph):
        _respell(graph, odd)
    if constant := computable(graph):
        _fold(graph, constant)
    unread = graph.prune()
    return any((asserting, tied, odd, constant, unread))


def _untie(graph: Graph, shared: Iterable[tuple[Initializer, str, Sequence[Node]]]) -> None:
    """Give names of shared parameters initializers of their own, for the nodes that read them under those names."""
    separated: list[Initializer] = []
    for initializer, name, readers in shared:
        value = replace(initializer.value, name=name)
        separated.append(replace(initializer, value=value, names=(name,)))
        initializer.names = tuple(other for other in initializer.names if other != name)
        for node in readers:
            node.operands = {k: substitute(v, {initializer.value: value}) for k, v in node.operands.items()}
    graph.initializers += separated


def _respell(graph: Graph, spelled: Iterable[tuple[Node, Respelled]]) -> None:
    for node, (op, operands) in spelled:
        graph.dialect.respell(node, op, operands)


def _fold(graph: Graph, nodes: Sequence[Node]) -> None:
    """Compute nodes ahead, each from the results of earlier ones; what others read of them becomes constants."""
    constants: dict[Value, Any] = {}
    for node in nodes:
        operands = {name: evaluated(operand, constants) for name, operand in node.operands.items()}
        constants.update(zip(node.outputs, graph.dialect.run(node, operands), strict=True))
    graph.remove(nodes)
    read = graph.read()
    for value, data in constants.items():
        if value not in read:
            continue
        if value.is_tensor:
            value.role, value.producer = "initializer", None
            name = f"_folded_{value.name.replace('.', '_')}"
            graph.initializers.append(Initializer(value, (name,), "constant", data))
        else:
            graph.replace(value, data)
