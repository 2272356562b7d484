"""Models that grow in the middle of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphclone.callbacks import GrowthCallback
from graphclone.errors import GraphcloneError
from tests.support.trainers import decoder, losses, trainer

pytestmark = pytest.mark.filterwarnings("ignore")

_STEPS = 7


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that does not grow."""
    run = trainer(decoder(), tmp_path_factory.mktemp("plain"), _STEPS)
    run.train()
    return losses(run)


def test_a_run_that_grows_twice_goes_on_as_if_it_had_not(plain: dict[int, float], tmp_path: Path) -> None:
    """Heads and hidden first, and the inner width of the feed-forward later; no loss jumps beyond rounding."""
    model = decoder()
    run = trainer(model, tmp_path, _STEPS, callbacks=[GrowthCallback({2: 2, 4: {"layers.*.mlp": 2}})])
    run.train()
    config = model.config
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (48, 6, 176)
    assert sum(len(group["params"]) for group in run.optimizer.param_groups) == len(list(model.parameters()))
    assert losses(run) == pytest.approx(plain, rel=2e-5)


def test_a_run_that_gets_deeper_goes_on_where_it_was(tmp_path: Path) -> None:
    """The new block changes nothing before it has been trained; it trains from then on."""
    before = trainer(decoder(2), tmp_path, 5)
    before.train()
    model: Any = decoder(2)
    run = trainer(model, tmp_path, 5, callbacks=[GrowthCallback({2: 2}, depth={2: 3})])
    run.train()
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (3, 48)
    assert losses(run)[3] == pytest.approx(losses(before)[3], rel=2e-5)
    assert losses(run)[5] != pytest.approx(losses(before)[5], rel=1e-6)
    assert all(run.optimizer.state[parameter] for parameter in model.parameters())


@pytest.mark.slow
def test_at_the_rates_of_before_it_learns_at_another_pace(plain: dict[int, float], tmp_path: Path) -> None:
    run = trainer(decoder(), tmp_path, _STEPS, callbacks=[GrowthCallback({2: 2}, rule="same")])
    run.train()
    assert len(run.optimizer.param_groups) == 2
    assert losses(run)[3] == pytest.approx(plain[3], rel=2e-5)
    assert losses(run)[_STEPS] != pytest.approx(plain[_STEPS], rel=1e-4)


def test_a_schedule_with_a_floor_of_its_own_is_refused(tmp_path: Path) -> None:
    run = trainer(decoder(), tmp_path, 3, callbacks=[GrowthCallback({1: 2})])
    optimizer = torch.optim.AdamW(run.model.parameters())
    run.optimizer, run.lr_scheduler = optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5, eta_min=0.1)
    with pytest.raises(GraphcloneError, match="CosineAnnealingLR: does not multiply the rate of each group"):
        run.train()
    assert run.model.config.hidden_size == 24


def test_what_cannot_be_widened_changes_nothing(tmp_path: Path) -> None:
    model: Any = decoder()
    run = trainer(model, tmp_path, 3, callbacks=[GrowthCallback({1: {"head": 2}})])
    with pytest.raises(GraphcloneError, match="head"):
        run.train()
    assert model.config.hidden_size == 24 and len(run.optimizer.param_groups) == 2
