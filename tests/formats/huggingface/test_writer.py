"""Checkpoints, disk to disk: the stock class loads the clone, and it computes what its source computes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import graphclone as gc
from graphclone.algebra.strategies import strategy
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import Plan, plan
from graphclone.formats.huggingface.reader import Checkpoint, open_checkpoint
from graphclone.formats.huggingface.verifier import SourceRuns, run_source, verify_checkpoints
from graphclone.formats.huggingface.weights import open_weights
from graphclone.formats.huggingface.writer import clone_checkpoint, write_checkpoint
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from graphclone.runtime.kernel import widen
from graphclone.runtime.shards import sharded
from tests.support.checkpoints import MODELS, contents, entries, loaded, outputs, planned, saved
from tests.support.marks import slow_but

STRATEGIES = ("symmetric", "diagonal", "noisy-symmetric", "noisy-diagonal")
WIDEN_IO = {"bert-headless": ("last_hidden_state", "pooler_output")}
TRIPLED = {"opt-mini", "pythia-mini", "olmo-mini", "gemma", "bart", "vit"}
"""Models that are widened 3x as well."""

QUICK = {
    "opt-mini",
    "olmo-mini",
    "gemma2",
    "llama-gqa",
    "bert-headless",
    "t5",
    "clip",
    "mixtral",
    "dinov2-swiglu",
    "resnet-bottleneck",
}
"""Models that every run of the tests widens: each has something that no other of them has."""

_TOWER = {"layers": 2, "attention_heads": 5, "ffn_dim": 52}

UNTIED = {"olmo-mini"}
"""Models whose final norm has no weight, so that nothing absorbs the factor of a tied embedding."""


@dataclass(frozen=True)
class Model:
    """A model as a checkpoint, whose traces are kept, and what it computes."""

    name: str
    checkpoint: Checkpoint
    runs: SourceRuns

    def planned(self, factor: int, kind: str) -> Plan:
        return plan(self.checkpoint, Request(factor, WIDEN_IO.get(self.name, ()), strategy(kind), 1))


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    checkpoint = open_checkpoint(saved(request.param, tmp_path_factory.mktemp(request.param) / "source"))
    return Model(request.param, checkpoint, run_source(checkpoint))


def assert_the_stock_class_computes_the_same(model: Model, clone_plan: Plan, out: Path) -> None:
    write_checkpoint(clone_plan, out, verify=False)
    report = verify_checkpoints(clone_plan, out, model.runs)
    assert report.ok, str(report)


@pytest.mark.parametrize("kind", slow_but(("symmetric", "noisy-diagonal"), STRATEGIES))
@pytest.mark.parametrize("model", slow_but(QUICK, MODELS), indirect=True)
def test_the_stock_class_loads_the_clone_and_computes_the_same(model: Model, kind: str, tmp_path: Path) -> None:
    """No key is amiss, and outputs are within the noise floor."""
    clone_plan = model.planned(2, kind)
    assert ("tie_word_embeddings" in clone_plan.changes) is (model.name in UNTIED)
    assert_the_stock_class_computes_the_same(model, clone_plan, tmp_path / "out")


@pytest.mark.parametrize("model", slow_but(("bart", "gemma", "olmo-mini"), sorted(TRIPLED)), indirect=True)
def test_the_stock_class_loads_a_clone_three_times_as_wide(model: Model, tmp_path: Path) -> None:
    assert_the_stock_class_computes_the_same(model, model.planned(3, "symmetric"), tmp_path / "out")


@pytest.mark.parametrize("model", slow_but(QUICK, MODELS), indirect=True)
def test_a_clone_that_its_class_saves_again_is_the_same_to_the_bit(model: Model, tmp_path: Path) -> None:
    out, again = tmp_path / "out", tmp_path / "again"
    write_checkpoint(model.planned(2, "noisy-diagonal"), out, verify=False)
    first, problems = loaded(out)
    assert not problems and not first.training
    first.save_pretrained(again)
    second, problems = loaded(again)
    assert not problems
    inputs = model.checkpoint.example_inputs
    ours, theirs = outputs(first, inputs), outputs(second, inputs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_dtype_may_be_called_by_its_name(tmp_path: Path) -> None:
    source = saved("llama-tied", tmp_path / "source")
    clone_checkpoint(source, tmp_path / "out", dtype="bfloat16", verify=False)
    assert {tensor.dtype for tensor in open_weights(tmp_path / "out").values()} == {torch.bfloat16}
    for name in ("int8", "bfloat15"):
        with pytest.raises(GraphcloneError, match=f"dtype is '{name}'; give that of floats"):
            clone_checkpoint(source, tmp_path / name, dtype=name, verify=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gemma", "opt"])
def test_the_dtype_is_kept(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Constants too are those of the dtype: the square root of a width is another number in half precision."""
    source = saved(name, tmp_path / "source", dtype)
    written = clone_checkpoint(source, tmp_path / "out")
    assert written.verification is not None and written.verification.ok
    assert {tensor.dtype for tensor in open_weights(tmp_path / "out").values()} == {dtype}


