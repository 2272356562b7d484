"""What dims are called, how they are grouped, and which grow by default."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from tests.zoo import ZOO


def groups(name: str) -> dict[str, tuple[int, int, bool]]:
    """Size, count and default of every free group of a zoo model."""
    built = ZOO[name].build()
    found = gc.trace(built.module, built.args, built.kwargs).dims
    return {group.name: (group.size, len(group.dims), group.default) for group in found if group.pin is None}


def test_a_decoder() -> None:
    assert groups("opt") == {
        "hidden": (40, 1, True),
        "layers.*.self_attn.heads": (5, 2, True),
        "layers.*.self_attn.head_dim": (8, 2, False),
        "layers.*.self_attn.v_head_dim": (8, 2, False),
        "layers.*.fc1": (52, 2, True),
    }


def test_grouped_queries_grow_by_their_key_heads() -> None:
    found = groups("llama-gqa")
    by_default = {name: size for name, (size, _, default) in found.items() if default}
    others = {size for size, _, default in found.values() if not default}
    assert sorted(by_default.values()) == [5, 88, 120]
    assert others == {3, 4, 8}  # the group, half a rotary head, the width of a value head


def test_a_plain_sequence_is_named_by_position() -> None:
    module = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))
    found = gc.trace(module.eval(), (torch.randn(4, 5),)).dims
    assert [group.name for group in found if group.pin is None] == ["0", "2"]


@pytest.mark.parametrize("pattern", ["layers.*.fc", "layers.1.fc", "layers.?.fc"])
def test_names_and_patterns_select_layers(pattern: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.back = nn.Linear(6, 10), nn.Linear(10, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.back(torch.tanh(self.fc(x)))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(Block(), Block())

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    made = gc.clone(Net().eval(), (torch.randn(3, 6),), widen={pattern: 3})
    widths = [made.state_dict()[f"layers.{i}.fc.weight"].shape[0] for i in (0, 1)]
    assert widths == ([10, 30] if "1" in pattern else [30, 30])


def test_an_unread_parameter_stays() -> None:
    class Spare(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.spare = nn.Parameter(torch.randn(9))
            self.hidden = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.tanh(self.hidden(torch.tanh(self.hidden.weight.sum() + x))))

    found = gc.trace(Spare().eval(), (torch.randn(4, 5),)).dims
    (spare,) = [group for group in found if group.size == 9]
    assert spare.pin is not None
    assert spare.pin.text == "nothing reads it"
