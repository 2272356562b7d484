"""Published sizes of families of models, from each to the next, at the shapes of their configurations and tiny.

Tiny ones have the ratios of the real ones: widths of heads and of the rest, and depths, each divided by one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import transformers

Fields = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A class and its published sizes.

    Attributes:
        cls: the class.
        sizes: fields of the configurations, by the names of the models.
        tiny: by what number each field is divided in a tiny model.
        small: fields of every tiny model besides.
        fields: of every real model besides.
    """

    cls: Any
    sizes: Mapping[str, Fields]
    tiny: Mapping[str, int]
    small: Fields
    fields: Fields

    def config(self, size: str, *, tiny: bool) -> Any:
        """The configuration of a size."""
        own = self.sizes[size]
        if not tiny:
            return self.cls.config_class(**{**self.fields, **own})
        scaled = {n: v // self.tiny[n] if n in self.tiny else v for n, v in own.items()}
        return self.cls.config_class(**{**self.fields, **scaled, **self.small})


_TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

_ROTARY = {"rope_type": "default", "rope_theta": 10000.0}


def _sizes(*rows: tuple[str, int, int, int, int]) -> dict[str, Fields]:
    """Sizes by name, from the widths of states, the numbers of heads, the inner widths and the numbers of blocks."""
    fields = ("hidden_size", "num_attention_heads", "intermediate_size", "num_hidden_layers")
    return {name: dict(zip(fields, numbers, strict=True)) for name, *numbers in rows}


FAMILIES = {
    "SmolLM2": Family(
        transformers.LlamaForCausalLM,
        {
            "135M": {
                "hidden_size": 576,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
            },
            "360M": {
                "hidden_size": 960,
                "num_attention_heads": 15,
                "num_key_value_heads": 5,
                "intermediate_size": 2560,
                "num_hidden_layers": 32,
            },
        },
        {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2},
        {"vocab_size": 97, "head_dim": 8, **_TOKENS},
        {
            "vocab_size": 49152,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        },
    ),
    "Pythia": Family(
        transformers.GPTNeoXForCausalLM,
        _sizes(
            ("70M", 512, 8, 2048, 6),
            ("160M", 768, 12, 3072, 12),
            ("410M", 1024, 16, 4096, 24),
            ("1B", 2048, 8, 8192, 16),
        ),
        {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 3},
        {"vocab_size": 97, **_TOKENS, "rope_parameters": {**_ROTARY, "partial_rotary_factor": 0.5}},
        {"vocab_size": 50304},
    ),
    "GPT-2": Family(
        transformers.GPT2LMHeadModel,
        {
            name: {"n_embd": hidden, "n_head": heads, "n_layer": layers}
            for name, hidden, heads, layers in (
                ("small", 768, 12, 12),
                ("medium", 1024, 16, 24),
                ("large", 1280, 20, 36),
                ("xl", 1600, 25, 48),
            )
        },
        {"n_embd": 16, "n_layer": 6},
        {"vocab_size": 97, "n_positions": 64, **_TOKENS},
        {},
    ),
    "OPT": Family(
        transformers.OPTForCausalLM,
        {
            name: {
                "hidden_size": hidden,
                "word_embed_proj_dim": hidden,
                "num_attention_heads": heads,
                "ffn_dim": 4 * hidden,
                "num_hidden_layers": layers,
            }
            for name, hidden, heads, layers in (("125M", 768, 12, 12), ("1.3B", 2048, 32, 24))
        },
        {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 6},
        {"vocab_size": 97, "max_position_embeddings": 64, **_TOKENS},
        {},
    ),
    "OLMo": Family(
        transformers.OlmoForCausalLM,
        {
            "1B": {
                "hidden_size": 2048,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "tie_word_embeddings": True,
            },
            "7B": {
                "hidden_size": 4096,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "tie_word_embeddings": False,
            },
        },
        {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "num_hidden_layers": 8,
        },
        {"vocab_size": 97, **_TOKENS},
        {"vocab_size": 50304},
    ),
    "ModernBERT": Family(
        transformers.ModernBertForMaskedLM,
        _sizes(
            ("base", 768, 12, 1152, 22),
            ("large", 1024, 16, 2624, 28),
        ),
        {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
        {"vocab_size": 97, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2, **_TOKENS},
        {},
    ),
    "Qwen3": Family(
        transformers.Qwen3ForCausalLM,
        {
            name: {
                "hidden_size": hidden,
                "num_attention_heads": heads,
                "num_key_value_heads": 8,
                "intermediate_size": inner,
                "num_hidden_layers": layers,
            }
            for name, hidden, heads, inner, layers in (
                ("0.6B", 1024, 16, 3072, 28),
                ("1.7B", 2048, 16, 6144, 28),
                ("4B", 2560, 32, 9728, 36),
            )
        },
        {
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
        },
        {"vocab_size": 97, "head_dim": 8, **_TOKENS},
        {
            "head_dim": 128,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    ),
    "ViT": Family(
        transformers.ViTForImageClassification,
        _sizes(
            ("tiny", 192, 3, 768, 12),
            ("small", 384, 6, 1536, 12),
            ("base", 768, 12, 3072, 12),
            ("large", 1024, 16, 4096, 24),
        ),
        {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 6},
        {"image_size": 15, "patch_size": 5},
        {},
    ),
    "T5 v1.1": Family(
        transformers.T5ForConditionalGeneration,
        {
            name: {
                "d_model": hidden,
                "num_heads": heads,
                "d_ff": inner,
                "num_layers": layers,
                "num_decoder_layers": layers,
            }
            for name, hidden, heads, inner, layers in (("small", 512, 6, 1024, 8), ("base", 768, 12, 2048, 12))
        },
        {"d_model": 16, "d_ff": 16, "num_layers": 4, "num_decoder_layers": 4},
        {"vocab_size": 97, "d_kv": 8, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1},
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "BERT": Family(
        transformers.BertForMaskedLM,
        _sizes(
            ("base", 768, 12, 3072, 12),
            ("large", 1024, 16, 4096, 24),
        ),
        {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 6},
        {"vocab_size": 97, "max_position_embeddings": 64, **_TOKENS},
        {},
    ),
}


@dataclass(frozen=True)
class Step:
    """From one size of a family to the next."""

    family: str
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.family} {self.source} -> {self.target}"

    def configs(self, *, tiny: bool) -> tuple[Any, Any]:
        """The configurations of source and target."""
        family = FAMILIES[self.family]
        return family.config(self.source, tiny=tiny), family.config(self.target, tiny=tiny)

    @property
    def cls(self) -> Any:
        """The class of both."""
        return FAMILIES[self.family].cls


STEPS = {
    str(step): step for name, family in FAMILIES.items() for step in (Step(name, *p) for p in pairwise(family.sizes))
}

REFUSED = {
    "Pythia 410M -> 1B": "num_attention_heads is 16 in the source and 8 in the target: .* nothing shrinks",
    "BERT base -> large": "cannot be reached: .*norm",
    "ModernBERT base -> large": "no whole multiple: aten.layer_norm.default does not keep the mean",
}
"""Steps that no weights can take, with the reason: fewer heads, and streams that a norm writes to.

The norm behind ModernBERT's embeddings begins its stream, so that no weight gives the pads the mean that later norms
want there; its head is tied to the embeddings, which therefore cannot make up for it row by row.
"""
