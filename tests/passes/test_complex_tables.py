"""Tables of complex numbers that are looked at before they are multiplied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphclone as gc


class Turned(nn.Module):
    """Pairs that a table turns, which gets axes first."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)
        self.register_buffer("table", torch.polar(torch.ones(5, 4), torch.randn(5, 4)))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.up(x).view(x.shape[0], 5, 2, 4, 2))
        table = self.get_buffer("table")
        out: Tensor = self.down(torch.view_as_real(pairs * table[None, :, None]).flatten(2))
        return out


def test_a_table_of_complex_numbers_may_be_sliced() -> None:
    module, x = Turned().eval(), torch.randn(3, 5, 6)
    clone = gc.clone(module, (x,), widen=2)
    other = torch.randn(2, 5, 6)
    torch.testing.assert_close(clone.module()(other), module(other), rtol=0, atol=1e-6)
