"""Orders in which every node comes behind what it reads."""

from __future__ import annotations

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Node


def with_sources(node: Node, done: set[Node]) -> list[Node]:
    """A node behind all that it reads, directly or not, in the order of its operands.

    Args:
        node: the last of them.
        done: those that need not come again; the result is added to it.

    Raises:
        GraphcloneError: nodes read each other.
    """
    ordered: list[Node] = []
    pending, open_nodes = [(node, False)], set[Node]()
    while pending:
        current, ready = pending.pop()
        if current in done:
            continue
        if ready:
            done.add(current)
            ordered.append(current)
            continue
        if current in open_nodes:
            raise GraphcloneError(f"{current.name} would have to be computed before what it reads")
        open_nodes.add(current)
        pending.append((current, True))
        sources = [v.producer for v in current.inputs if v.producer is not None and v.producer not in done]
        pending += [(source, False) for source in reversed(sources)]
    return ordered
