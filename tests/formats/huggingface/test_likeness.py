"""Checkpoints that grow into a published shape: what is taken of a target, and what is in the way."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from tests.support.checkpoints import loaded, outputs

SMALL = {
    "vocab_size": 101,
    "hidden_size": 72,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "tie_word_embeddings": True,
    "attention_dropout": 0.0,
    "bos_token_id": 3,
}
LARGE = {
    **SMALL,
    "hidden_size": 120,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "intermediate_size": 320,
    "bos_token_id": 5,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    model: Any = randomise(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)))
    model.save_pretrained(folder)
    return folder


def target(folder: Path, **changes: Any) -> Path:
    """The file of a configuration that differs from that of the larger model."""
    file = folder / "target.json"
    file.write_text(json.dumps({"model_type": "llama", **LARGE, **changes}))
    return file


@pytest.mark.parametrize("strategy", ["symmetric", "diagonal", "noisy-symmetric"])
def test_the_stock_class_has_the_shape_of_the_target(strategy: str, source: Path, tmp_path: Path) -> None:
    written = clone_checkpoint(source, tmp_path / "wide", like=target(tmp_path), strategy=strategy, seed=1)
    assert written.verification is not None
    assert written.verification.ok
    (small, _), (wide, problems) = loaded(source), loaded(tmp_path / "wide")
    assert not problems
    shaped = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LARGE)).state_dict()
    assert {name: t.shape for name, t in wide.state_dict().items()} == {name: t.shape for name, t in shaped.items()}
    assert wide.lm_head.weight is wide.model.embed_tokens.weight
    assert wide.config.bos_token_id == SMALL["bos_token_id"], "who the source is stays"
    tokens = {"input_ids": torch.randint(0, 101, (2, 19))}
    found, expected = outputs(wide.double(), tokens)["logits"], outputs(small.double(), tokens)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "relu"}, "hidden_act is silu in the source and relu in the target: .*aten.relu"),
        ({"vocab_size": 150}, "vocab_size is 101 in the source and 150 in the target: .*keep_vocab=True keeps"),
        ({"model_type": "mistral"}, "is for a mistral, and .* is a llama; give one of its kind"),
        *(
            pytest.param(changes, message, marks=pytest.mark.slow)
            for changes, message in (
                (
                    {"intermediate_size": 100},
                    "intermediate_size is 192 in the source and 100 in the target: .*nothing shrinks",
                ),
                (
                    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
                    "rope_parameters.rope_theta is 10000.0 in the source and 50000.0 in the target: .*inv_freq",
                ),
                (
                    {"attention_bias": True},
                    "attention_bias is False in the source and True in the target: .*k_proj.bias",
                ),
                (
                    {"hidden_act": "relu", "intermediate_size": 100},
                    "intermediate_size is 192 .* nothing shrinks; hidden_act is silu .*aten.relu",
                ),
            )
        ),
    ],
)
def test_what_no_weights_bridge_is_named(changes: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=message):
        plan(open_checkpoint(source), Request(like=str(target(tmp_path, **changes))))


def test_another_vocabulary_can_be_kept(source: Path, tmp_path: Path) -> None:
    found = plan(open_checkpoint(source), Request(like=str(target(tmp_path, vocab_size=150)), keep_vocab=True))
    assert found.fields["vocab_size"] == SMALL["vocab_size"]
    assert found.fields["hidden_size"] == LARGE["hidden_size"]


def test_the_library_takes_folders_and_targets(source: Path, tmp_path: Path) -> None:
    clone = gc.clone(source, like=target(tmp_path))
    assert {dim.name: clone.factors(dim) for dim in clone.dims}["hidden"] == (Fraction(5, 3),)
    assert any(dim.name == "hidden" for dim in gc.trace(source).dims)
    linear = torch.nn.Linear(3, 5)
    with pytest.raises(GraphcloneError, match="is for Hugging Face checkpoints"):
        gc.clone(linear, (torch.ones(2, 3),), like=target(tmp_path))
    with pytest.raises(GraphcloneError, match="like already says every width and depth; leave out widen="):
        gc.clone(source, like=target(tmp_path), widen=2)


def test_what_the_trace_does_not_show_stays(source: Path, tmp_path: Path) -> None:
    """A cap that only longer texts meet cannot be proved, and may change what the model computes."""
    found = plan(open_checkpoint(source), Request(like=str(target(tmp_path, max_position_embeddings=64))))
    assert "max_position_embeddings" not in found.changes
    assert any("max_position_embeddings 2048 (not 64)" in note for note in found.notes)


def test_a_norm_of_another_epsilon_is_absorbed(source: Path, tmp_path: Path) -> None:
    written = clone_checkpoint(source, tmp_path / "wide", like=target(tmp_path, rms_norm_eps=1e-5))
    assert written.plan.changes["rms_norm_eps"] == (1e-6, 1e-5)


def test_a_target_that_does_not_tie_unties(source: Path, tmp_path: Path) -> None:
    written = clone_checkpoint(source, tmp_path / "wide", like=target(tmp_path, tie_word_embeddings=False))
    assert written.plan.changes["tie_word_embeddings"] == (True, False)


def test_inspect_shows_what_can_be_reached(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reachable, other = target(tmp_path), tmp_path / "other.json"
    other.write_text(json.dumps({"model_type": "llama", **LARGE, "hidden_act": "relu"}))
    assert main(["inspect", str(source), "--like", str(reachable)]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "it can be reached" in out
    assert "hidden 72 -> 120 1 1 copy, 48 pads" in out
    assert "layers.*.mlp 192 -> 320 2 1 or 2 copies" in out
    assert main(["inspect", str(source), "--like", str(other), "--json"]) == 2
    captured = capfd.readouterr()
    record = json.loads(captured.out)
    assert len(record["obstacles"]) == 1
    assert record["config"] == {name: [SMALL[name], LARGE[name]] for name in record["config"]}
    assert "hidden_act is silu in the source and relu in the target" in captured.err


def test_a_configuration_alone_can_be_inspected(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone, large = tmp_path / "alone", target(tmp_path)
    alone.mkdir()
    (alone / "config.json").write_text((source / "config.json").read_text())
    for said in ([], ["--like", str(large)]):
        shown = {}
        for folder in (source, alone):
            assert main(["inspect", str(folder), *said, "--json"]) == 0
            shown[folder] = json.loads(capfd.readouterr().out)
        notes = {folder: found.pop("notes") for folder, found in shown.items()}
        assert set(notes[alone]) - set(notes[source]) == {
            "no weights are here: this is what the configuration alone says"
        }
        assert {**shown[alone], "model": ""} == {**shown[source], "model": ""}
    assert main(["clone", str(alone), "-o", str(tmp_path / "wide")]) == 2
    assert "no weights; expected model.safetensors" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["clone", "SOURCE", "-o", "wide", "--like", "TARGET", "--widen", "2"], "width and depth; leave out --widen"),
        (["clone", "SOURCE", "-o", "wide", "--keep-vocab"], "goes with like, whose target may have another vocabulary"),
        (["clone", "SOURCE", "-o", "wide", "--like", "nowhere"], "nowhere: no such target"),
        (["clone", "opt-mini", "-o", "wide.pt2", "--like", "TARGET"], "--like is for Hugging Face checkpoints"),
        (["inspect", "opt-mini", "--like", "TARGET"], "--like is for Hugging Face checkpoints"),
    ],
)
def test_usage(
    argv: list[str],
    message: str,
    source: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    places = {"SOURCE": str(source), "TARGET": str(target(tmp_path))}
    assert main([places.get(word, word) for word in argv]) == 2
    assert message in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["target.json"]


@pytest.mark.parametrize(("window", "wanted"), [(None, 21), (21, None), (15, 21)])
def test_a_window_that_the_example_does_not_reach_stays(window: int | None, wanted: int | None, tmp_path: Path) -> None:
    """Whether it adds operators or takes some away, or is another number: longer texts would be read differently."""
    sizes = {"vocab_size": 61, "intermediate_size": 40, "num_hidden_layers": 1}
    small = {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    large = {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = transformers.MistralConfig(**sizes, **small, sliding_window=window)
    randomise(transformers.MistralForCausalLM(config)).save_pretrained(tmp_path / "source")
    transformers.MistralConfig(**sizes, **large, sliding_window=wanted).save_pretrained(tmp_path / "target")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "wide", like=tmp_path / "target")
    assert any(f"sliding_window {window} (not {wanted})" in note for note in written.notes)
    tokens = torch.arange(2 * 29).view(2, 29)
    narrow, wide = (loaded(tmp_path / folder)[0].eval()(tokens).logits for folder in ("source", "wide"))
    torch.testing.assert_close(wide, narrow, rtol=1e-5, atol=1e-5)
