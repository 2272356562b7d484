"""Clones into deeper instances of the same code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from tests.support.clones import features, seeded

FUNCTIONS = {"t": torch.tanh, "s": torch.sigmoid}


class Deep(nn.Module):
    """Blocks of kinds, each a letter, by the function in their middle: (batch, 6) -> (batch, 5)."""

    def __init__(self, width: int, inner: int, kinds: str) -> None:
        super().__init__()
        self.up, self.down, self.kinds = nn.Linear(6, width), nn.Linear(width, 5), kinds
        self.layers = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(width), "up": nn.Linear(width, inner), "down": nn.Linear(inner, width)})
            for _ in kinds
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            assert isinstance(layer, nn.ModuleDict)
            x = x + layer["down"](FUNCTIONS[kind](layer["up"](layer["norm"](x))))
        y: Tensor = self.down(x)
        return y


def deep(width: int, inner: int, kinds: str) -> nn.Module:
    made: nn.Module = seeded(lambda: Deep(width, inner, kinds)).eval()
    return made


@pytest.mark.parametrize(
    ("kinds", "deeper", "new"),
    [
        ("tt", "tttt", ["layers.1", "layers.3"]),
        ("tsts", "tststs", ["layers.4", "layers.5"]),
        ("st", "tst", ["layers.0"]),  # made after a block that comes later
    ],
)
def test_a_model_is_cloned_into_its_deeper_and_wider_self(kinds: str, deeper: str, new: list[str]) -> None:
    small, big, x = deep(8, 10, kinds), deep(16, 15, deeper), features(3, 6)
    clone = gc.clone(small, (x,), into=big)
    assert [addition.name for addition in clone.state.depth.additions] == new
    assert list(clone.state_dict()) == list(big.state_dict())
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)
    report = clone.verify(onnx=False)
    assert report.ok, str(report)
    assert {"depth", "wide module"} <= {check.name for check in report.checks if check.ok}


def test_new_blocks_may_be_random_and_come_last() -> None:
    small, big, x = deep(8, 10, "tt"), deep(8, 10, "ttt"), features(3, 6)
    gc.clone(small, (x,), into=big, new_blocks="end", new_from="random")
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)
    assert isinstance(big, Deep)
    old, new = (big.layers[k].up.weight for k in (1, 2))  # type: ignore[union-attr]
    assert not torch.equal(old, new)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("sss", "layers: the target does not have the blocks of the source in their order"),
        ("tst", "layers: block 1 of the target is unlike all blocks of the source"),
    ],
)
def test_blocks_of_other_kinds_are_refused(kinds: str, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message):
        gc.clone(deep(8, 10, "tt"), (features(3, 6),), into=deep(8, 10, kinds))


def test_a_depth_beside_another_model_is_refused() -> None:
    with pytest.raises(GraphcloneError, match="depth and into do not go together"):
        gc.clone(deep(8, 10, "tt"), (features(3, 6),), into=deep(8, 10, "ttt"), depth=3)
