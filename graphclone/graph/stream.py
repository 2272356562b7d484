"""Streams: how tensors flow through a graph, and its cuts, which all that comes of one tensor passes.

A value is a cut behind another if every way from there to what the graph returns leads through it: its nearest one is
its *immediate post-dominator*. From the embeddings of a model that adds to a stream, cut after cut, its blocks lie
between them. Sizes do not count: what is made in the shape of a tensor is not made from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

from graphclone.graph.aliases import sharing
from graphclone.graph.ir import Graph, Node, Output, Value, values_in

Vertex = int
"""A place in a flow: the inputs of the graph come first, then its nodes in order."""


class Flow:
    """The flow between vertices, for some of the outputs of a graph.

    Attributes:
        graph: whose inputs and nodes are the vertices.
        of: the vertex of every tensor but initializers.
        readers: of every vertex, those that read its tensors, or what it writes into.
        next_cut: the nearest cut behind every vertex, that of the end included, which is no vertex but their number;
            None where nothing that is returned depends on it.
    """

    def __init__(self, graph: Graph, outputs: Collection[Output]) -> None:
        self.graph = graph
        self.of: dict[Value, Vertex] = {value: i for i, value in enumerate(graph.inputs)}
        self.end: Vertex = len(graph.inputs) + len(graph.nodes)
        self.readers: list[list[Vertex]] = [[] for _ in range(self.end)]
        for vertex, node in self.nodes():
            self.of |= {value: vertex for value in node.outputs if value.is_tensor}
            if any(value.is_tensor for value in node.outputs):
                for read in dict.fromkeys(self.of[value] for value in node.inputs if value in self.of):
                    self.readers[read].append(vertex)
        self._add_writes()
        returned = {self.of[value] for o in outputs for value in values_in(o.operand) if value in self.of}
        self.next_cut = self._cuts(returned)

    def nodes(self) -> Iterator[tuple[Vertex, Node]]:
        """Every vertex that is a node."""
        return enumerate(self.graph.nodes, len(self.graph.inputs))

    def value(self, vertex: Vertex) -> Value | None:
        """The one value of a vertex; None where it has several, or none that is a tensor."""
        if vertex < len(self.graph.inputs):
            return self.graph.inputs[vertex]
        outputs = self.graph.nodes[vertex - len(self.graph.inputs)].outputs
        return outputs[0] if len(outputs) == 1 and outputs[0].is_tensor else None

    def _add_writes(self) -> None:
        """What reads a tensor after it was written into, by whatever name, reads what was written."""
        writers = [(v, value) for v, node in self.nodes() for value in self.graph.dialect.writes(node)]
        groups = sharing(self.graph) if writers else {}
        for vertex, node in self.nodes() if writers else ():
            read = {id(groups[value]) for value in node.inputs if value in groups}
            for writer, written in writers:
                if writer < vertex and written in groups and id(groups[written]) in read:
                    self.readers[writer].append(vertex)

    def _cuts(self, returned: Collection[Vertex]) -> list[Vertex | None]:
        cuts: list[Vertex | None] = [None] * self.end
        depth = [0] * (self.end + 1)

        def common(a: Vertex, b: Vertex) -> Vertex:
            while a != b:
                a, b = (a, b) if depth[a] >= depth[b] else (b, a)
                a = self.end if (above := cuts[a]) is None else above
            return a

        for vertex in reversed(range(self.end)):
            ways = [reader for reader in self.readers[vertex] if cuts[reader] is not None]
            ways += [self.end] if vertex in returned else []
            if ways:
                cut = ways[0]
                for way in ways[1:]:
                    cut = common(cut, way)
                cuts[vertex], depth[vertex] = cut, depth[cut] + 1
        return cuts

    def path(self, start: Vertex) -> list[Vertex]:
        """A vertex and all cuts behind it, without the end."""
        path = [start]
        while (cut := self.next_cut[path[-1]]) not in (None, self.end):
            path.append(cut)
        return path


class Course:
    """The cuts behind one vertex, and what lies between them.

    Attributes:
        cuts: the vertex, and those behind it.
        before: the place in ``cuts`` of the first cut that all that comes of a vertex passes through, or of itself.
        after: the place in ``cuts`` of the last cut whose tensors reach a vertex, or of itself; -1 where none does.
        touched: the same, where sizes count, too.
    """

    def __init__(self, flow: Flow, cuts: Sequence[Vertex]) -> None:
        self.flow, self.cuts = flow, cuts
        self.place = {cut: i for i, cut in enumerate(cuts)}
        self.before: list[int | None] = [None] * flow.end
        for vertex in reversed(range(flow.end)):
            cut = flow.next_cut[vertex]
            following = self.before[cut] if cut not in (None, flow.end) else None
            self.before[vertex] = self.place.get(vertex, following)
        self.after = [-1] * flow.end
        for vertex in range(flow.end):
            self.after[vertex] = self.place.get(vertex, self.after[vertex])
            for reader in flow.readers[vertex]:
                self.after[reader] = max(self.after[reader], self.after[vertex])

    @cached_property
    def touched(self) -> list[int]:
        touched, numbers = list(self.after), dict[Value, int]()
        for vertex, node in self.flow.nodes():
            read = (touched[self.flow.of[v]] if v in self.flow.of else numbers.get(v, -1) for v in node.inputs)
            touched[vertex] = max(touched[vertex], *read, -1)
            numbers.update((value, touched[vertex]) for value in node.outputs if not value.is_tensor)
        return touched
