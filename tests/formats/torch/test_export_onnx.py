"""ONNX files of modules: they hold for every length that the module takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import graphclone as gc
from tests.support.clones import seeded

Function = Callable[[Tensor, Tensor], Tensor]


class Looks(nn.Module):
    """Embeds tokens, and does something with them and their number."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.table, self.last, self.function = nn.Embedding(50, 8), nn.Linear(8, 3), function

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.last(self.function(self.table(tokens), tokens))
        return y


def _padded(h: Tensor, tokens: Tensor) -> Tensor:
    blocks = -(-tokens.shape[1] // 4)
    return F.pad(h, (0, 0, 0, 4 * blocks - tokens.shape[1])).unflatten(1, (blocks, 4)).sum(2)


def _squared(h: Tensor, tokens: Tensor) -> Tensor:
    return h.mT.unsqueeze(3) * tokens[:, None, None, :]


def _windows(h: Tensor, tokens: Tensor) -> Tensor:
    """The batch from the number of windows, as code of windowed attention has it."""
    windows = torch.cat([h, h.sin()])
    batch = int(windows.shape[0] / (4 / 2))
    return windows.reshape(2, batch, tokens.shape[1], 8).sum(0)


def _numbered(h: Tensor, tokens: Tensor) -> Tensor:
    return h.reshape(*(int(size) for size in tokens.shape), 8) * len(tokens)


FUNCTIONS: dict[str, Function] = {
    "how many blocks": lambda h, tokens: h * -(-tokens.shape[1] // 4),
    "padded to blocks": _padded,
    "below zero": lambda h, tokens: h * ((3 - tokens.shape[1]) // 4),
    "remainder": lambda h, tokens: h * ((3 - tokens.shape[1]) % 4),
    "sizes as numbers": _numbered,
    "windows": _windows,
    "downwards": lambda h, tokens: h * math.floor(0.29 * tokens.shape[1]) + math.floor(0.7 * tokens.shape[1]),
    "upwards": lambda h, tokens: h * math.ceil(1.1 * tokens.shape[1]),
    "rounded": lambda h, tokens: h * round(0.7 * tokens.shape[1]),
    "root": lambda h, tokens: h / math.sqrt(tokens.shape[1]) * tokens.shape[1] ** -0.25,
    "share": lambda h, tokens: h * torch.full((len(tokens), 1, 1), 1 / tokens.shape[1]) - tokens.shape[1] / 2,
    "pooled": lambda h, _: F.adaptive_avg_pool1d(h.mT, 3).mT,
    "pooled in two dims": lambda h, tokens: F.adaptive_avg_pool2d(_squared(h, tokens), (5, 4)).sum(3).mT,
    "pooled along one of two": lambda h, tokens: F.adaptive_avg_pool2d(_squared(h, tokens), (None, 4)).sum(3).mT,
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_file_computes_with_lengths_as_the_module_does(what: str, tmp_path: Path) -> None:
    model: nn.Module = seeded(lambda: Looks(FUNCTIONS[what])).eval()
    gc.clone(model, (torch.randint(0, 50, (5, 6)),), widen=2).save(tmp_path / "wide.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "wide.onnx"), providers=["CPUExecutionProvider"])
    for length in (6, 7, 8, 10, 11, 12, 100):
        tokens = torch.randint(0, 50, (2, length))
        (result,) = session.run(None, {"tokens": tokens.numpy()})
        torch.testing.assert_close(torch.from_numpy(result), model(tokens), rtol=1e-5, atol=1e-4)
