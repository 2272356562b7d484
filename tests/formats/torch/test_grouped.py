"""Products of groups of rows, of whose two operators torch traces the one that the model's strides allow."""

from __future__ import annotations

import pytest
import torch
import transformers.integrations.moe  # defines the operator that is in every precision
from torch import Tensor, nn

import graphclone as gc

assert transformers.integrations.moe


class Experts(nn.Module):
    """Rows in turn through three matrices, between a layer that widens and one that narrows: (9, 6) -> (9, 5)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, width), nn.Linear(inner, 5)
        self.matrices = nn.Parameter(torch.randn(3, width, inner) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        ends = torch.arange(1, 4, dtype=torch.int32) * x.shape[0] // 3
        y: Tensor = self.down(torch.relu(torch.ops.aten._grouped_mm(self.up(x), self.matrices, ends)))
        return y


@pytest.mark.parametrize("strategy", ["symmetric", "noisy-diagonal"])
def test_both_widths_of_the_matrices_grow(strategy: str) -> None:
    torch.manual_seed(0)
    clone = gc.clone(Experts(16, 8).bfloat16().eval(), (torch.randn(9, 6).bfloat16(),), widen=2, strategy=strategy)
    clone.verify(onnx=False).raise_if_failed()
    assert clone.state_dict()["matrices"].shape == (3, 32, 16)
