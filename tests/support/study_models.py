"""Models and studies small enough to be trained in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from graphclone.study import Base, Comparison, Data, Model, Study, Training


class Tiny(nn.Module):
    """Each token is predicted from the one before it, by one gelu layer."""

    def __init__(self, vocabulary: int, hidden: int, inner: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, hidden)
        self.up = nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        return self.head(self.norm(x + self.down(nn.functional.gelu(self.up(x)))))


def tiny(widen: int, hidden: int = 12) -> tuple[nn.Module, tuple[Any, ...]]:
    return Tiny(256, hidden * widen, 20 * widen), (torch.zeros(2, 7, dtype=torch.int64),)


def tied(widen: int) -> nn.Module:
    """A model whose sizes are odd before it is widened, and that predicts by the weight by which it looks up."""
    module = Tiny(257, 11 * widen, 19 * widen)
    module.head.weight = module.embed.weight
    return module


def stacked(widen: int) -> nn.Module:
    """Two blocks of one kind."""
    blocks = [nn.Sequential(nn.Linear(12 * widen, 12 * widen), nn.GELU()) for _ in range(2)]
    return nn.Sequential(nn.Embedding(256, 12 * widen), *blocks, nn.Linear(12 * widen, 256))


class Residual(nn.Module):
    """What is added to the stream: of two blocks, and of so many times as many if it is deepened."""

    def __init__(self, deepen: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 12)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 12)) for _ in range(2 * deepen)
        )
        self.head = nn.Linear(12, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def deeper(deepen: int) -> nn.Module:
    return Residual(deepen)


def narrow(hidden: int = 12) -> nn.Module:
    return Tiny(256, hidden, 20)


def few_tokens(widen: int) -> nn.Module:
    return Tiny(100, 12 * widen, 20 * widen)


SOURCE = "tests.support.study_models:tiny"


def corpus(folder: Path) -> str:
    """A folder of text, enough for training and validation."""
    for i in range(40):
        (folder / f"{i}.txt").write_text("".join(f"value_{j % 7} = call({j}, [{i}])\n" for j in range(60)))
    return str(folder)


def study(data: str, source: str = SOURCE, recipes: tuple[str, ...] = ("noisy-symmetric",), **training: Any) -> Study:
    """A study of one model in a few seconds."""
    options = {"steps": 12, "batch": 4, "warmup": 2, "evaluate": 4, **training}
    return Study(
        model=(Model("tiny", source),),
        base=(Base("brief", 8),),
        compare=(Comparison(recipes=recipes),),
        data=Data(data, context=32, validation=8),
        training=Training(**options),
    )
