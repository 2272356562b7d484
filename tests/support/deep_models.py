"""Models to be made deeper, beside those of the zoo: every way that blocks are put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphclone.models import Built
from graphclone.models.huggingface import new_model, token_ids
from graphclone.models.randomise import randomise

_TOKENS = token_ids(2, 7, 61)

_CAUSAL = {"vocab_size": 61, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
_DECODER = {"hidden_size": 40, "num_attention_heads": 5, "max_position_embeddings": 64}

FIELDS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "mixtral": (
        "CausalLM",
        "mixtral",
        {**_CAUSAL, **_DECODER, "num_key_value_heads": 5, "intermediate_size": 52, "num_local_experts": 3},
    ),
    "mamba2": (
        "CausalLM",
        "mamba2",
        {
            **_CAUSAL,
            "hidden_size": 24,
            "num_heads": 6,
            "head_dim": 8,
            "state_size": 11,
            "n_groups": 1,
            "chunk_size": 4,
            "attn_implementation": "eager",
        },
    ),
    "modernbert": (
        "MaskedLM",
        "modernbert",
        {
            **_DECODER,
            "vocab_size": 61,
            "pad_token_id": 0,
            "intermediate_size": 52,
            "local_attention": 4,
            "attn_implementation": "sdpa",
        },
    ),
    "albert": (
        "MaskedLM",
        "albert",
        {**_DECODER, "vocab_size": 61, "embedding_size": 12, "intermediate_size": 52},
    ),
}


def built(name: str, layers: int) -> Built:
    """A model of so many blocks, with weights drawn anew."""
    task, model_type, fields = FIELDS[name]
    module = new_model(task, model_type, {**fields, "num_hidden_layers": layers})
    return Built(randomise(module).eval(), (), {"input_ids": _TOKENS})
