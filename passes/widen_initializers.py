"""Give every initializer the lazy recipe of its widened form. Nothing is computed yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from graphclone.algebra.recipes import Widening
from graphclone.pipeline.state import State


@dataclass(frozen=True)
class WidenInitializers:
    """Plan the widening of every initializer."""

    name: ClassVar[str] = "widen-initializers"
    requires: ClassVar[frozenset[str]] = frozenset({"widths", "scales"})
    ensures: ClassVar[frozenset[str]] = frozenset({"recipes"})

    def __call__(self, state: State) -> bool:
        state.recipes = {}
        for initializer in state.graph.initializers:
            value = initializer.value
            state.recipes[value] = Widening(
                initializer.name,
                tuple(state.layout(axis) for axis in state.known.of[value]),
                contracted=state.known.folded.get(value, ()),
                strategy=state.request.strategy,
                seed=state.request.seed,
                scale=(state.scales or {}).get(value, 1.0),
                shift=state.shifts.get(value, 0.0),
            )
        return any(not recipe.identity for recipe in state.recipes.values())
