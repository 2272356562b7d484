"""The form of a source model, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn


class Built(NamedTuple):
    """A model in eval mode with example inputs: ``module(*args, **kwargs)`` runs."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class CausalLM:
    """A causal language model of the transformers library, by its configuration."""

    model_type: str
    fields: Mapping[str, Any]

    def build(self) -> Built:
        """The model with random weights, on input_ids of shape (batch 2, sequence 7)."""
        # Imported here because listing the models must not cost an import of torch.
        from graphclone.models.huggingface import new_model, token_ids
        from graphclone.models.randomise import randomise

        module = new_model("CausalLM", self.model_type, self.fields)
        inputs = {"input_ids": token_ids(2, 7, self.fields["vocab_size"])}
        return Built(randomise(module).eval(), (), inputs)
