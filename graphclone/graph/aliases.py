"""Values that share memory which is written into."""

from __future__ import annotations

from collections.abc import Iterable

from graphclone.graph.ir import Graph, Value, values_in


def last_writes(graph: Graph, *, by_caller: bool = False) -> dict[Value, int]:
    """For every value whose memory some node may write into, by whatever name, the place of the last that does.

    Args:
        graph: to be looked at.
        by_caller: whether the caller counts, who may write into what is returned to it, after all nodes.
    """
    dialect, last = graph.dialect, dict[Value, int]()
    if by_caller:
        last.update((value, len(graph.nodes)) for output in graph.outputs for value in values_in(output.operand))

    def spread(values: Iterable[Value], sources: Iterable[Value]) -> None:
        places = [last[value] for value in sources if value in last]
        last.update((value, max([*places, last.get(value, -1)])) for value in values if places)

    for place, node in reversed(list(enumerate(graph.nodes))):
        for value in dialect.writes(node):
            last.setdefault(value, place)
        if any(value in last for value in node.outputs):
            spread(dialect.aliases(node), node.outputs)
    for node in graph.nodes if last else ():  # what shares memory with them, too
        if any(value in last for value in node.inputs):
            spread(node.outputs, dialect.aliases(node))
    return last


def sharing(graph: Graph) -> dict[Value, set[Value]]:
    """For every value whose memory some node may write into, all values that may lie in that memory."""
    groups: dict[Value, set[Value]] = {value: {value} for node in graph.nodes for value in graph.dialect.writes(node)}
    for node in (*reversed(graph.nodes), *graph.nodes) if groups else ():
        if groups.keys().isdisjoint((*node.outputs, *node.inputs)):
            continue
        for value in graph.dialect.aliases(node):
            for out in node.outputs:
                together = groups.get(value, {value}) | groups.get(out, {out})
                if not groups.keys().isdisjoint((value, out)):
                    groups.update(dict.fromkeys(together, together))
    return groups