@pytest.mark.parametrize("kind", ["symmetric", "noisy-diagonal"])
def test_every_tensor_is_what_the_kernel_makes(kind: str, tmp_path: Path) -> None:
    """Written in blocks of rows or in one piece, in one file or in many."""
    source = saved("gpt2", tmp_path / "source")
    made = planned(source, 2, kind, max_shard_size=40_000)
    write_checkpoint(made, tmp_path / kind, verify=False)
    found = open_weights(tmp_path / kind)
    assert len({tensor.file for tensor in found.values()}) > 3  # type: ignore[union-attr]
    for entry in entries(made):
        assert torch.equal(found[entry.name].read(), widen(entry.source.read(), entry.recipe)), entry.name


@pytest.mark.parametrize("size", [30_000, 60_000, 100_000, 1_000_000])
def test_files_are_within_the_limit_and_not_many_more_than_it_takes(size: int, tmp_path: Path) -> None:
    tensors = entries(planned(saved("gpt2", tmp_path / "source")))
    files = [sum(entry.nbytes for entry in shard.entries) for shard in sharded(tensors, size)]
    largest = max(entry.nbytes for entry in tensors)
    assert [entry for shard in sharded(tensors, size) for entry in shard.entries] == tensors
    assert max(files) <= max(size, largest)
    assert len(files) <= 1 + 2 * sum(files) // size


@pytest.mark.parametrize("size", [1, 700, 4096])
def test_blocks_of_any_size_give_the_same_bytes(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = planned(saved("llama-tied", tmp_path / "source"), 3)
    write_checkpoint(made, tmp_path / "whole", verify=False)
    monkeypatch.setattr("graphclone.runtime.shards.BLOCK", size)
    write_checkpoint(made, tmp_path / "blocks", verify=False)
    assert contents(tmp_path / "whole") == contents(tmp_path / "blocks")


def test_a_system_that_takes_little_at_once_gets_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planned(saved("gpt2", tmp_path / "source"), kind="noisy-symmetric")
    write_checkpoint(made, tmp_path / "at once", verify=False)
    pwrite = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, view, offset: pwrite(file, view[:1001], offset))
    write_checkpoint(made, tmp_path / "in parts", verify=False)
    monkeypatch.delattr("os.pwrite")
    write_checkpoint(made, tmp_path / "in turn", verify=False)
    assert contents(tmp_path / "in parts") == contents(tmp_path / "at once")
    assert contents(tmp_path / "in turn") == contents(tmp_path / "at once")


