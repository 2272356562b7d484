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
    requires: ClassVar[frozenset[str]] = frozenset({"dims", "widths", "scales"})
    ensures: ClassVar[frozenset[str]] = frozenset({"recipes"})

    def __call__(self, state: State) -> bool:
        facts, scales = state.facts, state.scales
        state.recipes = {
            initializer.value: Widening(
                initializer.name,
                tuple(state.layout(axis) for axis in facts.of[initializer.value]),
                contracted=facts.folded.get(initializer.value, ()),
                strategy=state.request.strategy,
                seed=state.request.seed,
                scale=scales.factors.get(initializer.value, 1.0),
                shift=scales.shifts.get(initializer.value, 0.0),
            )
            for initializer in state.graph.initializers
        }
        return any(not recipe.identity for recipe in state.recipes.values())
