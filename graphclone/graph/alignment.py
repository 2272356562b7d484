"""Two traces of the same code at different widths, side by side: which value is which, which numbers differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Initializer, Node, Operand, Path, Value, values_in
from graphclone.graph.order import with_sources


@dataclass(frozen=True)
class Pair:
    """A number, or another literal, that the same node has in both traces.

    Attributes:
        node: of the source.
        path: where it sits in the node.
        old: what the source has.
        new: what the target has.
    """

    node: Node
    path: Path
    old: Operand
    new: Operand

    @property
    def differs(self) -> bool:
        both_nan = all(isinstance(number, float) and math.isnan(number) for number in (self.old, self.new))
        return not both_nan and (type(self.old) is not type(self.new) or self.old != self.new)


@dataclass(frozen=True)
class Alignment:
    """Source and target side by side.

    Attributes:
        values: the target's value for every value of the source.
        literals: every literal operand.
    """

    values: dict[Value, Value] = field(default_factory=dict)
    literals: list[Pair] = field(default_factory=list)


def _ordered(*graphs: Graph) -> list[Sequence[Node]]:
    """The nodes of graphs as their outputs read them, or as they run, where one of them changes what others read.

    The order in which code computes what is independent can be another in another process, as that of a set is.
    """
    if any(graph.dialect.mutates(node) for graph in graphs for node in graph.nodes):
        return [graph.nodes for graph in graphs]
    return [_as_read(graph) for graph in graphs]


def _as_read(graph: Graph) -> list[Node]:
    done: set[Node] = set()
    returned = (value.producer for output in graph.outputs for value in values_in(output.operand))
    return [node for producer in returned if producer is not None for node in with_sources(producer, done)]


def align(source: Graph, target: Graph) -> Alignment:
    """Lay two canonical graphs side by side.

    Raises:
        GraphcloneError: they do not run the same operations on the same operands.
    """
    return _Aligner(source, target).run()


class _Aligner:
    def __init__(self, source: Graph, target: Graph) -> None:
        self.source = source
        self.target = target
        self.alignment = Alignment()
        self.constants = {i.value for graph in (source, target) for i in graph.initializers if i.kind == "constant"}

    def run(self) -> Alignment:
        source, target = self.source, self.target
        if len(source.inputs) != len(target.inputs):
            raise self.unlike(f"{len(source.inputs)} inputs and {len(target.inputs)}")
        for a, b in zip(source.inputs, target.inputs, strict=True):
            self.pair(a, b, "the inputs")
        for a, b in self.stored():
            self.pair(a, b, "the weights")
        for a_node, b_node in zip_longest(*_ordered(source, target)):
            self.nodes(a_node, b_node)
        if [output.name for output in source.outputs] != [output.name for output in target.outputs]:
            raise self.unlike("they return different things")
        for ours, theirs in zip(source.outputs, target.outputs, strict=True):
            self.operands(None, (), ours.operand, theirs.operand)
        return self.alignment

    def unlike(self, what: str) -> GraphcloneError:
        return GraphcloneError(f"{self.source.name} and {self.target.name} are not the same code at two widths: {what}")

    def stored(self) -> Iterator[tuple[Value, Value]]:
        """The parameters and buffers of both, by name; constants are found where they are read."""
        theirs = {name: i for i in self.target.initializers if i.kind != "constant" for name in i.names}
        ours: dict[Value, Initializer] = {}
        for initializer in self.source.initializers:
            if initializer.kind != "constant":
                value = self.counterpart(initializer, theirs).value
                if (other := ours.setdefault(value, initializer)) is not initializer:
                    raise self.unlike(f"{other.name} and {initializer.name} are one tensor in {self.target.name} only")
                yield initializer.value, value
        names = {name for initializer in self.source.initializers for name in initializer.names}
        if extra := sorted(set(theirs) - names):
            raise self.unlike(f"only {self.target.name} has {extra[0]}")

    def counterpart(self, initializer: Initializer, theirs: Mapping[str, Initializer]) -> Initializer:
        if missing := [name for name in initializer.names if name not in theirs]:
            raise self.unlike(f"only {self.source.name} has {missing[0]}")
        counterparts = dict.fromkeys(theirs[name] for name in initializer.names)
        if len(counterparts) > 1:
            raise self.unlike(f"{' and '.join(initializer.names)} are one tensor in {self.source.name} only")
        return next(iter(counterparts))

    def nodes(self, a: Node | None, b: Node | None) -> None:
        if a is None or b is None or a.op != b.op or len(a.outputs) != len(b.outputs):
            ops = [f"{node.op} ({node.name})" if node else "nothing more" for node in (a, b)]
            raise self.unlike(f"where the one runs {ops[0]} the other runs {ops[1]}")
        if list(a.operands) != list(b.operands):
            raise self.unlike(f"{a.name} ({a.op}) has other operands")
        for name, operand in a.operands.items():
            self.operands(a, (name,), operand, b.operands[name])
        for ours, theirs in zip(a.outputs, b.outputs, strict=True):
            self.pair(ours, theirs, a.name)

    def operands(self, node: Node | None, path: Path, a: Operand, b: Operand) -> None:
        where = node.name if node else "the outputs"
        if isinstance(a, Value) and isinstance(b, Value):
            if a not in self.alignment.values and {a, b} <= self.constants:
                self.pair(a, b, where)
            if self.alignment.values.get(a) is not b:
                raise self.unlike(f"{where} reads {a.name} in the one and {b.name} in the other")
        elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                self.operands(node, (*path, i), x, y)
        elif any(True for _ in values_in([a, b])) or isinstance(a, list | tuple) or isinstance(b, list | tuple):
            raise self.unlike(f"{where} has different operands")
        elif node is not None:
            self.alignment.literals.append(Pair(node, path, a, b))

    def pair(self, a: Value, b: Value, where: str) -> None:
        if a.rank != b.rank or a.is_tensor != b.is_tensor:
            raise self.unlike(f"{where}: {a.name} has {a.rank} axes in the one and {b.rank} in the other")
        if a.dtype != b.dtype:
            raise self.unlike(f"{where}: {a.name} is {a.dtype} in the one and {b.dtype} in the other; cast one")
        self.alignment.values[a] = b
