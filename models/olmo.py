"""OLMo (Groeneveld et al. 2024, arXiv 2402.00838), the first generation.

LayerNorm has no weight and no bias, linear layers have no bias, the MLP is gated (SwiGLU), positions are
rotary, and embeddings are tied.
"""

from __future__ import annotations

from typing import Any

from graphclone.models.source import CausalLM

_STYLE: dict[str, Any] = {"tie_word_embeddings": True, "clip_qkv": None}


def _olmo(**sizes: int | None) -> CausalLM:
    return CausalLM("olmo", {**_STYLE, **sizes})


MODELS = {
    "olmo-mini": _olmo(
        vocab_size=127,
        hidden_size=80,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=152,
        max_position_embeddings=64,
        eos_token_id=None,
    ),
    "olmo-1b": _olmo(
        vocab_size=50304,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=16,
        intermediate_size=8192,
        max_position_embeddings=2048,
        eos_token_id=50279,
    ),
}
