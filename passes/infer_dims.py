"""Infer what every axis is made of: run the rules over the graph, pinned inputs and outputs first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

from graphclone.algebra.axes import Axis, Cause, Kind, Why
from graphclone.analysis.counts import pin_counts
from graphclone.analysis.facts import Facts
from graphclone.analysis.integers import settle_sums
from graphclone.analysis.ties import pin_ties
from graphclone.errors import GraphcloneError, Remedy
from graphclone.graph.ir import Initializer, Value, values_in
from graphclone.pipeline.state import Analysis, Request, State
from graphclone.rules import apply

_MULTIPLE = re.compile(r"\d+\*[\w*]+")
"""A dynamic size that is a number times symbols, such as heads times batch: the number may still grow."""

_FEW = 1024
"""Numbers in a parameter that may be a table of constants, such as the powers of two."""


@dataclass(frozen=True)
class InferDims:
    """Unify the axes of all values by the rules of all nodes."""

    name: ClassVar[str] = "infer-dims"
    requires: ClassVar[frozenset[str]] = frozenset({"canonical"})
    ensures: ClassVar[frozenset[str]] = frozenset({"dims"})

    def __call__(self, state: State) -> bool:
        graph = state.graph
        facts = Facts(graph)
        for value in graph.inputs:
            _declare(facts, value)
        for initializer in graph.initializers:
            _declare(facts, initializer.value)
        for node in graph.nodes:
            for value in node.outputs:
                _declare(facts, value)
        _pin_boundary(facts, state.request)
        _pin_unread(facts)
        for node in graph.nodes:
            apply(node, facts, state.rules)
        _pin_one_hots(facts)
        pin_ties(facts)
        pin_counts(facts, _is_whole)
        settle_sums(facts, _greatest)
        facts.fold()
        _pin_unread_parts(facts)
        state.analysis = Analysis.of(facts)
        return True


def _declare(facts: Facts, value: Value) -> None:
    if value.is_tensor:
        facts.of[value] = tuple(_axis(facts, value, i) for i in range(value.rank))


def _axis(facts: Facts, value: Value, index: int) -> Axis:
    assert value.shape is not None
    symbol = value.dynamic.get(index, "")
    pinned = symbol and not _MULTIPLE.fullmatch(symbol)
    return facts.axes.dim(value.shape[index], Why(value.name, f"dynamic axis {symbol}") if pinned else None)


def _pin_unread(facts: Facts) -> None:
    """Nothing says how an initializer should grow that nothing reads."""
    read = facts.graph.read()
    facts.unread.update(value for node in facts.graph.nodes for value in node.outputs if value not in read)
    for initializer in facts.graph.initializers:
        if initializer.value not in read:
            for axis in facts.of[initializer.value]:
                facts.axes.pin(axis, Why(initializer.name, "nothing reads it", Cause.UNREAD))


def _pin_unread_parts(facts: Facts) -> None:
    """Nor what parts of an initializer should become that every node leaves out, such as rows for longer texts."""
    read: set[Axis] = set()
    taken: dict[Value, list[set[Axis]]] = {}
    for node in facts.graph.nodes:
        shown = {facts.source(value) for value in node.outputs}
        parts = facts.leaves(value for value in node.outputs if facts.source(value) is value)
        read |= parts
        for source in {facts.source(value) for value in node.inputs} - shown:
            taken.setdefault(source, []).append(parts)
    for initializer in facts.graph.initializers:
        for axis in facts.of[initializer.value]:
            parts = {part for part in facts.axes.segments(axis) if part.kind is Kind.DIM}
            if len(parts) > 1 and all(parts & others for others in taken.get(initializer.value, ())):
                for part in parts - read:
                    facts.axes.pin(part, Why(initializer.name, "nothing reads it", Cause.UNREAD))


def _pin_boundary(facts: Facts, request: Request) -> None:
    """What the user feeds and reads keeps its shape, unless its name was given to be let grow."""
    ports = [("input", value.name, value) for value in facts.graph.inputs]
    ports += [("output", o.name, v) for o in facts.graph.outputs for v in values_in(o.operand) if not o.free]
    names = list(dict.fromkeys(name for _, name, _ in ports))
    for pattern in request.widen_io:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise GraphcloneError(f"no input or output is called {pattern!r}; there are {', '.join(names)}")
    for what, name, value in ports:
        if value.is_tensor and not request.frees(name):
            cause = Cause.BOUNDARY if value.is_float or what == "output" else Cause.NUMBERS
            for axis in facts.of[value]:
                facts.axes.pin(axis, Why(name, f"the {what} keeps its shape", cause))


def _pin_one_hots(facts: Facts) -> None:
    """A row that holds one number marks which row was looked up: its places are ids, too, and no hidden dim."""
    tables = {facts.source(value) for value in facts.tables}
    for initializer in facts.graph.initializers:
        if initializer.value in tables and _is_one_hot(initializer):
            for axis in facts.of[initializer.value]:
                facts.axes.pin(axis, Why(initializer.name, "rows that mark their own number are looked up"))


_ZEROS = 2
"""Rows of zeros that a table of marks may have, for ids that mean none."""


def _is_one_hot(initializer: Initializer) -> bool:
    """Whether a table holds one number in every column, each in another row, as the identity does."""
    shape = initializer.value.shape or ()
    if len(shape) != 2 or not 0 <= shape[0] - shape[1] <= _ZEROS:
        return False
    from graphclone.runtime.tensors import data_of

    tensor = data_of(initializer)
    if tensor is None:
        return False
    marks = tensor != 0
    return bool((marks.sum(0) == 1).all()) and bool((marks.sum(1) <= 1).all())


def _greatest(initializer: Initializer) -> int | None:
    """The greatest magnitude among integers; None where there are no data to look at."""
    from graphclone.runtime.tensors import data_of

    tensor = data_of(initializer)
    if tensor is None or not tensor.numel():
        return None if tensor is None else 0
    return max(abs(int(tensor.min())), abs(int(tensor.max())))


def _is_whole(initializer: Initializer) -> bool:
    """Whether numbers are whole that nobody trained: few of them, if they might be a parameter."""
    from graphclone.runtime.tensors import data_of

    if initializer.kind == "parameter" and initializer.value.elements > _FEW:
        return False
    tensor = data_of(initializer)
    if tensor is None:
        return initializer.kind != "parameter"
    parts = (tensor.real, tensor.imag) if tensor.is_complex() else (tensor,)
    return all(bool((part == part.round()).all()) for part in parts)


def freeing(pin: Why | None) -> Remedy | None:
    """The remedy that frees a dim: an input or output keeps its shape unless it is let grow."""
    if pin is None or pin.kind is not Cause.BOUNDARY:
        return None
    return Remedy("widen_io", "lets it grow", [pin.node])
