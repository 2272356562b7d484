"""Models that grow in the middle of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from transformers import TrainerCallback

from graphclone import callbacks
from graphclone.callbacks import GrowthCallback
from graphclone.errors import GraphcloneError
from tests.support.torchrun import torchrun
from tests.support.trainers import decoder, losses, trainer

pytestmark = pytest.mark.filterwarnings("ignore")

_STEPS = 7


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of a run that does not grow."""
    run = trainer(decoder(), tmp_path_factory.mktemp("plain"), _STEPS)
    run.train()
    return losses(run)


class Drawing(TrainerCallback):
    """Notes the state of the random numbers after every step."""

    def __init__(self) -> None:
        self.states: list[torch.Tensor] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.states.append(torch.random.get_rng_state())


def test_a_run_that_grows_twice_goes_on_as_if_it_had_not(plain: dict[int, float], tmp_path: Path) -> None:
    """Heads and hidden first, and the inner width of the feed-forward later; no loss jumps beyond rounding."""
    model = decoder()
    before, after = Drawing(), Drawing()
    growth = GrowthCallback({2: 2, 4: {"layers.*.mlp": 2}})
    run = trainer(model, tmp_path, _STEPS, callbacks=[before, growth, after])
    run.train()
    assert all(map(torch.equal, before.states, after.states))
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
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_checkpoint_of_the_source_grows_in_the_first_step_after_it(plain: dict[int, float], tmp_path: Path) -> None:
    """At the rates of the source, which no state on the disk can ask of Trainer."""
    trainer(decoder(), tmp_path, _STEPS, save_strategy="steps", save_steps=4).train()
    model: Any = decoder()
    run = trainer(model, tmp_path, _STEPS, callbacks=[GrowthCallback({5: 2})])
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert model.config.hidden_size == 48
    assert {step: losses(run)[step] for step in (5, 6, 7)} == pytest.approx(
        {step: plain[step] for step in (5, 6, 7)}, rel=2e-5
    )


# Several processes


@pytest.mark.slow
def test_processes_that_each_hold_the_model_grow_alike(tmp_path: Path) -> None:
    """As if they had not grown; and where that is impossible all stop, with the model that they had."""
    for how in ("plain", "grows", "refused"):
        done = torchrun(2, "tests.support.growing_ranks", str(tmp_path), how)
        assert done.returncode == 0, done.stderr
    plain, grows, refused = (
        json.loads((tmp_path / f"{how}.json").read_text()) for how in ("plain", "grows", "refused")
    )
    assert grows["hidden"] == 48 and grows["apart"] == 0.0
    assert grows["losses"] == pytest.approx(plain["losses"], rel=2e-5)
    assert "head" in refused["error"] and refused["hidden"] == 24


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
@pytest.mark.parametrize("count", [1, 2])
def test_what_shares_a_model_out_is_refused_by_name(
    kind: DistributedType, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(distributed_type=kind, num_processes=count)
    monkeypatch.setattr(callbacks, "AcceleratorState", lambda: state)
    model: Any = decoder()
    with pytest.raises(GraphcloneError, match=rf"^{kind.value}: a run grows in one process, or under Distributed"):
        GrowthCallback({1: 2}).on_step_end(
            None, SimpleNamespace(global_step=1), None, model=model, optimizer=None, lr_scheduler=None
        )
    assert model.config.hidden_size == 24
