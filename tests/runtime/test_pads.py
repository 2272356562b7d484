"""What the kernel writes where growth maps have pads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graphclone.algebra.growth import Concat, Fill, Growth, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import STRATEGIES
from graphclone.runtime.kernel import widen
from graphclone.runtime.pads import random_numbers

ROWS, COLUMNS = 4, 3

FILLS = {"0": Fill.ZERO, "1": Fill.ONE, "mean": Fill.MEAN, "anything": Fill.FREE}


def padded(size: int, new_size: int, fill: Fill) -> Leaf:
    """A dim with pads that hold something."""
    return Leaf(replace(Growth.between(size, new_size, padded=True), fill=fill))


class Vector:
    """Weights of a mean, as an initializer has them."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def read(self) -> torch.Tensor:
        return self.data


@pytest.fixture
def weight() -> torch.Tensor:
    torch.default_generator.manual_seed(0)
    return torch.randn(ROWS, COLUMNS, dtype=torch.float64)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_rows_of_the_mean_compute_the_mean(weight: torch.Tensor, strategy: str) -> None:
    axes = (padded(ROWS, 10, Fill.MEAN), Leaf(Growth(COLUMNS, 2)))
    wide = widen(weight, Widening("w", axes, (1,), STRATEGIES[strategy], seed=3))
    x = torch.randn(COLUMNS, dtype=torch.float64)
    y, mean = weight @ x, (weight @ x).mean()
    torch.testing.assert_close(wide @ x.repeat(2), torch.cat([y, y, mean.expand(2)]))


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_rows_of_a_weighted_mean_compute_it(weight: torch.Tensor, strategy: str) -> None:
    first, second = torch.randn(2, ROWS, dtype=torch.float64)
    fill = Fill.MEAN.weighted(Vector(first)).weighted(Vector(second))
    axes = (padded(ROWS, 10, fill), Leaf(Growth(COLUMNS, 2)))
    wide = widen(weight, Widening("w", axes, (1,), STRATEGIES[strategy], seed=3))
    x = torch.randn(COLUMNS, dtype=torch.float64)
    y = weight @ x
    torch.testing.assert_close(wide @ x.repeat(2), torch.cat([y, y, (first * second * y).mean().expand(2)]))


def test_weights_of_a_mean_are_those_of_the_run(weight: torch.Tensor) -> None:
    stored, used = Vector(torch.ones(ROWS)), torch.randn(ROWS, dtype=torch.float64)
    axes = (padded(ROWS, 6, Fill.MEAN.weighted(stored)), rigid(COLUMNS))
    wide = widen(weight, Widening("w", axes), read={stored: used}.__getitem__)
    torch.testing.assert_close(wide[ROWS:], (used[:, None] * weight).mean(0).expand(2, COLUMNS))


def test_a_1_has_scale_and_shift(weight: torch.Tensor) -> None:
    wide = widen(weight, Widening("w", (padded(ROWS, 6, Fill.ONE), rigid(COLUMNS)), scale=2.0, shift=0.5))
    assert torch.equal(wide[ROWS:], torch.full((2, COLUMNS), 2.5, dtype=torch.float64))


def test_a_mean_is_shifted_as_all_else(weight: torch.Tensor) -> None:
    wide = widen(weight, Widening("w", (padded(ROWS, 6, Fill.MEAN), rigid(COLUMNS)), scale=2.0, shift=0.5))
    torch.testing.assert_close(wide[4:], (2 * weight + 0.5).mean(0).expand(2, COLUMNS))


def test_rows_of_zero_stay_zero_where_columns_are_free(weight: torch.Tensor) -> None:
    axes = (padded(ROWS, 6, Fill.ZERO), padded(COLUMNS, 5, Fill.FREE))
    wide = widen(weight, Widening("w", axes, (1,), seed=3))
    assert torch.equal(wide[:ROWS, :COLUMNS], weight)
    assert not wide[ROWS:].any()
    assert wide[:ROWS, COLUMNS:].all()


