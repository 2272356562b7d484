"""Blocks of widened initializers: bit for bit what the whole has there, and read no more than they repeat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from graphclone.algebra.growth import Concat, Fill, Growth, IntArray, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime import blocks, kernel, pads
from graphclone.runtime.blocks import Source, widen_block
from graphclone.runtime.kernel import widen
from tests.runtime.test_kernel import NOISELESS, NOISY, numbers, recipes
from tests.runtime.test_pads import FILLS, Vector, padded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@dataclass
class Data:
    """A tensor of which rows can be read, with how many bytes have been."""

    tensor: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def rows(self, first: int, end: int) -> Data:
        return Data(self.tensor[first:end])

    def read(self) -> torch.Tensor:
        return self.tensor


def check(recipe: Widening, wanted: list[IntArray], dtype: torch.dtype) -> None:
    source = numbers(recipe, dtype)
    whole = widen(source, recipe)
    block = torch.full([*map(len, wanted)], torch.nan, dtype=dtype)
    widen_block(Source(Data(source)), recipe, wanted, block)
    expected = whole[tuple(map(torch.from_numpy, np.ix_(*wanted)))]
    assert torch.equal(block.view(_BITS[dtype.itemsize]), expected.view(_BITS[dtype.itemsize]))


_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


@given(
    recipes(NOISELESS + NOISY),
    st.randoms(use_true_random=False),
    st.sampled_from(DTYPES),
    st.sampled_from([0, kernel.MAX_SLICES]),
    st.sampled_from([7, kernel.CHUNK]),
    st.sampled_from([32, blocks.BLOCK]),
)
@settings(max_examples=80, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_a_block_is_that_part_of_the_whole(
    recipe: Widening, random: Any, dtype: torch.dtype, max_slices: int, chunk: int, block: int
) -> None:
    wanted = []
    for size in recipe.shape:
        if random.random() < 0.5:
            first, end = sorted(random.choices(range(size + 1), k=2))
            wanted.append(np.arange(first, end))
        else:
            wanted.append(np.flatnonzero([random.random() < 0.6 for _ in range(size)]))
    with (
        patch.object(kernel, "MAX_SLICES", max_slices),
        patch.object(kernel, "CHUNK", chunk),
        patch.object(pads, "CHUNK", chunk),
        patch.object(blocks, "BLOCK", block),
    ):
        check(recipe, wanted, dtype)


@pytest.mark.parametrize("name", ["diagonal", "noisy-symmetric"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [*FILLS.values(), Fill.MEAN.weighted(Vector(torch.linspace(-1, 2, 4)))])
@pytest.mark.parametrize("rows", FILLS.values(), ids=FILLS)
def test_a_block_has_the_pads_of_the_whole(name: str, dtype: torch.dtype, rows: Fill, columns: Fill) -> None:
    free = Concat((Product((rigid(2), padded(3, 5, rows))), padded(4, 6, rows), padded(4, 6, rows)))
    contracted = Product((padded(4, 7, columns), rigid(3)))
    for axes, which in (((free, contracted), (1,)), ((contracted, free), ()), ((contracted, free), (0,))):
        recipe = Widening("w", axes, which, strategy(name), seed=2)
        size = recipe.shape
        for first, end in ((3, 9), (11, size[0]), (5, 5)):
            wanted = [np.arange(first, end), np.arange(2, size[1] - 3)]
            with patch.object(kernel, "CHUNK", 40), patch.object(pads, "CHUNK", 40):
                check(recipe, wanted, dtype)


def test_a_block_reads_what_it_repeats() -> None:
    tensor = torch.randn(12, 8)
    recipe = Widening("w", (Leaf(Growth(12, 2)), Leaf(Growth(8, 2))), (1,))
    source = Source(Data(tensor))
    widen_block(source, recipe, [np.arange(9, 14), np.arange(16)], torch.empty(5, 16))
    assert source.nbytes == 5 * 8 * 4  # rows 9 to 12 of the first copy, 0 and 1 of the second


def test_the_level_of_the_noise_is_found_together() -> None:
    recipe = Widening("w", (Leaf(Growth(12, 2)), Leaf(Growth(8, 2))), (1,), strategy("noisy-symmetric"))
    asked: list[int] = []

    def together(function: Any, count: int) -> list[float]:
        asked.append(count)
        return [function(i) for i in range(count)]

    with patch.object(kernel, "CHUNK", 64):
        widen_block(Source(Data(torch.randn(12, 8))), recipe, [np.arange(3), np.arange(0)], torch.empty(3, 0), together)
    assert asked == [6]


def test_a_block_must_have_its_shape() -> None:
    recipe = Widening("w", (Leaf(Growth(2, 2)),))
    with pytest.raises(ValueError, match=r"w: a block of \[3\] does not fit \(4,\)"):
        widen_block(Source(Data(torch.ones(2))), recipe, [np.arange(3)], torch.empty(4))


def test_a_shifted_block_is_rounded_once() -> None:
    recipe = replace(Widening("norm", (Leaf(Growth(100, 2)),)), scale=1.3, shift=0.3)
    check(recipe, [np.arange(30, 150)], torch.bfloat16)
