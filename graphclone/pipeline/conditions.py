"""The conditions that passes require and ensure: each name is a test of the state.

A condition holds or it does not, whoever says what: a pass that changes the graph behind the back of the facts, or the
facts behind that of the widths, is found out as soon as a later pass requires them. A name that is not here belongs to
a pass of a user, and means that some earlier pass ensures it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite, isnan
from typing import Any

from graphclone.algebra.axes import Cause
from graphclone.analysis.facts import Literal
from graphclone.analysis.settling import settle
from graphclone.graph import canonical
from graphclone.pipeline.state import Stage, State

Defects = Iterator[str]
"""What is wrong, one text for each thing; nothing where a condition holds."""


def _canonical(state: State) -> Defects:
    """Every operation has the one spelling that rules know, and what can be computed ahead has been."""
    if (defect := canonical.defect(state.graph, untie=state.request.untie)) is not None:
        yield defect


def _depth(state: State) -> Defects:
    """There are as many blocks as the request says, if it says anything."""
    if state.request.depth is not None:
        yield from _missing(State.depth, state)


def _dims(state: State) -> Defects:
    """The facts are about the graph as it is."""
    yield from _missing(State.analysis, state)
    if state.has(State.analysis) and (changed := state.analysis.snapshot.difference(state.graph)) is not None:
        yield f"the graph has changed since {State.analysis.producer} ran, at {changed}"


def _widths(state: State) -> Defects:
    """Whatever grows is free to, is a dim of the graph, and grows as others require."""
    yield from _missing(State.widths, state)
    if not state.has(State.widths):
        return
    growths = {axis: growth for axis, growth in state.growths.items() if growth.grows}
    facts = state.facts
    axes = [axis for part in (*facts.of.values(), *(follow.axes for follow in facts.follows)) for axis in part]
    own = {leaf for axis in axes for leaf in facts.axes.leaves(axis)}
    for axis, growth in growths.items():
        if axis not in own or growth.size != axis.size:
            yield f"a dim of {growth.size} grows that the graph does not have"
        elif axis.pin is not None and (axis.pin.kind is not Cause.UNREAD or state.widths.given is None):
            yield f"a dim of {axis.size} grows that is pinned: {axis.pin}"
    _, reasons = settle(facts, growths)
    yield from (f"a dim of {axis.size} grows by {growths[axis].factor}, but is {why}" for axis, why in reasons.items())


def _scales(state: State) -> Defects:
    """Every factor is a positive number, of something that is in the graph."""
    yield from _missing(State.scales, state)
    if not state.has(State.scales):
        return
    own = {initializer.value for initializer in state.graph.initializers}
    nodes = set(state.graph.nodes)
    for item, factor in state.scales.factors.items():
        if not (isfinite(factor) and factor > 0):
            yield f"{item} is scaled by {factor}"
        elif factor != 1.0 and (item.node not in nodes if isinstance(item, Literal) else item not in own):
            yield f"{item} is scaled, which the graph does not have"


def _recipes(state: State) -> Defects:
    """Every initializer has a recipe that takes it from its own shape to that of the widths."""
    yield from _missing(State.recipes, state)
    for initializer in state.graph.initializers if state.has(State.recipes) else ():
        recipe = state.recipes.get(initializer.value)
        axes = state.facts.of[initializer.value]
        if recipe is None:
            yield f"{initializer.name} has no recipe"
        elif recipe.source_shape != tuple(axis.size for axis in axes):
            yield f"the recipe of {initializer.name} is for another shape, {recipe.source_shape}"
        elif recipe.shape != tuple(state.layout(axis).new_size for axis in axes):
            yield f"the recipe of {initializer.name} makes it {recipe.shape}, which the widths do not"


def _literals(state: State) -> Defects:
    """Every value has its new shape, every number that counts an axis its new size, and every factor is in place."""
    missing = [defect for stage in (State.widths, State.scales) for defect in _missing(stage, state)]
    yield from missing
    if missing:
        return
    for value, axes in state.facts.of.items():
        if value.shape != tuple(state.layout(axis).new_size for axis in axes):
            yield f"{value.name} still has the shape {value.shape}"
    for follow in state.facts.follows:
        layouts = [state.layout(axis) for axis in follow.axes]
        size = follow.node.operand(follow.path) if any(layout.grows for layout in layouts) else None
        expected = follow.sign * sum(layout.new_size for layout in layouts)
        if isinstance(size, int) and size != expected:
            yield f"{follow.node.name} still has the size {size}, where {expected} is due"
    for item, scale in state.scales.factors.items():
        if isinstance(item, Literal) and scale != 1.0:
            number, expected_number = item.node.operand(item.path), item.value * scale
            if number != expected_number and not isnan(expected_number):
                yield f"{item.node.name} still has the number {number}, where {expected_number} is due"
    names = {node.name for node in state.graph.nodes}
    yield from (f"{mend.value.name} is not multiplied yet" for mend in state.scales.mends if mend.name not in names)


def _missing(stage: Stage[Any], state: State) -> Defects:
    if not state.has(stage):
        yield f"{stage.producer} has not run"


CONDITIONS: Mapping[str, Callable[[State], Defects]] = {
    "canonical": _canonical,
    "depth": _depth,
    "dims": _dims,
    "widths": _widths,
    "scales": _scales,
    "recipes": _recipes,
    "literals": _literals,
}
"""The test behind every name."""

OF_THE_SOURCE = frozenset({"canonical", "depth"})
"""What a graph may meet before any pass has run."""

CLONED = frozenset({"depth", "recipes", "literals"})
"""What must hold in the end for the state to be that of a clone."""


def defect(name: str, state: State) -> str | None:
    """The first thing that is wrong with a condition; None where it holds, or where its name is not known here."""
    return next(CONDITIONS[name](state), None) if name in CONDITIONS else None