def test_a_model_that_is_fed_with_nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can tell from a configuration what the values of a series are: the user gives some."""
    sizes = {"d_model": 40, "ffn_dim": 52, "num_hidden_layers": 2, "num_attention_heads": 5}
    lengths = {
        "context_length": 24,
        "patch_length": 4,
        "patch_stride": 4,
        "prediction_length": 6,
        "num_input_channels": 3,
    }
    source, out = tmp_path / "source", tmp_path / "out"
    config = transformers.PatchTSTConfig(**sizes, **lengths)
    randomise(transformers.PatchTSTForPrediction(config)).save_pretrained(source)
    monkeypatch.setattr(transformers.PatchTSTForPrediction.forward, "__doc__", None)
    with pytest.raises(GraphcloneError, match=r"not known what to feed as past_values; .*inputs=\{"):
        clone_checkpoint(source, out)
    inputs = {"past_values": torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(0))}
    written = clone_checkpoint(source, out, inputs=inputs, widen=2)
    assert written.verification is not None and written.verification.ok


def test_what_lies_beside_the_weights_is_copied_and_the_card_tells_all(tmp_path: Path) -> None:
    source = saved("olmo-mini", tmp_path / "source")
    (source / "tokenizer.json").write_text("{}")
    (source / "notes.py").write_text("1 / 0")
    (source / "README.md").write_text("---\nlicense: mit\n---\nsource card\n")
    (source / "onnx").mkdir()
    written = clone_checkpoint(source, tmp_path / "out", command="graphclone clone ..", strategy="noisy-symmetric")
    out = tmp_path / "out"
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert {path.name for path in out.iterdir()} == names
    card = (out / "README.md").read_text()
    for part in (
        "license: mit",
        "graphclone clone ..",
        "noisy-symmetric at 10 dB, seed 0",
        "| hidden | 80 | 160 | 1 |",
    ):
        assert part in card
    assert "from_pretrained ok" in card and "tie_word_embeddings is turned off" in card
    assert "source card" not in card and "\n# source, wider\n" in card
    assert "not copied: onnx" in written.notes


def test_the_configuration_changes_where_it_must_and_nowhere_else(tmp_path: Path) -> None:
    source = saved("llama-gqa", tmp_path / "source")
    raw = json.loads((source / "config.json").read_text())
    del raw["head_dim"]
    (source / "config.json").write_text(json.dumps({**raw, "my_note": "kept"}))
    clone_checkpoint(source, tmp_path / "out", verify=False)
    wide = json.loads((tmp_path / "out" / "config.json").read_text())
    widths = {"hidden_size": 240, "intermediate_size": 176, "num_attention_heads": 30, "num_key_value_heads": 10}
    assert wide == {**raw, **widths, "my_note": "kept"}


def test_hidden_and_feed_forward_may_grow_by_factors_of_their_own(tmp_path: Path) -> None:
    """The paper's OLMo run doubled the hidden dim and kept the feed-forward one."""
    source = saved("olmo-untied", tmp_path / "source")
    out = tmp_path / "out"
    written = clone_checkpoint(source, out, widen={"hidden": 2, "layers.*.self_attn.heads": 2})
    assert written.verification is not None and written.verification.ok
    assert set(written.plan.changes) == {"hidden_size", "num_attention_heads", "num_key_value_heads"}


def test_a_width_that_the_configuration_leaves_to_its_default_is_made_explicit(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=61, n_embd=40, n_head=5, n_layer=2, n_positions=64)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "source")
    out = tmp_path / "out"
    written = clone_checkpoint(tmp_path / "source", out, widen={"hidden": 2, "h.*.attn.heads": 2})
    assert written.plan.changes["n_inner"] == (None, 160)
    assert written.verification is not None and written.verification.ok


# Refusals


