"""Checkpoints whose tensors a class merges or splits while loading: clones are stored as their sources were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.conversion import ConvertedTensor, loaded, unloaded
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from graphclone.runtime.shards import Bundle
from tests.support.checkpoints import contents, entries, planned, saved

_TEXT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}


def _latent_attention() -> Any:
    ranks = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {**_EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1, "num_key_value_heads": 4}
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**_TEXT, **experts, **ranks))


def _sinks() -> Any:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2, "head_dim": 8}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**_TEXT, **experts))


def _cache_by_default() -> Any:
    experts = {"num_local_experts": 4, "num_key_value_heads": 2}
    return transformers.GraniteMoeForCausalLM(transformers.GraniteMoeConfig(**_TEXT, **experts))


def _hybrid() -> Any:
    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    experts = {"moe_intermediate_size": 24, "num_experts_per_tok": 2, "num_experts": 4, "num_key_value_heads": 2}
    config = transformers.Qwen3NextConfig(
        **_TEXT,
        **linear,
        **experts,
        linear_value_head_dim=8,
        head_dim=8,
        shared_expert_intermediate_size=24,
        layer_types=["linear_attention", "full_attention"],
    )
    return transformers.Qwen3NextForCausalLM(config)


SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (_latent_attention, _cache_by_default, _hybrid)]


@pytest.mark.parametrize("make", [_sinks, *SLOW])
def test_models_with_experts_are_widened_and_verified(make: Callable[[], Any], tmp_path: Path) -> None:
    model = randomise(make().eval())
    model.save_pretrained(tmp_path / "source")
    made = clone_checkpoint(tmp_path / "source", tmp_path / "out")
    assert made.verification is not None
    assert made.verification.ok
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "out"))
    assert before.keys() == after.keys()
    assert sum(t.numel() for t in after.values()) > 3 * sum(t.numel() for t in before.values())


@pytest.mark.parametrize("name", ["mixtral", "dinov2-swiglu"])
def test_the_clone_is_stored_as_its_source(name: str, tmp_path: Path) -> None:
    source = saved(name, tmp_path / "source")
    clone_checkpoint(source, tmp_path / "out", verify=False)
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert {key: t.dtype for key, t in before.items()} == {key: t.dtype for key, t in after.items()}
    model = open_checkpoint(source).on_meta(open_checkpoint(source).config)
    assert any(key not in model.state_dict() for key in before), "nothing is converted here"


@pytest.mark.parametrize("name", ["mixtral", "dinov2-swiglu"])
def test_conversions_there_and_back_give_the_same_bits(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(name, tmp_path / "source"))
    module = checkpoint.on_meta(checkpoint.config)
    tensors = loaded(module, checkpoint.weights)
    assert tensors.keys() == module.state_dict().keys()
    assert any(isinstance(tensor, ConvertedTensor) for tensor in tensors.values())
    back = unloaded(module, {key: tensor.read() for key, tensor in tensors.items()})
    assert back.keys() == checkpoint.weights.keys()
    assert all(torch.equal(back[key], tensor.read()) for key, tensor in checkpoint.weights.items())


def test_experts_are_stacked_by_number(tmp_path: Path) -> None:
    """The tenth comes after the ninth, though its name comes before that of the second."""
    experts = {"num_local_experts": 12, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    model = randomise(transformers.MixtralForCausalLM(transformers.MixtralConfig(**_TEXT, **experts)).eval())
    model.save_pretrained(tmp_path / "source")
    checkpoint = open_checkpoint(tmp_path / "source")
    assert any("experts.11." in name for name in checkpoint.weights)
    tensors = loaded(checkpoint.on_meta(checkpoint.config), checkpoint.weights)
    assert all(torch.equal(tensors[name].read(), tensor) for name, tensor in model.state_dict().items())


def test_several_files_and_threads_give_the_same_tensors(tmp_path: Path) -> None:
    plan = planned(saved("mixtral", tmp_path / "source"), kind="noisy-diagonal")
    assert any(isinstance(entry, Bundle) for entry in entries(plan))
    for size, name in ((10_000_000, "one"), (20_000, "many")):
        clone_checkpoint(
            tmp_path / "source", tmp_path / name, strategy="noisy-diagonal", max_shard_size=size, verify=False
        )
    one = load_file(tmp_path / "one" / "model.safetensors")
    parts = [load_file(path) for path in (tmp_path / "many").glob("*.safetensors")]
    many = {key: tensor for part in parts for key, tensor in part.items()}
    assert len(parts) > 2
    assert one.keys() == many.keys()
    assert all(torch.equal(one[key], many[key]) for key in one)


def test_an_expert_that_is_missing_is_refused(tmp_path: Path) -> None:
    source = saved("mixtral", tmp_path / "source")
    path = source / "model.safetensors"
    tensors = load_file(path)
    del tensors[next(name for name in tensors if "experts.1." in name)]
    save_file(tensors, path, {"format": "pt"})
    before = contents(source)
    with pytest.raises(GraphcloneError, match="gate_up_proj") as found:
        clone_checkpoint(source, tmp_path / "out")
    assert "\n" not in str(found.value)
    assert contents(source) == before
    assert not (tmp_path / "out").exists()


def test_nans_in_an_expert_are_reported_and_kept(tmp_path: Path) -> None:
    source = saved("mixtral", tmp_path / "source")
    path = source / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "experts.1." in name)
    tensors[name][0, 0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    made = clone_checkpoint(source, tmp_path / "out", verify=False)
    assert any("holds NaNs in the source" in note for note in made.notes)
    assert load_file(tmp_path / "out" / "model.safetensors")[name].isnan().any()
