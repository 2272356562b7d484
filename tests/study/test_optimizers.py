"""What the optimizer of a clone begins with, as a recipe says it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from graphclone.errors import GraphcloneError
from graphclone.study import Base, Comparison, Recipe, run_study
from graphclone.study import training as study_training
from tests.support.study_models import corpus, study


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return corpus(tmp_path_factory.mktemp("text"))


def _losses(folder: Path, name: str) -> list[float]:
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_clones_go_on_with_the_optimizer_of_their_base_or_one_that_has_looked_around(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All begin with the base's loss; the moments at the first step tell them apart."""
    steps: dict[str, set[float]] = {}
    learn = study_training._TrainingRun.learn

    def watched(run: study_training._TrainingRun, step: int) -> None:
        if not step:
            entries = run.optimizer.state.values()
            steps[run.folder.name] = {float(entry["step"]) for entry in entries if entry}
        learn(run, step)

    monkeypatch.setattr(study_training._TrainingRun, "learn", watched)
    recipes = ("symmetric", "symmetric-grown", "noisy-diagonal-warm")
    report = run_study(study(data, recipes=recipes), tmp_path)
    base = _losses(tmp_path, "tiny-1x-brief-base-s0")
    for recipe in recipes:
        assert _losses(tmp_path, f"tiny-2x-brief-{recipe}-s0")[0] == pytest.approx(base[-1], rel=1e-5)
    begun = {recipe: steps[f"tiny-2x-brief-{recipe}-s0"] for recipe in recipes}
    assert begun == {"symmetric": set(), "symmetric-grown": {8.0}, "noisy-diagonal-warm": {30.0}}
    assert "symmetric-grown" in report.read_text()


@pytest.mark.slow
def test_a_base_whose_optimizer_was_not_kept_is_trained_anew(tmp_path: Path, data: str) -> None:
    run_study(study(data, recipes=("symmetric",)), tmp_path)
    kept = tmp_path / "runs" / "tiny-1x-brief-base-s0" / "optimizer.bin"
    before = torch.load(kept, weights_only=True)
    kept.unlink()
    run_study(study(data, recipes=("symmetric-grown",)), tmp_path)
    after = torch.load(kept, weights_only=True)
    assert all(torch.equal(before["state"][0][key], after["state"][0][key]) for key in before["state"][0])


def test_noise_leaves_nothing_to_be_grown(tmp_path: Path, data: str) -> None:
    noisy = Recipe("noisy", "noisy-symmetric", optimizer="grown")
    asked = replace(study(data), recipe=(noisy,), compare=(Comparison(recipes=("noisy",)),))
    with pytest.raises(GraphcloneError, match=r"embed\.weight is no multiple of the source's"):
        run_study(asked, tmp_path)


def test_a_base_that_was_not_trained_has_no_optimizer(tmp_path: Path, data: str) -> None:
    asked = replace(study(data, recipes=("symmetric-grown",)), base=(Base("brief", 0),))
    with pytest.raises(GraphcloneError, match="was not trained here, so it has no optimizer to be grown"):
        run_study(asked, tmp_path)


@pytest.mark.parametrize(
    ("strategy", "optimizer", "text"),
    [
        ("symmetric", "old", "recipe x: unknown optimizer 'old'; choose one of fresh, grown, warm"),
        ("random", "grown", "recipe x: only a clone has an optimizer that was grown; choose fresh"),
    ],
)
def test_an_optimizer_that_there_is_not(strategy: str, optimizer: str, text: str) -> None:
    with pytest.raises(GraphcloneError, match=text):
        Recipe("x", strategy, optimizer=optimizer)


def test_a_recipe_says_how_fast_copies_learn_and_what_decays(tmp_path: Path, data: str) -> None:
    slow = Recipe("slow", "fresh", copies=0.0, weight_decay=0.0)
    run_study(replace(study(data), recipe=(slow,), compare=(Comparison(recipes=("slow", "fresh")),)), tmp_path)
    record = json.loads((tmp_path / "runs" / "tiny-2x-brief-slow-s0" / "run.json").read_text())
    assert (record["copies"], record["weight_decay"]) == (0.0, 0.0)
    other = json.loads((tmp_path / "runs" / "tiny-2x-brief-fresh-s0" / "run.json").read_text())
    assert "copies" not in other
    assert other["weight_decay"] > 0
    losses = [_losses(tmp_path, f"tiny-2x-brief-{name}-s0") for name in ("slow", "fresh")]
    assert losses[0][0] == losses[1][0]
    assert losses[0][-1] != losses[1][-1]


@pytest.mark.parametrize(
    ("strategy", "copies", "message"),
    [("fresh", 1.5, "a factor from 0 to 1, got 1.5"), ("diagonal", 0.5, "only fresh tells copies from new entries")],
)
def test_a_rate_of_copies_that_means_nothing_is_refused(strategy: str, copies: float, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message):
        Recipe("mine", strategy, copies=copies)