def test_a_headless_encoder_needs_its_outputs_to_grow(tmp_path: Path) -> None:
    source = saved("bert-headless", tmp_path / "source")
    for named in ((), ("last_hidden_state",)):
        with pytest.raises(GraphcloneError, match=r"widen_io=\['last_hidden_state', 'pooler_output'\] lets them grow"):
            clone_checkpoint(source, tmp_path / "out", widen_io=named)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_inputs_of_a_checkpoint_do_not_grow(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(image_size=8, patch_size=4, **sizes)
    transformers.ViTModel(config).save_pretrained(tmp_path / "source")
    for named in ("*", "pixel_values"):
        with pytest.raises(GraphcloneError, match=r"pixel_values would grow, .* widen_io=.*lets the outputs"):
            clone_checkpoint(tmp_path / "source", tmp_path / "out", widen_io=(named,))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("widen", "message"),
    [
        (
            {"layers.*.self_attn.v_head_dim": 2},
            r"axis 1 of model.layers.0.self_attn.o_proj.weight would be 80 .*\.onnx",
        ),
        ({"hidden": 2}, "axis 1 of model.embed_tokens.weight would be 80 instead of 40"),
    ],
)
def test_a_growth_that_no_configuration_expresses_is_refused(widen: Any, message: str, tmp_path: Path) -> None:
    source = saved("olmo-untied", tmp_path / "source")
    with pytest.raises(GraphcloneError, match=message):
        clone_checkpoint(source, tmp_path / "out", widen=widen)


# The command line


def test_the_command_line_writes_a_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = saved("gpt2", tmp_path / "source"), tmp_path / "out"
    capfd.readouterr()
    argv = ["clone", str(source), "-o", str(out), "--widen", "2", "--max-shard-size", "100KB", "--json"]
    assert main(argv) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["config"] == {"n_embd": [40, 80], "n_head": [5, 10], "n_inner": [52, 104]}
    assert shown["verification"]["ok"] and len(shown["shards"]) > 3
    assert "--widen 2 --strategy symmetric --seed 0" in (out / "README.md").read_text()
    assert main([*argv[:4], "--no-verify"]) == 2
    assert "exists already; --force overwrites it" in capfd.readouterr().err
    assert main([*argv[:4], "--no-verify", "--force"]) == 0
    assert "not verified" in capfd.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


def test_a_checkpoint_is_also_a_model_for_other_outputs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = saved("gpt2", tmp_path / "source")
    assert main(["inspect", str(source)]) == 0
    assert "h.*.attn.heads" in capfd.readouterr().out
    out = tmp_path / "wide.safetensors"
    assert main(["clone", str(source), "-o", str(out), "--widen", "h.*.mlp=2", "--no-verify"]) == 0
    assert out.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--passes", "canonicalize"], "--passes is not for checkpoints, whose code stays as it is"),
        (["--untie"], "--untie is not for checkpoints"),
        (["--resume"], "there is nothing to resume; leave out --resume"),
        (["--max-shard-size", "much"], "'much' is no size; write 500MB or 5GB"),
        (["--widen", "nothing=2"], "no dim is called 'nothing'"),
    ],
)
def test_options_refused(argv: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = saved("gpt2", tmp_path / "source")
    capfd.readouterr()
    try:
        code: Any = main(["clone", str(source), "-o", str(tmp_path / "out"), *argv])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capfd.readouterr().err


def test_a_hub_id_without_a_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["clone", "some/model", "-o", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert error.startswith("graphclone: some/model: no such folder, and the hub gives none")
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", [["--resume"], ["--verify", "sample"]])
def test_options_of_checkpoints_mean_nothing_elsewhere(
    option: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["clone", "opt-mini", "-o", str(tmp_path / "wide.onnx"), *option]) == 2
    assert f"{option[0]} is for Hugging Face checkpoints" in capfd.readouterr().err


def test_the_card_of_a_deeper_model_does_not_call_it_wider(tmp_path: Path) -> None:
    source = saved("llama-gqa", tmp_path / "source")
    clone_checkpoint(source, tmp_path / "out", depth=3, verify=False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "\n# source, deeper\n" in card and "| dim |" not in card
    assert "- new block: model.layers." in card


def test_a_verification_draws_as_many_input_sets_as_are_asked_for(tmp_path: Path) -> None:
    made = gc.clone(saved("llama-gqa", tmp_path / "source"), widen=2)
    assert [len(made.verify(sets=sets).inputs) for sets in (1, 2)] == [1, 2]
    for option in ({"provider": "cuda"}, {"tensors": {}}, {"onnx": tmp_path / "source" / "config.json"}):
        (name,) = option
        with pytest.raises(GraphcloneError, match=f"verify: {name}= is not for checkpoints"):
            made.verify(**option)
