"""How far the copies of a weight sum to it where they are rounded: in halves mostly to the last bit."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from graphclone.algebra.growth import PAD, Growth, Kind, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime import kernel
from graphclone.runtime.kernel import widen
from tests.runtime.test_kernel import NOISY, decibels, numbers, read, recipes, summed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["tile", "interleave", "explicit"])
@pytest.mark.parametrize("name", ["noisy-symmetric", "noisy-diagonal"])
@pytest.mark.parametrize("chunk", [500, kernel.CHUNK])
def test_copies_of_few_digits_sum_to_the_source(dtype: torch.dtype, kind: Kind, name: str, chunk: int) -> None:
    growth = Growth.explicit(64, [*range(64), *range(64), PAD, *range(32)])
    axis = Leaf(growth if kind == "explicit" else Growth(64, 3, kind))
    recipe = Widening("w", (axis, axis), (1,), strategy(name), scale=0.5)
    source = numbers(recipe, dtype)
    with patch.object(kernel, "CHUNK", chunk):
        wide = widen(source, recipe)
    assert check_sums(wide, source, recipe) > 0.93


@given(recipes(NOISY), st.sampled_from([torch.bfloat16, torch.float16]), st.sampled_from([0, kernel.MAX_SLICES]))
@settings(max_examples=200)
def test_copies_of_few_digits_sum_to_the_source_in_every_layout(
    recipe: Widening, dtype: torch.dtype, max_slices: int
) -> None:
    recipe = replace(recipe, shift=0.0, scale=0.5)
    source = numbers(recipe, dtype)
    with patch.object(kernel, "MAX_SLICES", max_slices):
        check_sums(widen(source, recipe), source, recipe)


def check_sums(wide: Tensor, source: Tensor, recipe: Widening) -> float:
    """Copies sum to the source, as far as there are such numbers; in exact arithmetic, which float64 is here.

    There are none where every copy is greater than the power of two above the source, whose last digits no such copy
    has. The sum is then off by what the smallest is rounded to.

    Returns:
        The share of sums that are exact.
    """
    expected, info = read(source.double(), recipe), torch.finfo(source.dtype)
    error = (summed(wide.double(), recipe) - expected).abs()
    least = least_copies(wide.double().abs(), recipe)
    above = torch.ldexp(torch.ones_like(expected), torch.frexp(expected).exponent)
    known = expected == expected.to(source.dtype)  # and not rounded when it was scaled
    assert (least[known & (error > 0)] > 0.95 * above[known & (error > 0)]).all()
    assert (error <= 1.1 * least * info.eps / 2 + info.smallest_normal).all()
    return float((error == 0).double().mean())


def least_copies(wide: Tensor, recipe: Widening) -> Tensor:
    """The least of the copies of every contracted source index."""
    for axis in recipe.contracted:
        index = recipe.axes[axis].index_map
        copies = np.moveaxis(wide.numpy(), axis, 0)
        found = np.full((recipe.axes[axis].size, *copies.shape[1:]), math.inf)
        np.minimum.at(found, index[index != PAD], copies[index != PAD])
        wide = torch.from_numpy(np.moveaxis(found, 0, axis))
    return wide


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("name", ["noisy-symmetric", "noisy-diagonal"])
def test_copies_in_single_precision_are_off_by_a_rounding_each(factor: int, name: str) -> None:
    axis = Leaf(Growth(64, factor))
    recipe = Widening("w", (axis, axis), (1,), strategy(name))
    source = numbers(recipe, torch.float32)
    wide = widen(source, recipe).double()
    error = (summed(wide, recipe) - read(source.double(), recipe)).abs()
    assert 0 < error.max() <= factor * torch.finfo(torch.float32).eps * wide.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["noisy-symmetric", "noisy-diagonal"])
def test_the_noise_level_of_few_digits_is_that_asked_for(dtype: torch.dtype, name: str) -> None:
    """A third is no number of few digits: rounded, it would put the same error into every sum."""
    recipe = Widening("w", (Leaf(Growth(256, 2)), Leaf(Growth(256, 3))), (1,), strategy(name))
    source = numbers(recipe, dtype)
    wide = widen(source, recipe).double()
    quiet = widen(source.double(), replace(recipe, strategy=strategy(name.removeprefix("noisy-"))))
    assert decibels(quiet, wide - quiet) == pytest.approx(10, abs=5e-3)
