"""Tiny runs of transformers' Trainer on random tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from graphclone.models.huggingface import new_model
from graphclone.models.randomise import randomise

transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

VOCABULARY = 37
_FIELDS = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 44, "num_attention_heads": 3,
    "num_hidden_layers": 1, "max_position_embeddings": 32, "tie_word_embeddings": False,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip


def decoder(layers: int = 1) -> nn.Module:
    """A model whose linear layers have no biases."""
    return randomise(new_model("CausalLM", "llama", {**_FIELDS, "num_hidden_layers": layers}))


class Tokens(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random sequences of tokens, always the same ones."""

    def __init__(self, count: int = 16) -> None:
        self.tokens = torch.randint(VOCABULARY, (count, 8), generator=torch.Generator().manual_seed(4))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


def trainer(model: nn.Module, folder: Path, steps: int, **options: Any) -> transformers.Trainer:
    """A trainer of batches of 2 on the CPU, that writes down every loss."""
    settings = {
        "per_device_train_batch_size": 2, "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True,
        "learning_rate": 1e-3, "weight_decay": 0.1, "disable_tqdm": True, "max_grad_norm": 0.0, "warmup_steps": 2,
    }  # fmt: skip
    callbacks = options.pop("callbacks", None)
    arguments = transformers.TrainingArguments(str(folder), max_steps=steps, **{**settings, **options})
    return transformers.Trainer(model, arguments, train_dataset=Tokens(), callbacks=callbacks)


def losses(run: transformers.Trainer) -> dict[int, float]:
    """The loss of every step that was logged."""
    return {entry["step"]: entry["loss"] for entry in run.state.log_history if "loss" in entry}
