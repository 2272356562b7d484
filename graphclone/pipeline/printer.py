"""Deterministic text of a graph, for people and for golden tests.

    graph Tiny
    input x: float32[s0=2, 6]
    parameter up.weight: float32[up=10, 6] contracts 1
    %linear: float32[s0=2, up=10] = aten.linear.default(input=%x, weight=%up.weight, bias=%up.bias)
    output output = %linear

An axis that cannot grow is its size. A dim that can is ``name=size``, and ``name=sizex2`` once it is tiled
twice (``xx2`` where it is interleaved); factors read ``heads*head_dim=3*8`` and segments ``q+k=24+24``. A
dynamic axis is its symbol and the size it was traced with. Symbols and dims without a name are numbered in
order of appearance, so the text depends on nothing but the graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count

from graphclone.algebra.axes import Axes, Axis, Kind
from graphclone.algebra.growth import Growth
from graphclone.algebra.recipes import Widening
from graphclone.analysis.dims import dims
from graphclone.graph.ir import Graph, Initializer, Node, Operand, Value
from graphclone.pipeline.state import State

_SYMBOL = re.compile(r"[A-Za-z_]\w*")


def print_graph(graph: Graph) -> str:
    """A graph as text, with plain sizes."""
    return print_state(State(graph))


def print_state(state: State) -> str:
    """The graph of a pipeline's state as text, with everything the passes so far have found out."""
    return "\n".join(Printer(state).lines()) + "\n"


class Printer:
    """Writes the values of a state as text; a symbol or a dim without a name has one number throughout."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.recipes: Mapping[Value, Widening] = state.recipes if state.has(State.recipes) else {}
        self.facts = state.facts if state.has(State.analysis) else None
        self.names = {dim.axis: dim.name for dim in dims(self.facts)} if self.facts is not None else {}
        self.letters = _letters()
        self.symbols: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        graph = self.state.graph
        yield f"graph {graph.name}"
        yield from (f"note {note}" for note in graph.notes)
        yield from (f"input {self.typed(value)}" for value in graph.inputs)
        yield from map(self.initializer, graph.initializers)
        yield from map(self.node, graph.nodes)
        yield from (f"output {output.name} = {self.operand(output.operand)}" for output in graph.outputs)

    def initializer(self, initializer: Initializer) -> str:
        value = initializer.value
        aliases = f" alias {', '.join(initializer.names[1:])}" if len(initializer.names) > 1 else ""
        return f"{initializer.kind} {self.typed(value)}{aliases}{self.recipe(value)}"

    def recipe(self, value: Value) -> str:
        """The recipe of an initializer, where it is more than replication."""
        recipe = self.recipes.get(value)
        if recipe is None:
            return ""
        contracts = f" contracts {', '.join(map(str, recipe.contracted))}" if recipe.contracted else ""
        scale = f" scale {recipe.scale:g}" if recipe.scale != 1 else ""
        shift = f" shift {recipe.shift:g}" if recipe.shift else ""
        return f"{contracts}{scale}{shift}"

    def node(self, node: Node) -> str:
        outputs = ", ".join(f"%{self.typed(output)}" for output in node.outputs)
        present = [(name, operand) for name, operand in node.operands.items() if operand is not None]
        operands = ", ".join(f"{name}={self.operand(operand)}" for name, operand in present)
        return f"{outputs} = {node.op}({operands})" if outputs else f"{node.op}({operands})"

    def operand(self, operand: Operand) -> str:
        if isinstance(operand, list | tuple):
            return f"[{', '.join(self.operand(item) for item in operand)}]"
        return repr(operand)

    def typed(self, value: Value) -> str:
        if value.shape is None:
            return f"{value.name}: number"
        return f"{value.name}: {value.dtype}[{', '.join(self.axes(value))}]"

    # Axes

    def axes(self, value: Value) -> list[str]:
        """The layout of every axis of a tensor."""
        return [self.axis(value, index, size) for index, size in enumerate(value.shape or ())]

    def axis(self, value: Value, index: int, size: int) -> str:
        axes = self.facts.of.get(value) if self.facts is not None else None
        if axes is not None and not self.state.facts.axes.is_rigid(axes[index]):
            return self.layout(axes[index])
        return f"{self.symbol(value.dynamic[index])}={size}" if index in value.dynamic else str(size)

    def layout(self, axis: Axis) -> str:
        names, sizes = terms(self.state.facts.axes, axis, self.leaf)
        return f"{names}={sizes}" if names else sizes

    def leaf(self, axis: Axis) -> tuple[str, str]:
        if axis.pin is not None:
            return str(axis.size), str(axis.size)
        if axis not in self.names:
            self.names[axis] = next(self.letters)
        return self.names[axis], grown(self.state.growth_of(axis))

    def symbol(self, expression: str) -> str:
        """A symbolic size with its symbols numbered in order of appearance."""
        symbols = self.symbols
        return _SYMBOL.sub(lambda match: symbols.setdefault(match[0], f"s{len(symbols)}"), expression)


def terms(
    axes: Axes, axis: Axis, leaf: Callable[[Axis], tuple[str, str]], inside: Kind = Kind.CONCAT
) -> tuple[str, str]:
    """The names and the sizes of an axis, in parentheses where it is a concat inside a product.

    Args:
        axes: that it is one of.
        axis: to be written.
        leaf: the name and the size of an indivisible part.
        inside: what it is a part of.
    """
    axis = axes.find(axis)
    if axis.kind is Kind.DIM:
        return leaf(axis)
    sign = "*" if axis.kind is Kind.PRODUCT else "+"
    parts = axes.factors(axis) if axis.kind is Kind.PRODUCT else axes.segments(axis)
    names, sizes = zip(*(terms(axes, part, leaf, axis.kind) for part in parts), strict=True)
    form = "({})" if inside is Kind.PRODUCT else "{}"
    return form.format(sign.join(names)), form.format(sign.join(sizes))


def grown(growth: Growth) -> str:
    """The size of a dim and how it grows: ``12``, ``12x2`` for whole copies, ``12xx2`` interleaved, ``12>16`` else."""
    if not growth.grows:
        return str(growth.size)
    if not growth.whole:
        return f"{growth.size}>{growth.new_size}"
    return f"{growth.size}x{growth.factor}" if growth.kind == "tile" else f"{growth.size}xx{growth.factor}"


def _letters() -> Iterator[str]:
    """a to z, then a1, b1 and so on."""
    for number in count():
        yield from (f"{chr(letter)}{number or ''}" for letter in range(ord("a"), ord("z") + 1))
