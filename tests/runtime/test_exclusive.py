"""Clones in several threads of one process: torch is changed for a while by one of them at a time."""

from __future__ import annotations

import gc as garbage
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

import graphclone as gc


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.norm, self.down = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.tanh(self.norm(self.up(x))))


def test_threads_clone_one_module_and_leave_torch_as_it_was(tmp_path: Path) -> None:
    model, x = Model().eval(), torch.randn(4, 6)
    expected = model(x)
    changed = [(nn.Module, "_apply"), (torch.Tensor, "register_hook"), (torch.SymBool, "__bool__")]
    originals = [getattr(owner, name) for owner, name in changed]
    thresholds = garbage.get_threshold()

    def make(factor: int) -> tuple[bool, torch.Tensor]:
        made = gc.clone(model, (x,), widen=factor)
        made.save(tmp_path / f"{factor}.onnx")
        return made.verify(onnx=False).ok, made.module()(x)

    with ThreadPoolExecutor(4) as pool:
        for equivalent, result in pool.map(make, (2, 3, 4, 5)):
            assert equivalent
            torch.testing.assert_close(result, expected)
    assert [getattr(owner, name) for owner, name in changed] == originals
    assert "dtype" not in vars(torch.Tensor) and "requires_grad" not in vars(torch.Tensor)
    assert garbage.get_threshold() == thresholds
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
