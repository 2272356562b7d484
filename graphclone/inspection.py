"""Inspection: the dims of a model, what each would cost to widen, and what is in the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Growth
from graphclone.analysis.closing import Tower, towers
from graphclone.analysis.dims import Dim, Group, dims, doubled
from graphclone.analysis.facts import Facts
from graphclone.analysis.settling import settle
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError, Remedy
from graphclone.graph.ir import values_in
from graphclone.passes.infer_dims import InferDims
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.rules import find


@dataclass(frozen=True)
class Row:
    """One group of dims.

    Attributes:
        name: of the group, by which it is widened.
        size: the size of each of its dims in the source.
        count: the number of its dims.
        default: whether it grows when only a factor is asked for.
        pinned: the reason why it cannot grow, if there is one.
        freed_by: inputs and outputs that would let it grow if they grew, too.
        parameters: the parameter count of the whole model if this group alone were twice as wide; None if it cannot be.
        matters: whether it is free, or pinned by an input, an output or a node that no rule understands.
    """

    name: str
    size: int
    count: int
    default: bool
    pinned: str | None
    freed_by: tuple[str, ...]
    parameters: int | None
    matters: bool


@dataclass(frozen=True)
class InTheWay:
    """A node that pinned what it touches, because no rule understands it.

    Attributes:
        node: its name.
        op: its op.
        scope: the module it belongs to.
        reason: what was not understood.
    """

    node: str
    op: str
    scope: str
    reason: str


@dataclass(frozen=True)
class StackRow:
    """One stack of blocks.

    Attributes:
        name: what the names of its blocks begin with, by which it is made deeper.
        count: how many blocks it has.
        kinds: how many kinds of them.
        obstacle: why there cannot be more of them, if so.
    """

    name: str
    count: int
    kinds: int
    obstacle: str


def _stack_row(tower: Tower) -> StackRow:
    return StackRow(tower.name, len(tower.stack.blocks), len(set(tower.stack.kinds)), tower.obstacle)


@dataclass(frozen=True)
class Inspection:
    """Everything worth knowing before widening.

    Attributes:
        model: its name.
        parameters: its parameter count.
        doubled: its parameter count if each dim that grows by default were twice as wide.
        nodes: the number of its operations.
        dims: one row for each group of dims.
        stacks: one row for each stack of blocks.
        refusals: nodes that no rule understands.
        notes: notes on how the model was traced.
    """

    model: str
    parameters: int
    doubled: int
    nodes: int
    dims: tuple[Row, ...]
    stacks: tuple[StackRow, ...]
    refusals: tuple[InTheWay, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The inspection in types that JSON has."""
        return asdict(self)


def inspect(traced: Traced) -> Inspection:
    """Find out what can grow, what it costs, and what is in the way.

    Examples:
        >>> found = inspect(gc.trace(model, (x,)))
        >>> found.parameters, found.doubled
        (44, 86)
    """
    facts = traced.state.facts
    double, _ = settle(facts, doubled(dim for group in traced.dims for dim in group.dims if dim.default))
    frees = _Frees(traced)
    return Inspection(
        model=traced.graph.name,
        parameters=parameter_count(facts),
        doubled=parameter_count(facts, double),
        nodes=len(traced.graph.nodes),
        dims=tuple(_row(facts, group, frees) for group in traced.dims),
        stacks=tuple(_stack_row(tower) for tower in towers(facts)),
        refusals=tuple(
            InTheWay(refusal.node.name, refusal.node.op, refusal.node.scope, refusal.why.text)
            for refusal in facts.refusals
        ),
        notes=tuple(traced.graph.notes),
    )


def parameter_count(facts: Facts, growths: Mapping[Axis, Growth] | None = None) -> int:
    """The number of parameters once the given dims have grown."""
    chosen = growths or {}

    def growth_of(axis: Axis) -> Growth:
        return chosen.get(axis) or Growth(axis.size)

    return sum(
        prod(facts.axes.layout(axis, growth_of).new_size for axis in facts.of[initializer.value])
        for initializer in facts.graph.initializers
        if initializer.kind == "parameter"
    )


def _row(facts: Facts, group: Group, frees: _Frees) -> Row:
    pinned = str(group.pin) if group.pin is not None else None
    growths = doubled(dim for dim in group.dims if dim.pin is None)
    chosen, obstacles = settle(facts, growths)
    if growths and not chosen:
        pinned = str(next(iter(obstacles.values())))
    changeable = {refusal.why.node for refusal in facts.refusals} | {name for name, _ in frees.boundary}
    return Row(
        name=group.name,
        size=group.size,
        count=len(group.dims),
        default=group.default,
        pinned=pinned,
        freed_by=frees.by(group.dims[0]),
        parameters=parameter_count(facts, chosen) if chosen else None,
        matters=group.pin is None or group.pin.node in changeable,
    )


# What would free a dim


