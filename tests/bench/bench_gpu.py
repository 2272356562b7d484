"""How fast a linear weight of 8192 x 8192 on a GPU becomes one of 16384 x 16384 there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from graphclone.algebra.growth import Growth, Kind, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime.kernel import widen
from tests.bench import Figure, against

SIZE = 8192
FACTOR = 2
WEIGHTS = 16


def widen_on_gpu() -> Iterator[Figure]:
    """Against a copy on the device that moves as many bytes: those of the source and of the result."""
    if not torch.cuda.is_available():
        return
    for dtype in (torch.float32, torch.bfloat16):
        source = torch.randn(SIZE, SIZE, device="cuda").to(dtype)
        out = torch.empty(SIZE * FACTOR, SIZE * FACTOR, device="cuda", dtype=dtype)
        moved = torch.randn((source.numel() + out.numel()) // 2, device="cuda").to(dtype)
        other = torch.empty_like(moved)
        cases: tuple[tuple[str, Kind], ...] = (
            ("symmetric", "tile"),
            ("symmetric", "interleave"),
            ("diagonal", "tile"),
        )
        for name, kind in cases:
            axis = Leaf(Growth(SIZE, FACTOR, kind))
            recipe = Widening("weight", (axis, axis), (1,), strategy(name))
            yield against(
                f"widen {name}, {kind}, {str(dtype).removeprefix('torch.')}, {WEIGHTS} times on a GPU",
                _finished(partial(widen, source, recipe, out)),
                "copy as many bytes there",
                _finished(partial(other.copy_, moved)),
                bound=1 / 0.8,
            )


def _finished(work: Callable[[], object]) -> Callable[[], None]:
    """The work, several times as for a model of as many weights, and the wait for its end."""

    def all_of_it() -> None:
        for _ in range(WEIGHTS):
            work()
        torch.cuda.synchronize()

    return all_of_it
