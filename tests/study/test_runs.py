"""A study as a whole: what it trains, what it leaves, and that a run that is stopped goes on as if it had not been."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from graphclone.errors import GraphcloneError
from graphclone.models.huggingface import new_model
from graphclone.study import Base, Comparison, Data, Model, Recipe, Training, read, run_study
from graphclone.study.records import read_run
from graphclone.study.training import _Dropout, rate
from tests.support.study_models import Tiny, corpus, study
from tests.support.torchrun import torchrun

ROOT = Path(__file__).resolve().parents[2]

TOML = """
[data]
source = "{data}"
context = 32
validation = 8
[training]
steps = {steps}
batch = 4
warmup = 2
evaluate = 4
[[model]]
name = "tiny"
source = "tests.support.study_models:tiny"
[[base]]
name = "brief"
steps = 8
[[recipe]]
name = "mine"
strategy = "noisy-symmetric"
dropout = 0.1
dropout_steps = 5
[[compare]]
recipes = ["mine"]
"""


def _metrics(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = sorted(folder.glob("runs/*/metrics.jsonl"))
    return {path.parent.name: [json.loads(line) for line in path.read_text().splitlines()] for path in found}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return corpus(tmp_path_factory.mktemp("text"))


@pytest.mark.slow
def test_every_run_learns_and_the_clone_begins_where_its_base_ends(tmp_path: Path, data: str) -> None:
    report = run_study(study(data, steps=40, recipes=("symmetric", "noisy-diagonal")), tmp_path)
    found = _metrics(tmp_path)
    base, random = found["tiny-1x-brief-base-s0"], found["tiny-2x-random-s0"]
    for recipe in ("symmetric", "noisy-diagonal"):
        clone = found[f"tiny-2x-brief-{recipe}-s0"]
        assert clone[0]["loss"] == pytest.approx(base[-1]["loss"], rel=1e-5)
        assert clone[-1]["loss"] < clone[0]["loss"] - 0.1
    assert random[-1]["loss"] < random[0]["loss"] - 0.5
    assert [line["step"] for line in random] == list(range(0, 41, 4))
    symmetric = found["tiny-2x-brief-symmetric-s0"]
    assert symmetric[-1]["swap_cosine"] == pytest.approx(1, abs=1e-4)
    assert found["tiny-2x-brief-noisy-diagonal-s0"][-1]["swap_cosine"] < 0.99
    text = report.read_text()
    assert "noisy-diagonal" in text
    assert f"{symmetric[-1]['loss']:.3f}" in text
    left = {path.name for path in (tmp_path / "runs" / "tiny-2x-random-s0").iterdir()}
    assert left == {"metrics.jsonl", "run.json", "tensorboard", "lock"}


def test_the_control_begins_where_its_base_ends_and_sees_what_a_clone_sees(tmp_path: Path, data: str) -> None:
    toml = tmp_path / "run.toml"
    grid = 'recipes = ["mine", "continued"]\nbudgets = [4, 8]\n'
    text = TOML.format(data=data, steps=4).replace("dropout = 0.1\ndropout_steps = 5\n", "")
    toml.write_text(text.replace('recipes = ["mine"]\n', grid))
    run_study(read(str(toml)), tmp_path / "out")
    found = _metrics(tmp_path / "out")
    base, clone = found["tiny-1x-brief-base-s0"], found["tiny-2x-brief-mine-b8-s0"]
    for budget in (4, 8):
        control = found[f"tiny-1x-brief-continued-b{budget}-s0"]
        assert control[0]["loss"] == base[-1]["loss"]
        assert [line["step"] for line in control] == list(range(0, budget + 1, 4))
    # the first batches are the same: while the rate is low, a clone and its base have nearly the same losses on them
    assert control[1]["train_loss"] == pytest.approx(clone[1]["train_loss"], rel=0.02)
    assert control[1]["train_loss"] != pytest.approx(base[1]["train_loss"], rel=0.02)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| continued " in text
    assert "| continued, equal compute" in text


def test_two_bases_that_are_averaged_begin_between_them(tmp_path: Path, data: str) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        TOML.format(data=data, steps=4).replace('recipes = ["mine"]', 'recipes = ["averaged", "inexact-merge"]')
    )
    run_study(read(str(toml)), tmp_path / "out")
    found = _metrics(tmp_path / "out")
    first, second = (found[f"tiny-1x-brief-base-s{seed}"][-1]["loss"] for seed in (0, 1))
    averaged, merged = (
        read_run(tmp_path / "out" / "runs" / f"tiny-2x-brief-{name}-s0") for name in ("averaged", "inexact-merge")
    )
    assert averaged.evaluations[0].loss < max(first, second)
    assert averaged.evaluations[-1].loss < averaged.evaluations[0].loss
    assert averaged.bases == merged.bases == 2
    assert 2 * read_run(tmp_path / "out" / "runs" / "tiny-1x-brief-base-s0").parameters == averaged.parameters


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_same_curve(tmp_path: Path, data: str) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(TOML.format(data=data, steps=480))
    command = [sys.executable, "-m", "graphclone.cli", "study", str(toml), "--jobs", "2", "-o"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], cwd=ROOT, env=environment, check=True, capture_output=True)
    kills = 0
    for wanted in (80, 280):  # the state after that many steps, in a clone's run
        process = subprocess.Popen([*command, str(tmp_path / "killed")], cwd=ROOT, env=environment)
        while process.poll() is None and not _reached(tmp_path / "killed", wanted):
            time.sleep(0.01)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 2, "it was over before it could be killed"
    subprocess.run([*command, str(tmp_path / "killed")], cwd=ROOT, env=environment, check=True, capture_output=True)
    for path in (tmp_path / "whole").glob("runs/*/metrics.jsonl"):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert other.read_text() == path.read_text()


def _reached(folder: Path, step: int) -> bool:
    states = folder.glob("runs/tiny-2x-brief-mine-s0/state-*")
    return any(int(path.name.removeprefix("state-")) >= step for path in states)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_have_the_curve_of_one(tmp_path: Path, data: str, shard: bool) -> None:
    """Also if they are stopped in the middle; the model has a tied weight, and sizes that two cannot share evenly."""
    toml, name = tmp_path / "run.toml", "tiny-2x-brief-symmetric-grown-s0"
    text = TOML.format(data=data, steps=12).replace("dropout = 0.1\n", "").replace(":tiny", ":tied")
    text = text.replace('recipes = ["mine"]', 'recipes = ["symmetric", "symmetric-grown"]')
    toml.write_text(text)
    run_study(read(str(toml)), tmp_path / "one")
    toml.write_text(text.replace("evaluate = 4\n", f"evaluate = 4\nshard = {str(shard).lower()}\n"))
    done = torchrun(2, "tests.support.sharing_ranks", str(toml), str(tmp_path / "two"), name, "6", timeout=560)
    assert done.returncode == 0, done.stderr[-3000:]
    held = [float(share) for share in re.findall(r"holds (\S+)", done.stderr)]
    assert held == pytest.approx([0.5 if shard else 1.0], abs=0.05)
    alone, shared = _metrics(tmp_path / "one"), _metrics(tmp_path / "two")
    assert alone.keys() == shared.keys()
    for run, lines in alone.items():
        record = json.loads((tmp_path / "two" / "runs" / run / "run.json").read_text())
        assert (record["processes"], record["shard"], record["finished"]) == (2, shard, True)
        for line, other in zip(lines, shared[run], strict=True):
            for key in ("loss", "train_loss", "swap_cosine", "effective_rank"):
                assert other[key] == (line[key] and pytest.approx(line[key], rel=2e-5)), f"{run}, {line['step']}, {key}"
    weights = [load_file(path) for path in sorted(tmp_path.glob("*/runs/tiny-1x-brief-base-s0/weights.safetensors"))]
    assert weights[0].keys() == weights[1].keys()
    assert done.stdout.count("# Study") == 1


def test_one_process_shares_with_nobody(tmp_path: Path, data: str) -> None:
    with pytest.raises(GraphcloneError, match=r"\[training\] shard: .* start the study with torchrun"):
        run_study(study(data, shard=True), tmp_path)


def test_processes_that_share_runs_do_one_at_a_time(tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(num_processes=2))
    with pytest.raises(GraphcloneError, match="do one run at a time"):
        run_study(study(data), tmp_path / "runs", at_once=2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_several_runs_at_a_time_give_the_same_numbers(tmp_path: Path, data: str) -> None:
    made = study(data)
    one, several = tmp_path / "one", tmp_path / "several"
    told: list[tuple[str, str]] = []
    run_study(made, one)
    run_study(made, several, at_once=2, progress=lambda run, what, done, total: told.append((run, what)))
    for name, lines in _metrics(one).items():
        for line, other in zip(lines, _metrics(several)[name], strict=True):
            assert other["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert (name, "done") in told
        assert any(run == name and what.startswith("loss") for run, what in told)


def test_what_is_finished_is_not_done_again(tmp_path: Path, data: str) -> None:
    run_study(study(data), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*") if path.is_file()}
    run_study(study(data), tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*") if path.is_file()}


@pytest.mark.slow
def test_a_base_whose_weights_were_not_kept_is_trained_again(tmp_path: Path, data: str) -> None:
    run_study(study(data), tmp_path)
    before = _metrics(tmp_path)
    (tmp_path / "runs" / "tiny-1x-brief-base-s0" / "weights.safetensors").unlink()
    run_study(study(data), tmp_path)  # nothing needs them
    assert not list(tmp_path.glob("runs/*/weights.safetensors"))
    run_study(study(data, recipes=("noisy-symmetric", "diagonal")), tmp_path)
    after = _metrics(tmp_path)
    assert after.pop("tiny-2x-brief-diagonal-s0")
    assert after == before


def test_a_folder_of_another_study_is_refused(tmp_path: Path, data: str) -> None:
    run_study(study(data), tmp_path)
    with pytest.raises(GraphcloneError, match="was run with steps = 12, but now it is 16"):
        run_study(study(data, steps=16), tmp_path)
    with pytest.raises(GraphcloneError, match="was run with context = 32, but now it is 16"):
        run_study(replace(study(data), data=Data(data, context=16, validation=8)), tmp_path)
    (tmp_path / "runs" / "tiny-2x-random-s0" / "run.json").write_text("{")
    with pytest.raises(GraphcloneError, match=r"tiny-2x-random-s0.run\.json: cannot be read"):
        run_study(study(data), tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tests.support.study_models:narrow", "must take widen="),
        ("tests.support.study_models:few_tokens", r"at least 256\), but give \(1, 2, 100\)"),
        ("tests.support.study_models:corpus", "must take widen="),
        ("tests.support.study_models:nothing", "has no nothing"),
        ("no.such:function", "no such module"),
    ],
)
def test_a_model_that_will_not_do_is_refused(tmp_path: Path, data: str, source: str, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message):
        run_study(study(data, source), tmp_path)


def test_a_loss_that_is_no_number_is_refused(tmp_path: Path, data: str) -> None:
    with pytest.raises(GraphcloneError, match="lower the rate"):
        run_study(study(data, learning_rate=1e30, clip=1e30, steps=8), tmp_path)


def test_models_of_the_library_grow_by_their_configuration(tmp_path: Path, data: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    made = replace(
        study(data, steps=2, batch=2, evaluate=2),
        model=(Model("a", "pythia-mini", sizes),),
        base=(Base("none", 0),),
        compare=(Comparison(recipes=("diagonal",), factors=(3,)),),
    )
    run_study(made, tmp_path)
    found = _metrics(tmp_path)
    assert found["a-3x-none-diagonal-s0"][0]["loss"] == pytest.approx(found["a-1x-none-base-s0"][0]["loss"], rel=1e-5)
    wide = json.loads((tmp_path / "models" / "a-3x.json").read_text())
    assert wide["hidden_size"] == 48
    assert wide["vocab_size"] == 256


def test_named_dims_grow_alone(tmp_path: Path, data: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    made = replace(
        study(data, steps=2, batch=2, evaluate=2),
        model=(Model("a", "olmo-mini", sizes, dims=("hidden", "layers.*.heads")),),
        base=(Base("none", 0),),
        compare=(Comparison(recipes=("diagonal",)),),
    )
    run_study(made, tmp_path)
    found = _metrics(tmp_path)
    assert found["a-2x-none-diagonal-s0"][0]["loss"] == pytest.approx(found["a-1x-none-base-s0"][0]["loss"], rel=1e-5)
    wide = json.loads((tmp_path / "models" / "a-2x.json").read_text())
    assert (wide["hidden_size"], wide["num_attention_heads"], wide["intermediate_size"]) == (32, 4, 24)
    own = replace(made, model=(Model("a", "tests.support.study_models:tiny", dims=("hidden",)),))
    with pytest.raises(GraphcloneError, match="leave out dims"):
        run_study(own, tmp_path / "own")


@pytest.mark.slow
def test_a_checkpoint_is_cloned_as_it_is(tmp_path: Path, data: str) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    torch.manual_seed(5)
    source: Any = new_model("CausalLM", "olmo", {"vocab_size": 256, "eos_token_id": None, **sizes})
    source.save_pretrained(tmp_path / "source")
    made = replace(study(data, steps=2), model=(Model("mine", str(tmp_path / "source")),), base=(Base("as-is", 0),))
    run_study(made, tmp_path / "out")
    found = _metrics(tmp_path / "out")
    (base,) = found["mine-1x-as-is-base-s0"]
    assert found["mine-2x-as-is-noisy-symmetric-s0"][0]["loss"] == pytest.approx(base["loss"], rel=1e-5)
    assert found["mine-2x-random-s0"][0]["loss"] != pytest.approx(base["loss"], rel=1e-5)
    kept = load_file(tmp_path / "out" / "runs" / "mine-1x-as-is-base-s0" / "weights.safetensors")
    state = source.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.items())


@pytest.mark.slow
def test_the_shipped_mini_study_in_brief(tmp_path: Path) -> None:
    """A smoke test of `make study-mini`: all of it, but for most of its steps."""
    made = read("mini")
    brief = replace(
        made, training=replace(made.training, steps=4, evaluate=2), base=tuple(replace(b, steps=2) for b in made.base)
    )
    report = run_study(brief, tmp_path)
    assert len(_metrics(tmp_path)) >= 3
    assert "random" in report.read_text()
    assert list((tmp_path / "plots").glob("*.svg"))


def test_the_rate_warms_up_and_falls() -> None:
    training = Training(steps=100, warmup=10, learning_rate=2.0, final=0.1)
    rates = [rate(step, training) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    assert rates[-1] == pytest.approx(0.2, rel=0.01)


def test_dropout_is_on_for_the_first_steps_only(tmp_path: Path, data: str) -> None:
    plain = Recipe("plain", "symmetric")
    dropped = replace(plain, name="dropped", dropout=0.3, dropout_steps=4)
    compare = (Comparison(recipes=("plain", "dropped")),)
    run_study(replace(study(data), recipe=(plain, dropped), compare=compare), tmp_path)
    found = _metrics(tmp_path)
    first, second = found["tiny-2x-brief-plain-s0"], found["tiny-2x-brief-dropped-s0"]
    assert first[0]["loss"] == second[0]["loss"]
    assert first[1]["train_loss"] != second[1]["train_loss"]
    assert first[-1]["swap_cosine"] == pytest.approx(1, abs=1e-4)
    assert second[-1]["swap_cosine"] < 1 - 1e-6


def test_dropout_drops_the_inputs_of_linear_layers() -> None:
    torch.manual_seed(0)
    module, tokens = Tiny(256, 12, 20).train(), torch.arange(10).view(1, 10)
    dropped, plain = _Dropout(module), module(tokens)
    torch.testing.assert_close(module(tokens), plain)
    dropped.probability = 0.5
    assert not torch.allclose(module(tokens), plain)
    torch.testing.assert_close(module.eval()(tokens), plain)
