"""Why a dim is pinned, and what hangs together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.analysis.dims import Dim, dims
from graphclone.analysis.flow import why_pinned
from graphclone.clones.traced import Traced


class Chain(nn.Module):
    """A hidden dim that reaches the output by way of two additions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return torch.tanh(h + self.second(h))


def traced() -> tuple[Traced, dict[str, Dim]]:
    found = gc.trace(Chain().eval(), (torch.randn(3, 5),))
    return found, {dim.name: dim for dim in dims(found.state.facts)}


def test_the_way_from_a_parameter_to_what_pins_it() -> None:
    found, named = traced()
    reasons = why_pinned(found.state.facts, named["first"])
    assert [reason.node for reason in reasons] == ["linear", "relu", "add", "tanh", "output"]
    assert reasons[-1].text == "the output keeps its shape"


def test_a_free_dim_has_no_pin() -> None:
    found = gc.trace(Chain().eval(), (torch.randn(3, 5),), widen_io=("output",))
    (hidden,) = [dim for dim in dims(found.state.facts) if dim.size == 8]
    assert hidden.pin is None
    assert why_pinned(found.state.facts, hidden) == []