def free_columns(source: torch.Tensor, count: int, name: str = "w", seed: int = 3) -> torch.Tensor:
    """What the kernel puts where anything may be."""
    axes = (rigid(len(source)), padded(source.shape[1], source.shape[1] + count, Fill.FREE))
    return widen(source, Widening(name, axes, (1,), seed=seed))[:, source.shape[1] :]


def test_free_columns_are_as_large_as_the_source_and_drawn_from_the_seed() -> None:
    source = torch.randn(200, 100) * 0.02
    columns = free_columns(source, 80)
    assert 0.0198 < float(columns.std()) < 0.0202
    assert abs(float(columns.mean())) < 5 * 0.02 / 16000**0.5
    assert columns.all()
    assert torch.equal(columns, free_columns(source, 80))
    assert not torch.equal(columns, free_columns(source, 80, seed=4))
    assert not torch.equal(columns, free_columns(source, 80, name="v"))


def test_free_columns_are_like_independent_normal_ones_for_what_a_layer_computes() -> None:
    """Neither rows nor columns nor neighbours go together, and sums over them are normal to the fourth moment."""
    rows, count = 2000, 200
    columns = free_columns(torch.randn(rows, count + 1), count).double()
    singular = torch.linalg.svdvals(columns / columns.std() / rows**0.5)
    expected = (count / rows) ** 0.5  # Marchenko and Pastur's edges are 1 - that and 1 + that
    assert 1 - 1.1 * expected < singular.min() and singular.max() < 1 + 1.1 * expected
    assert torch.unique(columns, dim=0).shape == columns.shape
    flat = (columns / columns.std()).reshape(-1)
    shifted = [float((flat[:-lag] * flat[lag:]).mean()) for lag in (1, 2, 3, 4, 16, count, 1 << 15)]
    assert max(map(abs, shifted)) < 5 / len(flat) ** 0.5
    sums = columns @ torch.randn(count, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kurtosis = float((sums / sums.std(0)).pow(4).mean())
    assert 2.9 < kurtosis < 3.1


def test_a_chunk_is_the_same_whatever_was_drawn_before_it() -> None:
    recipe = Widening("w", (rigid(ROWS),), seed=7)
    words = np.random.SFC64([recipe.noise_seed, 5]).random_raw(8).view(np.int16) | np.int16(1)
    for before in (0, 1, 5):
        random_numbers(recipe, before, (3, 11), 1.0)
        found = random_numbers(recipe, 5, (4, 8), 0.5)
        scale = 0.5 / float(np.sqrt(((1 << 30) - 1) / 3))
        torch.testing.assert_close(found, torch.from_numpy(words.astype(np.float32)).view(4, 8) * scale)


@pytest.mark.parametrize("rows", [1, 17, 5000])
def test_random_pads_are_as_large_as_a_source_whose_rows_are_not_alike(rows: int) -> None:
    source = torch.randn(rows, 300) * torch.linspace(0.5, 1.5, rows)[:, None]
    size = float(free_columns(source, 80).std())
    assert 0.9 < size / float(source.pow(2).mean().sqrt()) < 1.1


def test_pads_of_one_factor_and_of_one_segment() -> None:
    source = torch.arange(10.0)
    heads = Product((padded(2, 3, Fill.MEAN), rigid(3)))
    wide = widen(source, Widening("b", (Concat((heads, padded(4, 5, Fill.MEAN))),)))
    assert wide.tolist() == [0, 1, 2, 3, 4, 5, 1.5, 2.5, 3.5, 6, 7, 8, 9, 7.5]


def test_more_copies_share_a_contracted_weight_by_how_many_there_are(weight: torch.Tensor) -> None:
    wide = widen(weight, Widening("w", (rigid(ROWS), Leaf(Growth.between(COLUMNS, 7))), (1,)))
    expected = torch.cat([weight, weight, weight[:, :1]], 1) / torch.tensor([3.0, 2, 2, 3, 2, 2, 3])
    torch.testing.assert_close(wide, expected)
