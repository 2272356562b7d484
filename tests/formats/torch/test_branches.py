"""torch.cond: both branches are widened, and a clone computes the one that is wanted, as its source does."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.verification.lockstep import run_lockstep

WIDTH = 8


class Model(nn.Module):
    """Layers that branches may use, and what is done between the first and the last."""

    def __init__(self, middle: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.middle = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3), middle
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, x, torch.tanh(self.first(x))))


def _nested(m: Any, x: Tensor, h: Tensor) -> Tensor:
    def inner(h: Tensor) -> Tensor:
        return torch.cond(x[0, 0] > 0, lambda h: m.a(h).sin(), lambda h: h * 2, (h,))

    return torch.cond(x.sum() > 0, inner, lambda h: m.b(h).relu(), (h,))


def _shared(m: Any, x: Tensor, h: Tensor) -> Tensor:
    common = m.a(h)
    return torch.cond(x.sum() > 0, lambda h, c: h + c, lambda h, c: c.sin(), (h, common)) + common


def _written(m: Any, x: Tensor, h: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda h: m.a(h).mul(3).relu_(), m.b, (h,)).add_(1.0)


MIDDLES: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "two layers": lambda m, x, h: torch.cond(x.sum() > 0, lambda h: m.a(h).relu(), lambda h: m.b(h).sin(), (h,)),
    "scaled sums": lambda m, x, h: torch.cond(
        x.sum() > 0, lambda h: h * h.sum(-1, keepdim=True), lambda h: h.sin() * h.square().sum(-1, keepdim=True), (h,)
    ),
    "several in a row": lambda m, x, h: torch.cond(
        x[0, 0] > 0, m.b, lambda h: h.sin(), (torch.cond(x.sum() > 0, m.a, m.b, (h,)),)
    ),
    "nested": _nested,
    "shared": _shared,
    "written": _written,
}


@pytest.mark.parametrize("name", MIDDLES)
def test_both_branches_grow(name: str) -> None:
    model = Model(MIDDLES[name]).eval()
    made = gc.clone(model, (torch.randn(4, 5),))
    assert made.state_dict()["first.weight"].shape == (2 * WIDTH, 5)
    wide = made.module()
    for sign, start in product((1.0, -1.0), (1.0, -1.0)):
        x = sign * torch.rand(6, 5)
        x[0, 0] = start * 0.1
        result = run_lockstep(made.state, [x])
        assert result.first is None and result.worst < 1e-12, str(result.first)
        torch.testing.assert_close(wide(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_branch_is_computed_only_if_it_is_wanted() -> None:
    wide = gc.clone(Model(MIDDLES["nested"]).eval(), (torch.randn(4, 5),)).module()
    outside = [str(node.target) for node in wide.graph.nodes if node.op == "call_function"]
    assert outside.count("aten.linear.default") == 2
    assert outside.count("cond") == 1
    (x,) = (torch.rand(6, 5),)
    wide(x).sum().backward()
    trained = {
        name for name, parameter in wide.named_parameters() if parameter.grad is not None and parameter.grad.any()
    }
    assert {"a.weight", "first.weight"} <= trained and "b.weight" not in trained


def test_a_clone_with_branches_can_be_exported_again() -> None:
    x = torch.randn(4, 5)
    wide = gc.clone(Model(MIDDLES["two layers"]).eval(), (x,)).module()
    again = torch.export.export(wide, (x,)).module()
    torch.testing.assert_close(again(x), wide(x))
