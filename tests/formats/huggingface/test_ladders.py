"""Every published size grows into the next, in the stock class: tiny models with the ratios of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from tests.support.checkpoints import loaded
from tests.support.ladders import REFUSED, STEPS, Step
from tests.support.marks import slow_but

STRATEGIES = ("symmetric", "diagonal", "noisy-symmetric", "fresh")
CLIMBED = [name for name in STEPS if name not in REFUSED]
QUICK = ("Pythia 70M -> 160M", "OLMo 1B -> 7B", "Qwen3 1.7B -> 4B", "T5 v1.1 small -> base")
"""Steps that stand for the others: each a growth that no other has."""


def prepared(step: Step, folder: Path) -> tuple[Path, Path]:
    """A checkpoint of the smaller model with random weights, norms included, and the larger one's configuration."""
    small, large = step.configs(tiny=True)
    model: Any = randomise(step.cls(small))
    model.save_pretrained(folder / "source")
    target = folder / "target.json"
    target.write_text(json.dumps(large.to_dict()))
    return folder / "source", target


@pytest.mark.parametrize("name", slow_but(QUICK, CLIMBED))
def test_a_size_grows_into_the_next(name: str, tmp_path: Path) -> None:
    """Each step by one strategy, in turn; ``python -m tests.ladders`` takes all of them by all."""
    step = STEPS[name]
    source, target = prepared(step, tmp_path)
    strategy = STRATEGIES[CLIMBED.index(name) % len(STRATEGIES)]
    written = clone_checkpoint(source, tmp_path / "wide", like=target, strategy=strategy, seed=1)
    assert written.verification is not None
    assert written.verification.ok
    wide, problems = loaded(tmp_path / "wide", step.cls)
    assert not problems
    with torch.device("meta"):
        shaped = step.cls(step.configs(tiny=True)[1])
    assert {n: t.shape for n, t in wide.state_dict().items()} == {n: t.shape for n, t in shaped.state_dict().items()}


@pytest.mark.parametrize("name", slow_but(("BERT base -> large",), REFUSED))
def test_a_step_that_no_weights_can_take_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    source, target = prepared(STEPS[name], tmp_path)
    with pytest.raises(GraphcloneError, match=REFUSED[name]):
        plan(open_checkpoint(source), Request(like=str(target)))
