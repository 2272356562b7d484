"""What closes a block, and what cannot be closed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graphclone.analysis.closing import Tower
from graphclone.formats.torch.reader import trace_module
from graphclone.passes import Canonicalize
from graphclone.passes.deepen import towers_of
from graphclone.pipeline.state import State

_WIDTH = 6


class Stream(nn.Module):
    """Two blocks between two linear layers: (batch, 5) -> (batch, 3)."""

    def __init__(self, block: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.up, self.layers = nn.Linear(5, _WIDTH), nn.ModuleList([block(), block()])
        self.down = nn.Linear(_WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.down(x)
        return y


class Block(nn.Module):
    """A block that a function computes from its stream and these parameters."""

    def __init__(self, function: Callable[[Block, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Linear(_WIDTH, 8), nn.Linear(8, _WIDTH), nn.LayerNorm(_WIDTH)
        self.gain, self.function = nn.Parameter(torch.rand(_WIDTH)), function

    def branch(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.first(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def towers(function: Callable[[Block, Tensor], Tensor]) -> list[Tower]:
    state = State(trace_module(Stream(lambda: Block(function)).eval(), (torch.randn(4, 5),), name="stream"))
    Canonicalize()(state)
    return towers_of(state)


LAST = {"last.weight": 0.0, "last.bias": 0.0}
NORM = {"norm.weight": 0.0, "norm.bias": 0.0}

CLOSED: dict[str, tuple[Callable[[Block, Tensor], Tensor], dict[str, float]]] = {
    "a linear layer": (lambda b, x: x + b.branch(x), LAST),
    "from the other side": (lambda b, x: b.branch(x) + x, LAST),
    "a norm behind it": (lambda b, x: x + b.norm(b.branch(x)), NORM),
    "a gain": (lambda b, x: x + b.gain * b.branch(x), {"gain": 0.0}),
    "one and a gain": (lambda b, x: x + b.branch(x) * (1 + b.gain), {"gain": -1.0}),
    "a factor": (lambda b, x: x + 0.5 * b.branch(x), LAST),
    "a view, a cut and a sum": (
        lambda b, x: x + b.branch(x).view(-1, 2, 3).transpose(1, 2).reshape(-1, 6).flip(1),
        LAST,
    ),
    "two sums": (lambda b, x: b.norm(b.first(x).tanh()[:, :6]) + (x + b.branch(x)), {**NORM, **LAST}),
    "parallel": (lambda b, x: x + (b.branch(x) + b.norm(x)), {**NORM, **LAST}),
    "a stream in another shape": (
        lambda b, x: (x.unflatten(1, (2, 3)) + b.branch(x).unflatten(1, (2, 3))).flatten(1),
        LAST,
    ),
    "a stream in higher precision": (lambda b, x: (x.double() + b.branch(x).double()).float(), LAST),
    "a gate that is no parameter": (lambda b, x: x + torch.sigmoid(b.norm(x)) * b.branch(x), LAST),
    "a choice": (lambda b, x: x + torch.where(x > 0, b.branch(x), 0.0), LAST),
}


@pytest.mark.parametrize("name", CLOSED)
def test_the_nearest_parameters_close(name: str) -> None:
    function, expected = CLOSED[name]
    (tower,) = towers(function)
    assert not tower.obstacle
    found = [{i.name: number for i, number in closing.closers.items()} for closing in tower.closings]
    assert found == [{f"layers.{k}.{part}": number for part, number in expected.items()} for k in range(2)]


OPEN: dict[str, tuple[Callable[[Block, Tensor], Tensor], str]] = {
    "a norm of the stream": (lambda b, x: b.norm(x + b.branch(x)), "layer_norm"),
    "a factor of the stream": (lambda b, x: 0.5 * x + b.branch(x), "mul"),
    "a stream taken off": (lambda b, x: b.branch(x) - x, "sub"),
    "a sum with a factor": (lambda b, x: torch.add(b.branch(x), x, alpha=2), "add"),
    "a mixture": (lambda b, x: torch.lerp(x, b.branch(x), 0.3), "lerp"),
    "rows written over": (lambda b, x: x.index_copy(0, torch.tensor([0]), b.branch(x)[:1]), "index_copy"),
    "a stream turned round": (lambda b, x: (x + b.branch(x)).flip(1), "flip"),
    "no stream": (lambda b, x: b.branch(x), "linear"),
    "what is not linear": (lambda b, x: x + torch.relu(b.branch(x)), "relu"),
    "a number added": (lambda b, x: x + (b.branch(x) + 1), "adds a number"),
    "a stream that is rounded": (lambda b, x: (x.bfloat16() + b.branch(x).bfloat16()).float(), "rounds the stream"),
    "a stream without gradient": (lambda b, x: x.detach() + b.branch(x), "lets no gradient through"),
    "a branch without gradient": (lambda b, x: x + b.branch(x).detach(), "lets no gradient through"),
    "a weight without gradient": (lambda b, x: x + b.gain.detach() * torch.tanh(x), "lets no gradient through"),
    "a weight and its norm": (
        lambda b, x: x + b.norm.weight / b.norm.weight.norm() * x.tanh(),
        "norm.weight is read by others",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_cannot_be_closed_says_why(name: str) -> None:
    function, reason = OPEN[name]
    (tower,) = towers(function)
    assert all(reason in closing.obstacle for closing in tower.closings), tower.obstacle


def test_what_other_blocks_read_as_well_closes_none() -> None:
    model = Stream(lambda: Block(lambda b, x: x + b.branch(x))).eval()
    model.layers[1].last = model.layers[0].last
    state = State(trace_module(model, (torch.randn(4, 5),), name="stream"))
    Canonicalize()(state)
    (tower,) = towers_of(state)
    assert "last.weight is read by others" in tower.obstacle
