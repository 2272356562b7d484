"""Checkpoints to widen: models of the zoo and others as folders, and what the tests ask of a clone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from graphclone.algebra.strategies import strategy
from graphclone.formats.huggingface.plan import MAX_SHARD_SIZE, Plan, plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.models.randomise import randomise
from graphclone.pipeline.state import Request
from graphclone.runtime.shards import Bundle, Entry
from tests.support.zoo import ZOO

transformers.logging.disable_progress_bar()

_SMALL = {"vocab_size": 61, "max_position_embeddings": 64}
_ENCODER = {"hidden_size": 40, "intermediate_size": 52, "num_hidden_layers": 2, "num_attention_heads": 5}
_TEXT = {**_SMALL, **_ENCODER, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_VISION = {
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "image_size": 24,
    "patch_size": 4,
}


def _seq2seq() -> nn.Module:
    sizes = {"d_model": 40, "encoder_ffn_dim": 52, "decoder_ffn_dim": 56}
    heads = {"encoder_attention_heads": 5, "decoder_attention_heads": 5}
    config = transformers.BartConfig(**_SMALL, **sizes, **heads, encoder_layers=2, decoder_layers=2)
    return transformers.BartForConditionalGeneration(config)


def _two_towers() -> nn.Module:
    config = transformers.CLIPConfig(projection_dim=24, text_config=_TEXT, vision_config=_VISION)
    return transformers.CLIPModel(config)


def _experts() -> nn.Module:
    config = transformers.MixtralConfig(**_TEXT, num_key_value_heads=5, num_local_experts=3, num_experts_per_tok=2)
    return transformers.MixtralForCausalLM(config)


def _gated_vision() -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(**_VISION, use_swiglu_ffn=True, num_labels=5)
    return transformers.Dinov2WithRegistersForImageClassification(config)


def _headless() -> nn.Module:
    return transformers.BertModel(transformers.BertConfig(**_SMALL, **_ENCODER))


MODELS = {
    **{name: source for name, source in ZOO.items() if source.kwargs},
    "bart": _seq2seq,
    "clip": _two_towers,
    "bert-headless": _headless,
    "mixtral": _experts,
    "dinov2-swiglu": _gated_vision,
}
"""Models of transformers by name."""


def saved(name: str, folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A model as ``save_pretrained`` leaves it; the folder it is in."""
    made = MODELS[name]
    module: Any = made.build().module if hasattr(made, "build") else randomise(made())
    module._forward_hooks.clear()
    module.to(dtype).save_pretrained(folder, **options)
    return folder


def planned(
    folder: Path,
    widen: int | Mapping[str, int] = 2,
    kind: str = "symmetric",
    max_shard_size: int = MAX_SHARD_SIZE,
    **options: Any,
) -> Plan:
    """The plan of a clone."""
    request = Request(widen, strategy=strategy(kind), seed=1, **options)
    return plan(open_checkpoint(folder), request, max_shard_size=max_shard_size)


def entries(plan: Plan) -> list[Entry | Bundle]:
    """The tensors that a plan writes, in their order."""
    return [entry for shard in plan.shards for entry in shard.entries]


def loaded(folder: Path, cls: Any = None) -> tuple[Any, dict[str, Any]]:
    """The model in a folder, by the stock class, and what was wrong with its weights."""
    if cls is None:
        name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
        cls = getattr(transformers, name)
    model, info = cls.from_pretrained(folder, output_loading_info=True)
    return model, {key: value for key, value in info.items() if value}


def outputs(model: Any, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that a model returns."""
    with torch.no_grad():
        found = model(**inputs)
    return {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}


def copied(source: Path, folder: Path) -> Path:
    """A checkpoint once more, to be changed or damaged; the folder it is in."""
    folder.mkdir()
    for name, data in contents(source).items():
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
