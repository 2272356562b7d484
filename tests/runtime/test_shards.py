"""What is written in blocks is what is widened whole, to the bit."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from graphclone.algebra.growth import Fill, Growth, Leaf, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import strategy
from graphclone.runtime import pads, shards
from graphclone.runtime.kernel import widen
from graphclone.runtime.shards import Entry, Shard, write_shards
from tests.runtime.test_blocks import Data
from tests.runtime.test_kernel import NOISELESS, NOISY, numbers, recipes
from tests.runtime.test_pads import FILLS, padded


def written(folder: Path, source: torch.Tensor, recipe: Widening) -> tuple[torch.Tensor, list[str]]:
    """The tensor in the file, and the names of sources with NaNs."""
    named: list[str] = []
    shard = Shard("w.safetensors", (Entry("w", Data(source), recipe),))
    write_shards(folder, [shard], done=lambda _, names: named.extend(names))
    return safetensors.torch.load_file(folder / "w.safetensors")["w"], named


@given(recipes(NOISELESS + NOISY), st.sampled_from([1, 200]), st.sampled_from([7, pads.CHUNK]))
@settings(
    max_examples=60,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_recipe_is_written_as_the_kernel_widens_it(
    tmp_path: Path, recipe: Widening, block: int, chunk: int
) -> None:
    source = numbers(recipe, torch.float32)
    with patch.object(shards, "BLOCK", block), patch.object(pads, "CHUNK", chunk):
        found, named = written(tmp_path, source, recipe)
        assert torch.equal(found, widen(source, recipe))
    assert named == []


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_what_takes_some_rows_of_the_source_is_never_whole(fill: Fill, tmp_path: Path) -> None:
    """A pad that holds the mean of its dim takes all rows; any other takes none."""
    source = torch.randn(64, 10)
    recipe = Widening("w", (padded(64, 96, fill), Leaf(Growth.between(10, 15))), (1,), strategy("diagonal"))
    with patch.object(shards, "BLOCK", 600), patch.object(shards, "widen", wraps=widen) as whole:
        found, _ = written(tmp_path, source, recipe)
    assert whole.called == (fill == Fill.MEAN)
    assert torch.equal(found, widen(source, recipe))


@pytest.mark.parametrize("row", [0, 40, 63])
def test_a_nan_in_any_block_is_reported(row: int, tmp_path: Path) -> None:
    source = torch.randn(64, 10)
    source[row, 3] = torch.nan
    with patch.object(shards, "BLOCK", 600):
        _, named = written(tmp_path, source, Widening("w", (rigid(64), padded(10, 12, Fill.ZERO))))
    assert named == ["w"]
