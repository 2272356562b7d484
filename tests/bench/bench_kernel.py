"""How fast a linear weight of 2048 x 2048 becomes one of 4096 x 4096, in float32."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from graphclone.algebra.growth import Growth, Kind, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime.kernel import widen
from tests.bench import Timing, against

SIZE = 2048
FACTOR = 2


def widen_linear() -> Iterator[Timing]:
    """Noiseless strategies against a copy of the result, noisy ones against drawing as many numbers."""
    source = torch.randn(SIZE, SIZE)
    out = torch.empty(SIZE * FACTOR, SIZE * FACTOR)
    other = torch.zeros_like(out)
    cases: tuple[tuple[str, Kind], ...] = (
        ("symmetric", "tile"),
        ("symmetric", "interleave"),
        ("diagonal", "tile"),
        ("noisy-symmetric", "tile"),
        ("noisy-diagonal", "tile"),
    )
    for name, kind in cases:
        axis = Leaf(Growth(SIZE, FACTOR, kind))
        recipe = Widening("weight", (axis, axis), (1,), strategy(name))

        def work(recipe: Widening = recipe) -> torch.Tensor:
            return widen(source, recipe, out)

        if recipe.strategy.snr_db is None:
            yield against(f"widen {name}, {kind}", work, "copy", lambda: other.copy_(out))
        else:
            yield against(f"widen {name}, {kind}", work, "torch.randn", lambda: torch.randn(out.shape))
