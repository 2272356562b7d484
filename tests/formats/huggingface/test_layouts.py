"""The layouts in which people have models: which are read, what is said of the others, and what a clone takes along."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.repocard import metadata_load
from safetensors.torch import load_file, save_file

from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.sentence_modules import Repeats
from graphclone.formats.huggingface.weights import open_weights
from graphclone.formats.huggingface.writer import clone_checkpoint
from tests.support.checkpoints import contents, copied, saved


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("llama-gqa", tmp_path_factory.mktemp("llama") / "source")


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    """A source to be changed."""
    return copied(llama, tmp_path / "source")


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that is refused in one line; the line."""

    def run(*argv: object, code: int = 2) -> str:
        capfd.readouterr()
        assert main([str(item) for item in argv]) == code
        error = capfd.readouterr().err
        assert error.count("\n") == 1
        return error

    return run


# Other layouts


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("m.gguf", r"m: a GGUF file, quantised for inference \(m.gguf\); .*gguf_file"),
        ("adapter_config.json", "m: a PEFT adapter.*merge_and_unload"),
        ("__0_0.distcp", "m: a distributed checkpoint of torch.*dcp_to_torch_save"),
        ("model_index.json", "m: a diffusers pipeline.*subfolder=.*graphclone.clone"),
        ("latest_checkpointed_iteration.txt", "m: a Megatron checkpoint.*convert it"),
        ("zero_to_fp32.py", "m: a DeepSpeed checkpoint.*zero_to_fp32.py"),
        ("consolidated.safetensors", "m: in the layout of its makers.*convert it"),
        ("model.fp16.safetensors", r"m: weights of a variant.*\(model.fp16.safetensors\); .*variant=.*save_pretrained"),
        ("tf_model.h5", "m: weights of TensorFlow or Flax.*save_pretrained"),
        ("inner/config.json", "m: no config.json, but there is one in inner; give that folder"),
        ("notes.txt", "m: no config.json, so it is no Hugging Face checkpoint"),
        (None, "m: is empty"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_named(
    file: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    """By every command, and from Python; the output is not blamed."""
    import re

    monkeypatch.chdir(tmp_path)
    folder = Path("m")
    folder.mkdir()
    if file is not None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("{}")
    commands = (("clone", "m", "-o", "out"), ("inspect", "m"), ("rules", "--missing", "m"))
    errors = [refused(*argv) for argv in commands]
    assert [error for error in errors if not re.match(f"graphclone: {message}", error)] == []
    with pytest.raises(GraphcloneError, match=message):
        clone_checkpoint("m", "out")


@pytest.mark.parametrize("file", ["consolidated.safetensors", "tf_model.h5", "m.gguf", "model.fp16.safetensors"])
def test_a_configuration_beside_weights_of_others(file: str, copy: Path, tmp_path: Path, refused: Refused) -> None:
    (copy / "model.safetensors").rename(copy / file)
    assert f"({file})" in refused("clone", copy, "-o", tmp_path / "out")


def test_a_file_is_no_folder(copy: Path, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "m.gguf").write_text("")
    assert "m.gguf: a GGUF file, quantised for inference; load it" in refused("clone", tmp_path / "m.gguf", "-o", "out")
    assert f"give its folder, {copy}" in refused("clone", copy / "model.safetensors", "-o", "out")


@pytest.mark.parametrize(("prefix", "inner"), [("module.", "model.module"), ("_orig_mod.", "model._orig_mod")])
def test_names_under_a_wrapper(prefix: str, inner: str, copy: Path, tmp_path: Path, refused: Refused) -> None:
    path = copy / "model.safetensors"
    save_file({f"{prefix}{name}": tensor for name, tensor in load_file(path).items()}, path)
    error = refused("clone", copy, "-o", tmp_path / "out")
    assert f"its weights are named {prefix}.." in error and f"save {inner}" in error


@pytest.mark.parametrize("names", [None, ["LLaMAForCausalLM"]])
def test_what_auto_model_would_load(names: Any, copy: Path, tmp_path: Path) -> None:
    """Without the name of a class, or with one that is no more, the weights say which it is."""
    edit(copy, architectures=names, quantization_config=None)
    assert open_checkpoint(copy).cls is transformers.LlamaForCausalLM
    clone_checkpoint(copy, tmp_path / "out", verify=False)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_a_headless_model_without_a_name_is_headless(copy: Path) -> None:
    path = copy / "model.safetensors"
    body = {n.removeprefix("model."): t for n, t in load_file(path).items() if n.startswith("model.")}
    save_file(body, path)
    edit(copy, architectures=None)
    assert open_checkpoint(copy).cls is transformers.LlamaModel


# Messages


def test_a_table_that_no_class_repeats_is_named_at_once(
    llama: Path, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused("clone", llama, "-o", tmp_path / "out", "--widen", "model.layers.head_dim=2")
    assert "model.rotary_emb.inv_freq would be repeated, but the code computes it anew" in error
    assert main(["inspect", str(llama)]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "model.layers.head_dim grows in a checkpoint only where its class finds the numbers of" in shown


def test_experts_whose_rows_no_kernel_takes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 71}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
    experts = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 18}
    config = transformers.Qwen3MoeConfig(**sizes, **heads, **experts)
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(tmp_path / "source")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "out")
    assert written.verification is not None and written.verification.ok


def test_python_is_as_silent_as_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = saved("mixtral", tmp_path / "source")
    capfd.readouterr()
    before = logging.root.manager.disable
    clone_checkpoint(source, tmp_path / "out", verify=False)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before


# What a clone takes along


def test_a_variant_beside_the_weights_is_not_read(copy: Path, tmp_path: Path) -> None:
    (copy / "model.fp16.safetensors").write_bytes(b"the same weights, rounded")
    clone_checkpoint(copy, tmp_path / "out", verify=False)
    assert "model.fp16.safetensors" not in contents(tmp_path / "out")


STATES = ("last_hidden_state", "pooler_output")


def encoder(folder: Path, *modules: tuple[str, dict[str, Any]]) -> Path:
    """A sentence encoder of states 40 wide, with the modules of these classes and configurations behind it."""
    source = saved("bert-headless", folder / "source")
    listed = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, config) in enumerate(modules, 1):
        path = f"{number}_{kind}"
        (source / path).mkdir()
        (source / path / "config.json").write_text(json.dumps(config))
        listed.append({"idx": number, "path": path, "type": f"sentence_transformers.models.{kind}"})
    (source / "modules.json").write_text(json.dumps(listed))
    return source


