"""A model whose page has all that a page can have: layers of one kind, heads, a table of rows, pinned dims."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Block(nn.Module):
    """Attention and a gated layer, each added to the stream."""

    def __init__(self, width: int = 12, heads: int = 3, inner: int = 20) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(self.up(x).relu())


class Model(nn.Module):
    """Rows looked up, blocks, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(17, 12), nn.LayerNorm(12), nn.Linear(12, 7)
        self.layers = nn.ModuleList(Block() for _ in range(4))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids.clamp(max=16))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def model() -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    return Model(), (torch.arange(10).reshape(2, 5),)
