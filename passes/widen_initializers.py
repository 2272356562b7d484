"""Give every initializer the lazy recipe of its widened form. Nothing is computed yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Fill, Growth, Layout
from graphclone.algebra.recipes import Widening
from graphclone.graph.ir import Value
from graphclone.pipeline.state import State


@dataclass(frozen=True)
class WidenInitializers:
    """Plan the widening of every initializer."""

    name: ClassVar[str] = "widen-initializers"
    requires: ClassVar[frozenset[str]] = frozenset({"dims", "widths", "scales"})
    ensures: ClassVar[frozenset[str]] = frozenset({"recipes"})

    def __call__(self, state: State) -> bool:
        facts, scales = state.facts, state.scales
        state.recipes = {
            initializer.value: Widening(
                initializer.name,
                tuple(_layout(state, initializer.value, index) for index in range(initializer.value.rank)),
                contracted=facts.folded.get(initializer.value, ()),
                strategy=state.request.strategy,
                seed=state.request.seed,
                scale=scales.factors.get(initializer.value, 1.0),
                shift=scales.shifts.get(initializer.value, 0.0),
            )
            for initializer in state.graph.initializers
        }
        return any(not recipe.identity for recipe in state.recipes.values())


def _layout(state: State, value: Value, index: int) -> Layout:
    """The widened layout of an axis of an initializer, its pads filled as others demand, or else as they like.

    What is contracted meets 0 there, and gets columns that are new. Rows are new where the strategy makes no copies.
    Anything else, such as the weight of a norm, gets more copies.
    """
    axis = state.facts.of[value][index]
    if not state.layout(axis).padded:
        return state.layout(axis)
    folded = state.facts.folded.get(value, ())
    is_new = index in folded if state.request.strategy.copies else bool(folded)

    def growth_of(leaf: Axis) -> Growth:
        growth, fill = state.growth_of(leaf), state.fill_of(value, index, leaf)
        return replace(growth, fill=fill) if is_new or fill != Fill.FREE else growth.unpadded()

    return state.facts.axes.layout(axis, growth_of)
