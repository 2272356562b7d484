"""The flow of dims through a graph: what connects them, and the path of a pin.

The graph of all axes and the equations between them, as networkx, built only when somebody asks why.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx

from graphclone.algebra.axes import Axis, Why
from graphclone.analysis.dims import Dim
from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Value


def flow_graph(facts: Facts) -> nx.Graph[Any]:
    """Axes by serial number, an edge wherever a node made two equal or one a part of the other.

    Edges carry ``why``.
    """
    graph: nx.Graph[Any] = nx.Graph()
    for edge in facts.axes.edges:
        graph.add_edge(edge.a.serial, edge.b.serial, why=edge.why)
    graph.add_nodes_from(axis.serial for axes in facts.of.values() for axis in axes)
    return graph


def why_pinned(facts: Facts, dim: Dim) -> list[Why]:
    """The path of a dim's pin to its first parameter, nearest node first, the pin itself last."""
    if dim.pin is None:
        return []
    starts = list(_axes_with(facts, dim))
    graph = flow_graph(facts)
    graph.add_edges_from(("pin", axis.serial) for axis in _pinned_axes(facts, dim.pin))
    chains = [c for c in (_chain(graph, start.serial) for start in starts) if c is not None]
    return [*min(chains, key=len, default=[]), dim.pin]


def _axes_with(facts: Facts, dim: Dim) -> Iterator[Axis]:
    """The axes of a dim's first parameter that hold it."""
    for initializer in facts.graph.initializers:
        if initializer.name == dim.parameters[0]:
            yield from (a for a in facts.of[initializer.value] if facts.axes.find(dim.axis) in facts.axes.leaves(a))


def _pinned_axes(facts: Facts, pin: Why) -> Iterator[Axis]:
    """The axes of the value, input, output or node that a pin names."""
    outputs = {output.name: output.operand for output in facts.graph.outputs}
    for value, axes in facts.of.items():
        producer = value.producer.name if value.producer else ""
        if pin.node in (value.name, producer) or outputs.get(pin.node) is value:
            yield from axes
    for node in facts.graph.nodes:
        if node.name == pin.node:
            yield from (
                axis
                for value in node.inputs
                if isinstance(value, Value) and value.is_tensor
                for axis in facts.of[value]
            )


def _chain(graph: nx.Graph[Any], start: int) -> list[Why] | None:
    try:
        steps = nx.shortest_path(graph, start, "pin")[:-1]
    except (nx.NetworkXNoPath, nx.NodeNotFound):
        return None
    return [graph.edges[edge]["why"] for edge in pairwise(steps)]
