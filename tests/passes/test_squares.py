"""One dim on both sides of a square: what is beside its copies is 0 along both, or else refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import graphclone as gc

WIDTH = 4


class Model(nn.Module):
    """A hidden width, beside tables of width by width that are a parameter, a buffer, and what is no random number."""

    def __init__(self, function: Callable[[Model, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.pairs = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3), nn.Linear(WIDTH**2, 3)
        self.weight, self.table = (nn.Parameter(torch.randn(WIDTH, WIDTH)) for _ in range(2))
        self.vector = nn.Parameter(torch.randn(WIDTH**2))
        self.register_buffer("kept", torch.randn(WIDTH, WIDTH))
        self.register_buffer("eye", torch.eye(WIDTH))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.first(x))


def outer(h: Tensor) -> Tensor:
    return h[:, :, None] * h[:, None, :]


SQUARES: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "ridge": lambda m, h: m.last(h @ (h.T @ h + m.eye)),
    "distance from orthogonal": lambda m, h: ((m.weight @ m.weight.T - m.eye) ** 2).sum() + m.last(h @ m.weight.T),
    "its norm": lambda m, h: m.last(h @ m.weight) + torch.norm(m.weight.T @ m.weight - m.eye),
    "a table that trains": lambda m, h: (m.weight @ m.weight.T + m.table).relu().sum() + m.last(h @ m.weight.T),
    "a covariance": lambda m, h: m.last(h) + (h.T @ h / 3 - m.kept).norm(),
    "all but the diagonal": lambda m, h: m.last(h) + (m.weight.T @ m.weight * (1 - m.eye)).pow(2).sum() * h.sum(),
    "times a table": lambda m, h: m.last(h @ ((h.T @ h) * m.kept)),
    "applied to itself": lambda m, h: m.last(((outer(h) + m.table) @ h[:, :, None])[..., 0]),
    "weighed and summed": lambda m, h: m.last(h) + ((outer(h) + m.table) * m.kept).sum((1, 2))[:, None],
    "in one axis": lambda m, h: m.pairs((outer(h) + m.table).flatten(1)),
    "in one axis, rectified": lambda m, h: m.pairs((outer(h) + m.kept).relu().flatten(1)),
    "in one axis, and added to": lambda m, h: m.last(h) + (outer(h).flatten(1) + m.vector).pow(2).sum(1)[:, None],
    "in one axis, normalised": lambda m, h: m.pairs(F.normalize((outer(h) + m.eye).flatten(1), dim=1)),
}

SUMMED: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "distances of all pairs": lambda m, h: m.last(((h[:, :, None] - h[:, None, :]) ** 2).sum(-1)),
    "which is greater": lambda m, h: m.last((h[:, :, None] - h[:, None, :]).relu().sum(-1)),
    "hypotenuses": lambda m, h: m.last(torch.hypot(h[:, :, None], h[:, None, :]).sum(-1)),
    "the greater of two": lambda m, h: m.last(torch.maximum(h[:, :, None], h[:, None, :]).sum(-1)),
    "ratios": lambda m, h: m.last((h[:, :, None] / (1 + h[:, None, :] ** 2)).sum(-1)),
    "the greatest of a row": lambda m, h: m.last(h) + (h.T @ h).amax(1).sum(),
}
"""What is not 0 along one side where one of its two operands is."""

REQUESTS: dict[str, dict[str, Any]] = {
    "six": {"sizes": {"first": 6}},
    "by half": {"widen": "3/2"},
    "fresh": {"widen": 2, "strategy": "fresh"},
    "twice": {"widen": 2},
}


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("name", SQUARES)
def test_it_computes_the_same(name: str, request_: str) -> None:
    model, x = Model(SQUARES[name]).double().eval(), torch.randn(3, 6, dtype=torch.float64)
    made = gc.clone(model, (x,), **REQUESTS[request_])
    assert made.state_dict()["first.weight"].shape[0] == (6 if request_ in ("six", "by half") else 8)
    other = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(made.module()(other), model(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SUMMED)
def test_what_is_beside_copies_would_count(name: str) -> None:
    model, x = Model(SUMMED[name]).double().eval(), torch.randn(3, 6, dtype=torch.float64)
    for request in ("six", "fresh"):
        with pytest.raises(gc.GraphcloneError, match="first cannot grow from 4 to"):
            gc.clone(model, (x,), **REQUESTS[request])
    other = torch.randn(5, 6, dtype=torch.float64)
    wide = gc.clone(model, (x,)).module()
    torch.testing.assert_close(wide(other), model(other), rtol=1e-12, atol=1e-12)


def test_the_greatest_of_a_row_may_be_new() -> None:
    """Though the dim is still there, along the other side."""
    model, x = Model(lambda m, h: m.last(outer(h).amax(-1))).eval(), torch.randn(3, 6)
    with pytest.raises(gc.GraphcloneError, match="takes it together"):
        gc.clone(model, (x,), **REQUESTS["fresh"])


def test_the_products_of_all_pairs_grow_by_default() -> None:
    """The dim stands behind itself alone, so that nothing else could grow in its place."""
    model, x = Model(lambda m, h: m.pairs(outer(h).flatten(1))).eval(), torch.randn(3, 6)
    made = gc.clone(model, (x,), widen=3)
    assert made.state_dict()["pairs.weight"].shape == (3, 9 * WIDTH**2)
    assert made.verify().ok
