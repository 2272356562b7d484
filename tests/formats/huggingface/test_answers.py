"""What was found out about a class is used again where nothing has changed that it depends on, and only there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, masking_utils
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bart import modeling_bart

import graphclone
from graphclone.algebra.strategies import Strategy, strategy
from graphclone.cli.__main__ import main
from graphclone.formats.huggingface import answers, reader, widths
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.source import CheckpointSource
from graphclone.pipeline.state import Request
from graphclone.runtime import cache
from tests.support.checkpoints import copied, planned
from tests.support.marks import slow_but


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers") / "bart"
    sizes = {
        "vocab_size": 61,
        "max_position_embeddings": 64,
        "d_model": 40,
        "encoder_ffn_dim": 52,
        "decoder_ffn_dim": 56,
    }
    counts = {"encoder_attention_heads": 5, "decoder_attention_heads": 5, "encoder_layers": 1, "decoder_layers": 1}
    BartForConditionalGeneration(BartConfig(**sizes, **counts)).save_pretrained(folder)
    return folder


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what has been traced."""
    names: list[str] = []
    original = reader.trace_module

    def trace_module(*args: Any, name: str, **options: Any) -> Any:
        names.append(name)
        return original(*args, name=name, **options)

    monkeypatch.setattr(reader, "trace_module", trace_module)
    return names


def test_the_second_plan_traces_nothing_and_is_the_first(bart: Path, traces: list[str], tmp_path: Path) -> None:
    first = planned(bart)
    assert len(traces) == 2
    second = planned(bart)
    third = planned(copied(bart, tmp_path / "elsewhere"))
    assert len(traces) == 2
    assert first.fingerprint == second.fingerprint
    assert first.config == second.config == third.config
    assert [shard.header for shard in first.shards] == [shard.header for shard in third.shards]
    recipes = [list(plan.widened.state.recipes.values()) for plan in (first, second)]
    assert repr(recipes[0]) == repr(recipes[1])


def test_another_request_uses_what_the_first_found_out(bart: Path, traces: list[str]) -> None:
    planned(bart, 2)
    assert planned(bart, 3).config["d_model"] == 120
    assert len(traces) == 3  # the source's once, and one for each of the wide ones


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that were solved for."""
    found: list[Any] = []
    original = widths.solve

    def solve(*args: Any) -> Any:
        found.append(original(*args))
        return found[-1]

    monkeypatch.setattr(widths, "solve", solve)
    return found


def test_the_configuration_of_a_request_is_solved_for_once(bart: Path, solved: list[Any]) -> None:
    first, second = planned(bart), planned(bart)
    assert len(solved) == 1
    assert first.fingerprint == second.fingerprint
    assert first.changes == second.changes

    def once_more(request: Request) -> int:
        plan(open_checkpoint(bart), request)
        return len(solved)

    assert once_more(Request(2, seed=7)) == 1
    assert once_more(Request(3)) == 2
    assert once_more(Request({"model.*.fc1": 2})) == 3
    assert once_more(Request(2, strategy=strategy("noisy-diagonal"))) == 4
    mine = Strategy("symmetric", lambda n_out, n_in: np.full((n_out, n_in), 1 / n_in))
    assert once_more(Request(2, strategy=mine)) == 5
    assert once_more(Request(2, strategy=mine)) == 6, "nobody knows what a function of the user's does"


def test_whoever_looks_at_the_passes_sees_all_of_them(bart: Path) -> None:
    seen: list[list[str]] = []
    for _ in range(2):
        names: list[str] = []
        plan(open_checkpoint(bart), Request(2), after=lambda done, _, names=names: names.append(done.name))
        planned(bart)
        seen.append(names)
    assert "choose-widths" in seen[0]
    assert seen[0] == seen[1]


def test_a_configuration_that_is_none_any_more_is_solved_for_again(
    bart: Path, solved: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, read = planned(bart), cache.read

    def stale(name: str) -> Any:
        answer = read(name)
        return [[[["d_model"], 44]], []] if is_solution(answer) else answer

    def is_solution(answer: Any) -> bool:
        return isinstance(answer, list) and len(answer) == 2 and ["d_model"] in [change[0] for change in answer[0]]

    monkeypatch.setattr(cache, "read", stale)
    assert planned(bart).fingerprint == expected.fingerprint
    assert len(solved) == 2


CHANGED = ("fields", "dtype", "inputs", "code", "library", "damage", "off")


@pytest.mark.parametrize("changed", slow_but(("fields", "code", "damage"), CHANGED))
def test_what_has_changed_is_traced_anew(
    bart: Path, traces: list[str], changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CheckpointSource(str(bart)).trace()
    assert len(traces) == 1
    source = CheckpointSource(str(bart))
    if changed == "fields":
        folder = copied(bart, tmp_path / "changed")
        config = (folder / "config.json").read_text()
        (folder / "config.json").write_text(
            config.replace('"activation_function": "gelu"', '"activation_function": "relu"')
        )
        source = CheckpointSource(str(folder))
    elif changed == "dtype":
        source = CheckpointSource(str(bart), dtype=torch.float64)
    elif changed == "inputs":
        ids = torch.randint(3, 60, (2, 5))
        source = CheckpointSource(str(bart), {"input_ids": ids, "decoder_input_ids": ids})
    elif changed == "code":
        monkeypatch.setattr(answers, "installed_code", lambda: "other code of transformers")
    elif changed == "library":
        monkeypatch.setattr(cache, "environment", lambda: ["another version"])
    elif changed == "damage":
        for path in cache.folder().iterdir():
            path.write_bytes(path.read_bytes()[:-1])
    with graphclone.no_cache() if changed == "off" else torch.enable_grad():
        source.trace()
    assert len(traces) == 2


def test_a_class_with_code_of_the_program_is_not_kept(bart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_checkpoint(bart).answers.about is not None

    def forward(self: Any, hidden_states: Any) -> Any:
        return hidden_states

    with monkeypatch.context() as patched:
        patched.setattr(modeling_bart.BartEncoderLayer, "forward", forward)
        assert open_checkpoint(bart).answers.about is None
    with monkeypatch.context() as patched:
        patched.setattr(modeling_bart, "eager_attention_forward", forward)
        assert open_checkpoint(bart).answers.about is None
    with monkeypatch.context() as patched:
        patched.setattr(masking_utils, "sdpa_mask", forward)
        assert open_checkpoint(bart).answers.about is None
    with monkeypatch.context() as patched:
        patched.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", forward)
        assert open_checkpoint(bart).answers.about is None
    with monkeypatch.context() as patched:
        patched.setattr(type(open_checkpoint(bart).config), "validate_architecture", forward, raising=False)
        assert open_checkpoint(bart).answers.about is None
    mine = type("Mine", (modeling_bart.BartForConditionalGeneration,), {})
    assert replace(open_checkpoint(bart), cls=mine).answers.about is None
    assert open_checkpoint(bart).answers.about is not None


def test_the_command_line_does_without_the_cache_if_asked(bart: Path, tmp_path: Path) -> None:
    command = ["clone", str(bart), "-o", str(tmp_path / "wide"), "--verify", "sample"]
    assert main([*command, "--no-cache"]) == 0
    assert not cache.folder().exists()
    assert main([*command, "--force"]) == 0
    assert cache.folder().exists()
