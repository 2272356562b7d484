"""Models of the transformers library from a configuration alone, and what to feed them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graphclone.extras import required


def new_model(task: str, model_type: str, fields: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised model with no key/value cache, and with fused attention where transformers has it.

    Args:
        task: the head, as in ``AutoModelFor<task>``.
        model_type: the architecture's name in transformers' configurations.
        fields: its configuration, where it differs from the default.

    Raises:
        MissingExtraError: transformers is not installed.
    """
    transformers = required("transformers", "hf", "this model")
    config = transformers.AutoConfig.for_model(model_type, **{"use_cache": False, **fields})
    module: nn.Module = getattr(transformers, f"AutoModelFor{task}").from_config(config)
    return module


def token_ids(batch: int, sequence: int, vocabulary: int) -> torch.Tensor:
    """Token ids of shape (batch, sequence), int64, spread over the vocabulary."""
    return (31 * torch.arange(batch * sequence) + 5).remainder(vocabulary).view(batch, sequence)
