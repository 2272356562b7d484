"""What the kernel writes where growth maps have pads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from graphclone.algebra.growth import Concat, Fill, Growth, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import STRATEGIES
from graphclone.runtime.kernel import widen

ROWS, COLUMNS = 4, 3


def padded(size: int, new_size: int, fill: Fill) -> Leaf:
    """A dim with pads that hold something."""
    return Leaf(replace(Growth.between(size, new_size, padded=True), fill=fill))


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


def test_a_mean_is_shifted_as_all_else(weight: torch.Tensor) -> None:
    wide = widen(weight, Widening("w", (padded(ROWS, 6, Fill.MEAN), rigid(COLUMNS)), scale=2.0, shift=0.5))
    torch.testing.assert_close(wide[4:], (2 * weight + 0.5).mean(0).expand(2, COLUMNS))


def test_rows_of_zero_stay_zero_where_columns_are_free(weight: torch.Tensor) -> None:
    axes = (padded(ROWS, 6, Fill.ZERO), padded(COLUMNS, 5, Fill.FREE))
    wide = widen(weight, Widening("w", axes, (1,), seed=3))
    assert torch.equal(wide[:ROWS, :COLUMNS], weight)
    assert not wide[ROWS:].any()
    assert wide[:ROWS, COLUMNS:].all()


def test_free_columns_are_as_large_as_the_source_and_drawn_from_the_seed() -> None:
    source = torch.randn(200, 100) * 0.02
    recipe = Widening("w", (rigid(200), padded(100, 180, Fill.FREE)), (1,), seed=3)
    columns = widen(source, recipe)[:, 100:]
    assert 0.019 < float(columns.std()) < 0.021
    assert torch.equal(columns, widen(source, recipe)[:, 100:])
    assert not torch.equal(columns, widen(source, replace(recipe, seed=4))[:, 100:])


def test_pads_of_one_factor_and_of_one_segment() -> None:
    source = torch.arange(10.0)
    heads = Product((padded(2, 3, Fill.MEAN), rigid(3)))
    wide = widen(source, Widening("b", (Concat((heads, padded(4, 5, Fill.MEAN))),)))
    assert wide.tolist() == [0, 1, 2, 3, 4, 5, 1.5, 2.5, 3.5, 6, 7, 8, 9, 7.5]


def test_more_copies_share_a_contracted_weight_by_how_many_there_are(weight: torch.Tensor) -> None:
    wide = widen(weight, Widening("w", (rigid(ROWS), Leaf(Growth.between(COLUMNS, 7))), (1,)))
    expected = torch.cat([weight, weight, weight[:, :1]], 1) / torch.tensor([3.0, 2, 2, 3, 2, 2, 3])
    torch.testing.assert_close(wide, expected)
