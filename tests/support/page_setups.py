"""What the pages of the documentation take for granted: files that lie in the reader's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphclone.models.huggingface import new_model

_SMALL = {
    "vocab_size": 96, "hidden_size": 24, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "tie_word_embeddings": True, "head_dim": 6,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

_LARGE = {
    "hidden_size": 36, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 3,
}  # fmt: skip

_GPT2 = {
    "vocab_size": 96,
    "n_positions": 32,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def tiny_decoder(**fields: Any) -> Any:
    """A language model of two blocks, with random weights."""
    torch.manual_seed(0)
    return new_model("CausalLM", "llama", {**_SMALL, **fields})


def _checkpoints() -> None:
    """Two sizes of one family, of the larger one without weights."""
    tiny_decoder().save_pretrained("small")
    tiny_decoder(**_LARGE).config.save_pretrained("large")


def _image_file() -> None:
    """``model.onnx``, which takes an image."""
    layers = [nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 20, 3), nn.Flatten(), nn.Linear(2880, 10)]
    _export(nn.Sequential(*layers), (torch.randn(1, 3, 16, 16),), "model.onnx", input_names=["image"])
    np.savez("example.npz", image=np.ones((1, 3, 16, 16), np.float32))


class _Cached(nn.Module):
    """Attention that takes and returns a cache of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.ModuleList(nn.Linear(10, 12) for _ in range(3)), nn.Linear(12, 10)

    def forward(self, x: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (part(x).unflatten(-1, (3, 4)).transpose(1, 2) for part in self.qkv)
        k, v = torch.cat([key, k], 2), torch.cat([value, v], 2)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)), k, v


def _cache_file() -> None:
    """``decoder.onnx``, which has a cache among its inputs and outputs."""
    cache = torch.randn(2, 3, 5, 4)
    names = [f"{which}.0.{part}" for which in ("past_key_values", "present") for part in ("key", "value")]
    inputs, outputs = ["x", *names[:2]], ["y", *names[2:]]
    _export(_Cached(), (torch.randn(2, 7, 10), cache, cache), "decoder.onnx", input_names=inputs, output_names=outputs)


def _export(module: nn.Module, args: tuple[Tensor, ...], path: str, **names: list[str]) -> None:
    program = torch.onnx.export(module.eval(), args, verbose=False, **names)  # type: ignore[call-overload]
    program.save(path)


_NET = """
import torch


def make():
    layers = [torch.nn.Linear(8, 14), torch.nn.ReLU(), torch.nn.Linear(14, 4)]
    return torch.nn.Sequential(*layers), (torch.ones(2, 8),)
"""


def _distributed_checkpoint() -> None:
    """A function in ``net.py``, and weights of its module in ``net-dcp``."""
    from torch.distributed import checkpoint

    Path("net.py").write_text(_NET)
    names: dict[str, Any] = {}
    exec(_NET, names)
    checkpoint.save({"model": names["make"]()[0].state_dict()}, checkpoint_id="net-dcp")


def _readme() -> None:
    _checkpoints()
    _image_file()
    new_model("CausalLM", "gpt2", _GPT2).save_pretrained("gpt2")


def _onnx() -> None:
    _image_file()
    _cache_file()


def _sharding() -> None:
    _checkpoints()
    _distributed_checkpoint()


SETUPS: dict[str, Callable[[], None]] = {
    "README.md": _readme,
    "docs/checkpoints.md": _checkpoints,
    "docs/onnx.md": _onnx,
    "docs/sharding.md": _sharding,
}
"""By page; each works in the current folder."""
