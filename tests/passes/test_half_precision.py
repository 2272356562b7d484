"""Sums in float16, which ends at 65,504: copies must not add up to more than the source's numbers do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import graphclone as gc


class Energy(nn.Module):
    """A sum that no parameter follows, near the end of what float16 holds."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.up(x)
        return self.down(h.tanh()) + h.relu().square().sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("factor", [2, 8])
def test_what_the_source_can_add_up_the_clone_can(factor: int) -> None:
    torch.manual_seed(0)
    model, x = Energy().half().eval(), torch.randn(500, 5).half()
    wide = gc.clone(model, (x[:4],), widen=factor).module()
    finite = model(100 * x).isfinite()
    assert 0 < (~finite).sum() < finite.sum()
    assert torch.equal(wide(100 * x).isfinite(), finite)
