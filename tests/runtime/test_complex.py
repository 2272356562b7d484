"""Complex weights are widened as pairs of real numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.growth import Growth, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import STRATEGIES, strategy
from graphclone.runtime.blocks import InMemory, Source, widen_block
from graphclone.runtime.kernel import widen

AXIS = Leaf(Growth(6, 2))


class Spectral(nn.Module):
    """A mixture of channels for each frequency."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
        self.weight = nn.Parameter(torch.randn(6, 6, 4, dtype=torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        spectrum = torch.fft.rfft(h, n=8, dim=1)[:, :4]
        return self.last(torch.fft.irfft(torch.einsum("bfi,iof->bfo", spectrum, self.weight), n=8, dim=1) + h)


@pytest.mark.parametrize("kind", ["symmetric", "diagonal", "noisy-diagonal"])
def test_a_clone_computes_the_same(kind: str) -> None:
    model, x = Spectral().eval(), torch.randn(2, 8, 5)
    made = gc.clone(model, (x,), widen=2, strategy=kind)
    assert made.state_dict()["weight"].shape == (12, 12, 4)
    other = torch.randn(3, 8, 5)
    torch.testing.assert_close(made.module()(other), model(other), rtol=1e-4, atol=1e-5)
    assert (report := made.verify(onnx=False)).ok, str(report)


@pytest.mark.parametrize("kind", sorted(set(STRATEGIES) - {"fresh", "net2net"}))
def test_copies_of_an_input_share_a_weight(kind: str) -> None:
    source = torch.randn(6, 6, dtype=torch.cdouble)
    wide = widen(source, Widening("w", (AXIS, AXIS), (1,), strategy(kind)))
    assert wide.dtype == torch.cdouble
    torch.testing.assert_close(wide[:, :6] + wide[:, 6:], source.repeat(2, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["symmetric", "noisy-symmetric"])
def test_a_block_has_what_the_whole_has(kind: str) -> None:
    source, recipe = torch.randn(6, 6, dtype=torch.cfloat), Widening("w", (AXIS, AXIS), (1,), strategy(kind))
    rows = np.arange(4, 9)
    block = torch.empty(5, 12, dtype=source.dtype)
    widen_block(Source(InMemory(source)), recipe, [rows, np.arange(12)], block)
    assert torch.equal(block, widen(source, recipe)[4:9])


def test_what_would_be_added_to_is_refused() -> None:
    source = torch.randn(6, dtype=torch.cfloat)
    with pytest.raises(TypeError, match="cannot be shifted"):
        widen(source, Widening("w", (AXIS,), (), strategy("symmetric"), shift=1.0))
