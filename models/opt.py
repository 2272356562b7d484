"""OPT (Zhang et al. 2022, arXiv 2205.01068), in the manner of its 350m.

That one alone norms after each block instead of before, has no final norm, and projects embeddings between
the residual stream and a narrower ``word_embed_proj_dim``. Embeddings are tied and positions learned.
"""

from __future__ import annotations

from typing import Any

from graphclone.models.source import CausalLM

_STYLE: dict[str, Any] = {"do_layer_norm_before": False, "tie_word_embeddings": True}


def _opt(**sizes: int) -> CausalLM:
    return CausalLM("opt", {**_STYLE, **sizes})


MODELS = {
    "opt-mini": _opt(
        vocab_size=127,
        hidden_size=80,
        word_embed_proj_dim=44,
        num_hidden_layers=2,
        num_attention_heads=5,
        ffn_dim=152,
        max_position_embeddings=64,
    ),
    "opt-350m": _opt(
        vocab_size=50272,
        hidden_size=1024,
        word_embed_proj_dim=512,
        num_hidden_layers=24,
        num_attention_heads=16,
        ffn_dim=4096,
        max_position_embeddings=2048,
    ),
}
