"""The model as a person thinks of it: modules within modules, layers of one kind folded into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from graphclone.graph.ir import Initializer, Node, Value
from graphclone.pipeline.state import State
from graphclone.report.layouts import Layouts
from graphclone.report.page import NO_DIM, Operation, Part, Tensor
from graphclone.rules import find, pattern_of

NO_RULE = "no rule: what it touches keeps its size"

_OWN_RULE = "a rule of its own"


@dataclass
class _Draft:
    """A module while nodes are put into it, with its parts by name."""

    path: str
    items: list[_Draft | Operation] = field(default_factory=list)
    parts: dict[str, _Draft] = field(default_factory=dict)

    def part(self, name: str) -> _Draft:
        if name not in self.parts:
            self.parts[name] = _Draft(f"{self.path}.{name}".lstrip("."))
            self.items.append(self.parts[name])
        return self.parts[name]


Item: TypeAlias = Part | Operation


def tree(state: State, layouts: Layouts) -> Part:
    """The modules of a model, numbered row by row as they are folded.

    Args:
        state: after ``infer-dims``, or of a clone.
        layouts: that reads it.
    """
    operations = _Operations(state, layouts)
    graph = state.source if state.has(State.widths) else state.graph
    root = _Draft("")
    root.items += operations.inputs(graph.inputs)
    for node in graph.nodes:
        if any(output.is_tensor for output in node.outputs):
            draft = root
            for name in node.scope.split(".") if node.scope else ():
                draft = draft.part(name)
            draft.items.append(operations.of(node))
    new = {addition.name for addition in state.depth.additions} if state.has(State.depth) else set()
    return _numbered(_part(root, new), 0)


class _Operations:
    """Makes rows of nodes."""

    def __init__(self, state: State, layouts: Layouts) -> None:
        self.state = state
        self.layouts = layouts
        self.values = {value.name: value for value in state.facts.of}
        self.initializers = {i.value.name: i for i in state.facts.graph.initializers}
        self.seen: set[str] = set()

    def inputs(self, values: Iterable[Value]) -> Iterator[Operation]:
        for value in values:
            if value.is_tensor:
                yield Operation(value.name, "input", "", (self.tensor(value, "input"),), (), (), 0)

    def of(self, node: Node) -> Operation:
        names = dict.fromkeys(value.name for value in node.inputs if value.name in self.initializers)
        first = [name for name in names if name not in self.seen]
        self.seen.update(first)
        rule, _ = find(self.state.rules, node.op)
        return Operation(
            name=node.name,
            op=node.op,
            rule=NO_RULE if rule is None else pattern_of(rule) or _OWN_RULE,
            outputs=tuple(self.tensor(value, "value") for value in node.outputs if value.is_tensor),
            reads=tuple(self.initializer(self.initializers[name]) for name in first),
            shares=tuple(self.initializers[name].name for name in names if name not in first),
            place=0,
        )

    def tensor(self, value: Value, kind: str) -> Tensor:
        known = self.values.get(value.name)
        axes = self.layouts.of(known) if known is not None else ()
        scales = self.state.scales.values if self.state.has(State.scales) else {}
        return Tensor(value.name, kind, value.dtype, axes, scales.get(known, 1.0) if known is not None else 1.0)

    def initializer(self, initializer: Initializer) -> Tensor:
        value = initializer.value
        recipe = self.state.recipes.get(value) if self.state.has(State.recipes) else None
        return Tensor(
            name=initializer.name,
            kind=initializer.kind,
            dtype=value.dtype,
            axes=self.layouts.of(value),
            scale=recipe.scale if recipe is not None else 1.0,
            contracted=tuple(self.state.facts.folded.get(value, ())),
        )


# Folding


def _part(draft: _Draft, new: Collection[str]) -> Part:
    """A module with its parts; one that holds nothing but another is that one, under both names."""
    path = draft.path
    while len(draft.items) == 1 and isinstance(only := draft.items[0], _Draft):
        draft = only
    items = [item if isinstance(item, Operation) else _part(item, new) for item in draft.items]
    parent = path.rpartition(".")[0]
    name = draft.path.removeprefix(parent).lstrip(".")
    return Part(name, draft.path, tuple(_folded(items)), (), draft.path in new, 0, 0)


def _folded(items: Iterable[Item]) -> Iterator[Item]:
    """The items, numbered parts of one kind that follow each other as one."""
    alike: list[Part] = []
    kind: Hashable = None
    for item in items:
        if isinstance(item, Part) and item.name.partition(".")[0].isdigit():
            if alike and signature(item) == kind:
                alike.append(item)
                continue
            yield from _together(alike)
            alike, kind = [item], signature(item)
        else:
            yield from _together(alike)
            alike = []
            yield item
    yield from _together(alike)


def _together(alike: list[Part]) -> Iterator[Part]:
    if alike:
        yield dataclasses.replace(alike[0], twins=tuple(alike[1:]))


def signature(item: Item) -> Hashable:
    """The signature of an item, without names and places. Layers of one kind are equal in it."""
    if isinstance(item, Operation):
        tensors = tuple((tensor.kind, tensor.axes, tensor.scale) for tensor in (*item.outputs, *item.reads))
        return item.op, tensors, len(item.shares)
    return item.is_new, len(item.twins), tuple(signature(inner) for inner in item.items)


def _numbered(part: Part, place: int) -> Part:
    """The part with its rows numbered from a place on; twins have the places of the part that stands for them."""
    items: list[Item] = []
    at = place
    for item in part.items:
        if isinstance(item, Operation):
            at += 1
            items.append(dataclasses.replace(item, place=at))
        else:
            inner = _numbered(item, at + 1)
            at = inner.end
            items.append(inner)
    twins = tuple(_numbered(twin, place) for twin in part.twins)
    return dataclasses.replace(part, items=tuple(items), twins=twins, place=place, end=at)


# Where dims are


def spans(part: Part) -> Mapping[int, tuple[int, int]]:
    """The first and the last row that has a dim, by its number."""
    found: dict[int, tuple[int, int]] = {}
    for operation in operations(part):
        for number in touched(operation):
            first, _ = found.get(number, (operation.place, 0))
            found[number] = (first, operation.place)
    return found


def operations(part: Part, *, unfolded: bool = False) -> Iterator[Operation]:
    """The operations in a part, those of its twins left out unless layers are to be unfolded."""
    for item in part.items:
        if isinstance(item, Operation):
            yield item
        else:
            yield from operations(item, unfolded=unfolded)
    for twin in part.twins if unfolded else ():
        yield from operations(twin, unfolded=True)


def touched(operation: Operation) -> set[int]:
    """The numbers of the dims of an operation."""
    return dims_of((*operation.outputs, *operation.reads))


def dims_of(tensors: Iterable[Tensor]) -> set[int]:
    """The numbers of the dims that tensors have."""
    return {leaf.dim for tensor in tensors for axis in tensor.axes for leaf in axis.leaves} - {NO_DIM}


def lanes(bands: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """A column for every band, so that no two that overlap share one, and as few columns as can be."""
    ends: list[int] = []
    result: dict[int, int] = {}
    for number, (first, last) in sorted(bands.items(), key=lambda band: (band[1][0], -band[1][1])):
        free = next((lane for lane, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        result[number] = free
    return result
