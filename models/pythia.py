"""Pythia (Biderman et al. 2023, arXiv 2304.01373): GPT-NeoX.

Attention and MLP read the residual stream side by side; q, k and v of each head are fused in one weight;
rotary positions turn the first quarter of head_dim. The output head is not tied.
"""

from __future__ import annotations

from typing import Any

from graphclone.models.source import CausalLM

_STYLE: dict[str, Any] = {
    "use_parallel_residual": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
    "tie_word_embeddings": False,
}


def _pythia(**sizes: int) -> CausalLM:
    return CausalLM("gpt_neox", {**_STYLE, **sizes})


MODELS = {
    "pythia-mini": _pythia(
        vocab_size=127,
        hidden_size=80,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=152,
        max_position_embeddings=64,
    ),
    "pythia-410m": _pythia(
        vocab_size=50304,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
    ),
}