def layer(folder: Path, outputs: int, inputs: int, name: str = "linear") -> torch.nn.Linear:
    """A dense layer, its weights written to a folder."""
    torch.manual_seed(0)
    made = torch.nn.Linear(inputs, outputs)
    save_file({f"{name}.{key}": tensor for key, tensor in made.state_dict().items()}, folder / "model.safetensors")
    return made


def stored(folder: Path) -> tuple[dict[str, Any], torch.nn.Linear]:
    """The configuration and the layer in the folder of a dense module."""
    tensors = load_file(folder / "model.safetensors")
    made = torch.nn.Linear(*reversed(tensors["linear.weight"].shape))
    made.load_state_dict({name.removeprefix("linear."): tensor for name, tensor in tensors.items()})
    return json.loads((folder / "config.json").read_text()), made


def states_of(folder: Path) -> torch.Tensor:
    """What the model in a folder makes of a sentence."""
    states: torch.Tensor = (
        transformers.AutoModel.from_pretrained(folder).eval()(torch.arange(9)[None]).last_hidden_state
    )
    return states


MEAN = {"word_embedding_dimension": 40, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def test_a_sentence_encoder_stays_whole(tmp_path: Path) -> None:
    source, out = encoder(tmp_path, ("Pooling", MEAN), ("Normalize", {})), tmp_path / "out"
    written = clone_checkpoint(source, out, widen_io=STATES, verify=False)
    assert json.loads((out / "1_Pooling" / "config.json").read_text()) == MEAN | {"word_embedding_dimension": 80}
    assert (out / "modules.json").read_bytes() == (source / "modules.json").read_bytes()
    assert (out / "2_Normalize").is_dir()
    assert not any(note.startswith("not copied") for note in written.notes)


@pytest.mark.parametrize("norm", [False, True])
def test_a_dense_layer_behind_states_gives_what_it_gave(norm: bool, tmp_path: Path) -> None:
    """Of the states pooled in two ways, normed or not; a second layer stays as it is."""
    dense = {"in_features": 80, "out_features": 7, "bias": True, "activation_function": "torch.nn.Identity"}
    modules = [("Pooling", {"embedding_dimension": 40, "pooling_mode": ["cls", "mean"]})]
    modules += [("Normalize", {})] * norm + [("Dense", dense), ("Dense", dense | {"in_features": 7})]
    source, out = encoder(tmp_path, *modules), tmp_path / "out"
    first, second = (f"{2 + norm + place}_Dense" for place in range(2))
    small = layer(source / first, 7, 80)
    layer(source / second, 7, 7)
    written = clone_checkpoint(source, out, widen_io=STATES, verify=False)
    assert not any(note.startswith("not copied") for note in written.notes)
    config, wide = stored(out / first)
    assert config == dense | {"in_features": 160}
    assert contents(out / second) == contents(source / second)
    states = [states_of(folder) for folder in (source, out)]
    pooled = [torch.cat([state[:, 0], state.mean(1)], -1) for state in states]
    if norm:
        pooled = [torch.nn.functional.normalize(vector) for vector in pooled]
    torch.testing.assert_close(wide(pooled[1]), small(pooled[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "config", "reason"),
    [
        ("LayerNorm", {"dimension": 40}, "1_LayerNorm: nothing is known of a LayerNorm that takes wider states"),
        (
            "Pooling",
            {"word_embedding_dimension": 40, "pooling_mode": 2},
            "1_Pooling/config.json is not that of a Pooling",
        ),
        ("Pooling", {"word_embedding_dimension": 41}, "1_Pooling takes a token_embeddings of 41"),
        ("Dense", {"in_features": 40, "out_features": 7}, "1_Dense takes a sentence_embedding of 40"),
    ],
)
def test_modules_that_cannot_follow_stay_behind(
    module: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source, out = encoder(tmp_path, (module, config)), tmp_path / "out"
    written = clone_checkpoint(source, out, widen_io=STATES, verify=False)
    (note,) = (note for note in written.notes if note.startswith("not copied"))
    assert note.startswith(f"not copied: 1_{module}, modules.json: {reason}")
    assert not {"modules.json", f"1_{module}"} & {path.name for path in out.iterdir()}


def test_columns_weigh_copies_that_are_not_equal_in_number() -> None:
    states = Repeats(3, np.array([0, 1, 2, 0, 1]))
    assert not states.even
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    pooled = states.times(2)
    torch.testing.assert_close(x[:, pooled.index] @ pooled.columns(weight).T, x @ weight.T)


def test_states_that_the_class_does_not_return_are_not_known(llama: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "1_Pooling").mkdir()
    (copy / "modules.json").write_text('[{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]')
    written = clone_checkpoint(copy, tmp_path / "out", verify=False)
    reason = "its class does not return the states; widen what AutoModel saves, with last_hidden_state"
    assert f"not copied: 1_Pooling, modules.json: {reason}" in written.notes


def test_files_of_weights_that_stay_behind_stay_behind(copy: Path, tmp_path: Path) -> None:
    gone = ("adapter_config.json", "trainer_state.json", "params.json", "tf_model.h5.index.json")
    for name in (*gone, "optimizer.pt", "vocab.json"):
        (copy / name).write_text("{}")
    os.mkfifo(copy / "pipe")
    written = clone_checkpoint(copy, tmp_path / "out", verify=False)
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors", "vocab.json"}
    assert {*contents(tmp_path / "out")} == names
    (note,) = (note for note in written.notes if note.startswith("not copied"))
    assert all(name in note for name in (*gone, "pipe"))


def test_a_model_with_an_adapter_beside_it_is_refused(copy: Path, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (copy / name).write_text("{}")
    with pytest.raises(GraphcloneError, match="a PEFT adapter lies beside the model; merge the two"):
        clone_checkpoint(copy, tmp_path / "out")


def test_the_card_is_ready_for_the_hub(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (
        "license:\n- mit\n- apache-2.0\nlanguage: en\npipeline_tag: text-generation\ndatasets:\n- c4\nbase_model: a/b\n"
    )
    (copy / "README.md").write_text(f"---\n{card}model-index: []\n---\n# Other\n")
    monkeypatch.chdir(copy)
    clone_checkpoint(".", tmp_path / "out", verify=False)
    assert metadata_load(tmp_path / "out" / "README.md") == {
        "base_model": "a/b",
        "base_model_relation": "finetune",
        "library_name": "transformers",
        "license": ["mit", "apache-2.0"],
        "language": "en",
        "pipeline_tag": "text-generation",
        "datasets": ["c4"],
        "tags": ["graphclone", "hypercloning"],
    }
    assert "\n# source, wider\n" in (tmp_path / "out" / "README.md").read_text()


def test_a_card_that_says_nothing(copy: Path, tmp_path: Path) -> None:
    """The last name that the configuration had is where it comes from; a card that is no card is none."""
    (copy / "README.md").write_text("---\n- : [\n---\n")
    edit(copy, _name_or_path="some/model")
    clone_checkpoint(copy, tmp_path / "out", verify=False)
    fields = metadata_load(tmp_path / "out" / "README.md") or {}
    assert (fields["base_model"], fields["base_model_relation"]) == ("some/model", "finetune")


def test_the_cache_of_the_hub_has_the_name_in_its_path(copy: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--some--model" / "snapshots" / "c0ffee"
    snapshot.parent.mkdir(parents=True)
    copy.rename(snapshot)
    clone_checkpoint(snapshot, tmp_path / "out", verify=False)
    assert (metadata_load(tmp_path / "out" / "README.md") or {})["base_model"] == "some/model"
    assert "\n# model, wider\n" in (tmp_path / "out" / "README.md").read_text()


# Options


def test_a_dry_run_shows_all_and_writes_nothing(
    llama: Path, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(llama)
    assert main(["clone", str(llama), "-o", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["config"]["hidden_size"] and shown["parameters"]["clone"] > shown["parameters"]["source"]
    assert main(["clone", str(llama), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "nothing was written" in capfd.readouterr().out
    assert main(["clone", "opt-mini", "-o", str(tmp_path / "out.onnx"), "--dry-run"]) == 0
    assert "no dim is called" in refused("clone", llama, "-o", tmp_path / "out", "--dry-run", "--widen", "nothing=2")
    assert list(tmp_path.iterdir()) == [] and contents(llama) == before


@pytest.mark.parametrize(("stored", "wanted"), [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_another_dtype(stored: str, wanted: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = saved("llama-gqa", tmp_path / "source", getattr(torch, stored)), tmp_path / "out"
    assert main(["clone", str(source), "-o", str(out), "--dtype", wanted]) == 0
    assert json.loads((out / "config.json").read_text())["dtype"] == wanted
    assert {tensor.dtype for tensor in open_weights(out).values()} == {getattr(torch, wanted)}
    name = "model.norm.weight"
    expected = load_file(source / "model.safetensors")[name].to(getattr(torch, wanted)).repeat(2)
    assert torch.equal(load_file(out / "model.safetensors")[name] / expected, torch.ones_like(expected))


def test_two_checkpoints_are_compared(
    copy: Path, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    clone_checkpoint(copy, out, verify=False)
    assert main(["verify", str(copy), str(out), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ok"]
    tensors = load_file(out / "model.safetensors")
    tensors["model.norm.weight"] *= 1.01
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    assert "not equivalent: logits" in refused("verify", copy, out, code=1)
    (tmp_path / "a.onnx").touch()
    assert "a folder; verify compares two .onnx files, or two folders" in refused("verify", copy, tmp_path / "a.onnx")