class _Frees:
    """Which inputs and outputs would have to grow so that a dim can.

    That is found out by the analysis again, with all of them free.
    """

    def __init__(self, traced: Traced) -> None:
        self.pinned = traced.state.facts
        state = State(traced.graph.copy(), Request(widen_io=("*",)), traced.state.rules)
        run((InferDims(),), state)
        self.free = state.facts
        self.parameters = {i.name: self.free.of[i.value] for i in self.free.graph.initializers}
        self.boundary = list(self._boundary())

    def _boundary(self) -> Iterator[tuple[str, set[Axis]]]:
        graph = self.free.graph
        ports = [(value.name, value) for value in graph.inputs]
        ports += [(output.name, value) for output in graph.outputs for value in values_in(output.operand)]
        for name, value in ports:
            if value.is_tensor:
                yield name, {leaf for axis in self.free.of[value] for leaf in self.free.axes.leaves(axis)}

    def by(self, dim: Dim) -> tuple[str, ...]:
        """The names, or none where that would not free the dim."""
        if dim.pin is None:
            return ()
        freed = {leaf for leaf in self._counterparts(dim) if leaf.pin is None and leaf.size > 1}
        return tuple(dict.fromkeys(name for name, leaves in self.boundary if leaves & freed))

    def _counterparts(self, dim: Dim) -> Iterator[Axis]:
        """What the dim is with all inputs and outputs free, where parameters' axes have the same factors then."""
        axes = self.pinned.axes
        for initializer in self.pinned.graph.initializers:
            if initializer.name not in dim.parameters:
                continue
            for axis, free in zip(self.pinned.of[initializer.value], self.parameters[initializer.name], strict=True):
                leaves, others = axes.leaves(axis), self.free.axes.leaves(free)
                if [leaf.size for leaf in leaves] == [leaf.size for leaf in others]:
                    yield from (b for a, b in zip(leaves, others, strict=True) if a is axes.find(dim.axis))


def refuse_pinned(state: State, request: Request) -> None:
    """Refuse names of dims that are all pinned, saying by what and whether ``widen_io`` would free them.

    Raises:
        GraphcloneError: for the first such name.
    """
    all_dims = dims(state.facts)
    for pattern in request.patterns:
        matching = [dim for dim in all_dims if dim.matches(pattern)]
        pinned = [dim for dim in matching if dim.pin is not None]
        if not matching or len(pinned) < len(matching):
            continue
        dim = pinned[0]
        reason = f"{pattern!r} cannot grow: {dim.name} is pinned: {dim.pin}"
        if freed_by := _Frees(Traced(state, ())).by(dim):
            raise GraphcloneError(reason, Remedy("widen_io", "would free it", list(freed_by)))
        raise GraphcloneError(f"{reason}; no input or output that may grow would free it")


# Why


@dataclass(frozen=True)
class Explanation:
    """The explanation of one dim: what it touches, and why it cannot grow.

    Attributes:
        name: of the dim.
        size: in the source.
        parameters: that have it: they all grow together.
        pinned: what keeps it from growing, if anything does.
        path: the nodes by which that reached the first of the parameters.
    """

    name: str
    size: int
    parameters: tuple[str, ...]
    pinned: str | None
    path: tuple[str, ...]


def explain(traced: Traced, pattern: str) -> list[Explanation]:
    """Explain the dims that a name or pattern means: what each touches, and what pins it.

    Raises:
        GraphcloneError: there is no such dim.

    Examples:
        >>> explain(gc.trace(model, (x,)), "0")[0].parameters
        ('0.weight', '0.bias', '2.weight')
    """
    from graphclone.analysis.flow import why_pinned

    facts = traced.state.facts
    all_dims = dims(facts)
    matching = [dim for dim in all_dims if dim.matches(pattern)]
    if not matching:
        names = dict.fromkeys(dim.group for dim in all_dims)
        raise GraphcloneError(f"no dim is called {pattern!r}; there are {', '.join(names)}")
    return [
        Explanation(
            name=dim.name,
            size=dim.size,
            parameters=dim.parameters,
            pinned=str(dim.pin) if dim.pin is not None else None,
            path=tuple(str(why) for why in why_pinned(facts, dim)),
        )
        for dim in matching
    ]


# Ops without a rule


@dataclass(frozen=True)
class MissingRule:
    """An op of a model that no rule understands.

    Attributes:
        op: its name.
        count: how many nodes have it.
        node: the first of them.
        scope: the module that node belongs to.
    """

    op: str
    count: int
    node: str
    scope: str


def missing_rules(traced: Traced) -> list[MissingRule]:
    """The ops of a model that have no rule, the commonest first.

    Examples:
        >>> missing_rules(gc.trace(model, (x,)))
        []
    """
    lacking = [
        node
        for node in traced.graph.nodes
        if any(output.is_tensor for output in node.outputs) and find(traced.state.rules, node.op)[0] is None
    ]
    counts = Counter(node.op for node in lacking)
    first = {node.op: node for node in reversed(lacking)}
    return [MissingRule(op, count, first[op].name, first[op].scope) for op, count in counts.most_common()]
