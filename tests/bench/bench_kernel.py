"""How fast a linear weight of 2048 x 2048 becomes one of 4096 x 4096, in float32 unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch

from graphclone.algebra.growth import Growth, Kind, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime.blocks import InMemory, Source, alone, widen_block
from graphclone.runtime.kernel import widen
from tests.bench import Figure, against

SIZE = 2048
FACTOR = 2
RANKS = 8


def widen_in_blocks() -> Iterator[Figure]:
    """A weight made by eight processes, one after the other, against all of it at once: rows, and columns."""
    source = torch.randn(SIZE, SIZE)
    out = torch.empty(SIZE * FACTOR, SIZE * FACTOR)
    axis = Leaf(Growth(SIZE, FACTOR))
    for name in ("symmetric", "noisy-symmetric"):
        recipe = Widening("weight", (axis, axis), (1,), strategy(name))
        for cut in (0, 1):

            def work(recipe: Widening = recipe, cut: int = cut) -> None:
                levels: list[Sequence[float]] = []

                def together(function: Callable[[int], float], count: int) -> Sequence[float]:
                    if not levels:
                        levels.append(alone(function, count))
                    return levels[0]

                for part in np.array_split(np.arange(SIZE * FACTOR), RANKS):
                    wanted = [part if axis == cut else np.arange(SIZE * FACTOR) for axis in range(2)]
                    block = out.narrow(cut, int(part[0]), len(part))
                    widen_block(Source(InMemory(source)), recipe, wanted, block, together)

            yield against(
                f"widen {name} in {RANKS} parts of axis {cut}", work, "at once", partial(widen, source, recipe, out)
            )


def widen_linear() -> Iterator[Figure]:
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
            yield against(f"widen {name}, {kind}", work, "copy", lambda: other.copy_(out), bound=1 / 0.9)
        else:
            yield against(f"widen {name}, {kind}", work, "torch.randn", lambda: torch.randn(out.shape))
    yield from _interleave_short(source.bfloat16())


def _interleave_short(source: torch.Tensor) -> Iterator[Figure]:
    axis = Leaf(Growth(SIZE, FACTOR, "interleave"))
    recipe = Widening("weight", (axis, axis), (1,), strategy("symmetric"))
    out = torch.empty(recipe.shape, dtype=source.dtype)
    other = torch.zeros_like(out)
    yield against(
        "widen symmetric, interleave, bfloat16",
        lambda: widen(source, recipe, out),
        "copy",
        lambda: other.copy_(out),
        bound=1 / 0.9,
    )
