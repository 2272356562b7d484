"""Growths by other numbers than two, of models that no published size follows: one of every way to wire a network.

Each is taken by ``python -m tests.ladders --others`` by every strategy, and by the tests by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models import Built
from graphclone.models.huggingface import token_ids
from graphclone.models.randomise import randomise
from graphclone.verification.checks import Report
from tests.support.onnx_zoo import GROUPS, model_file
from tests.support.zoo import ZOO, logits_alone

_SMALL = {"vocab_size": 61, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "num_hidden_layers": 2}
_GROUPED = {**_SMALL, "hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 8, "num_key_value_heads": 4}


@dataclass(frozen=True)
class Growing:
    """A model and how it grows.

    Attributes:
        build: makes it, with example inputs.
        widen: by which factor, or each dim by which.
        sizes: dims to new sizes.
        checkpoint: whether it is one of transformers, whose class says what is to come out.
    """

    build: Callable[[], Built]
    widen: str | Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    checkpoint: bool = True

    def grown(self, built: Built, strategy: str) -> Clone:
        """A clone of the module."""
        return gc.clone(*built, widen=self.widen, sizes=self.sizes, strategy=strategy, seed=1)

    def clone(self, strategy: str, folder: Path) -> tuple[Clone, Report | None]:
        """A clone of the module, and what verification says of the same as a checkpoint, where it is one."""
        built = self.build()
        if not self.checkpoint:
            return self.grown(built, strategy), None
        source: Any = built.module
        source.save_pretrained(folder / "source")
        written = clone_checkpoint(
            folder / "source", folder / "wide", widen=self.widen, sizes=self.sizes, strategy=strategy, seed=1
        )
        return self.grown(built, strategy), written.verification


@dataclass(frozen=True)
class GrowingFile:
    """An ONNX file of the tests' collection, by its name there, and by which factor it grows."""

    name: str
    widen: str

    def clone(self, strategy: str, folder: Path) -> tuple[Clone, None]:
        """A clone of the file, in which all dims grow that the factor gives a whole size."""
        path, factor = model_file(self.name, folder), Fraction(self.widen)
        offered = [dim for group in gc.trace(path).dims if group.default for dim in group.dims]
        widen = {dim.name: self.widen for dim in offered if (dim.size * factor).denominator == 1}
        return gc.clone(path, widen=widen, strategy=strategy, seed=1), None


def _text(cls: Any, **fields: Any) -> Built:
    module: nn.Module = cls(cls.config_class(**fields))
    inputs: dict[str, Any] = {"input_ids": token_ids(2, 7, 61), "use_cache": False}
    if module.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = token_ids(2, 9, 61)
        logits_alone(module)
    return Built(randomise(module).eval(), (), inputs)


def _resnet(layer: str) -> Built:
    sizes = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "num_labels": 5}
    config = transformers.ResNetConfig(**sizes, layer_type=layer)
    module = randomise(transformers.ResNetForImageClassification(config)).eval()
    return Built(module, (), {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))})


def _scaled() -> Built:
    """Blocks that end in a product with a parameter."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 2, "num_labels": 5}
    config = transformers.Dinov2Config(**sizes, image_size=15, patch_size=5)
    module = randomise(transformers.Dinov2ForImageClassification(config)).eval()
    return Built(module, (), {"pixel_values": torch.randn(2, 3, 15, 15, generator=torch.Generator().manual_seed(0))})


def _wide(name: str, times: int) -> Callable[[], Built]:
    """A model of the zoo some number of times as wide, so that all its widths are multiples of that number."""
    return partial(ZOO[name].build, times)


_grouped = partial(_text, transformers.LlamaForCausalLM, **{**_GROUPED, "hidden_size": 48}, head_dim=8)
"""The class wants a width that is a multiple of the number of heads: that of 8 and of the 12 which these grow to."""

OTHERS: Mapping[str, Growing] = {
    "ResNet by 5/4": Growing(partial(_resnet, "basic"), "5/4"),
    "ResNet with bottlenecks by 5/4": Growing(partial(_resnet, "bottleneck"), "5/4"),
    "MobileNet by 5/4": Growing(_wide("mobilenet", 4), "5/4", checkpoint=False),
    "U-Net by 3/2": Growing(_wide("unet", 2), "3/2", checkpoint=False),
    "LSTM by 4/3": Growing(_wide("lstm", 3), "4/3", checkpoint=False),
    "LSTM in both directions by 4/3": Growing(_wide("lstm-bidirectional", 3), "4/3", checkpoint=False),
    "T5 by 3/2": Growing(
        partial(
            _text,
            transformers.T5ForConditionalGeneration,
            vocab_size=61,
            d_model=32,
            d_kv=8,
            d_ff=40,
            num_heads=4,
            num_layers=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=1,
        ),
        "3/2",
    ),
    "DINOv2 by 3/2": Growing(_scaled, "3/2"),
    "inner width of experts by 3/2": Growing(
        partial(_text, transformers.MixtralForCausalLM, **_GROUPED, num_local_experts=3, num_experts_per_tok=2),
        {"layers.*.mlp.experts": "3/2"},
    ),
    "Mamba2 by 3/2": Growing(
        partial(
            _text,
            transformers.Mamba2ForCausalLM,
            **_SMALL,
            hidden_size=32,
            num_heads=4,
            head_dim=16,
            state_size=8,
            n_groups=2,
            chunk_size=4,
        ),
        "3/2",
    ),
    "queries of a key's head 2 -> 3": Growing(_grouped, sizes={"layers.*.self_attn": 3}),
    "heads of keys 4 -> 6": Growing(_grouped, sizes={"layers.*.self_attn.heads": 6}),
}

FILES = {
    f"{name} by 3/2": GrowingFile(name, "3/2")
    for name in (
        *GROUPS["light"],
        "dynamo/llama-gqa",
        "legacy-17/gpt2",
        "ort-extended/vit",
        "fused/gpt2-17",
        "legacy-11/resnet-basic",
    )
}
"""The files of networks for images that the onnx package carries, and one of every exporter and optimiser."""
