"""Comparisons of a number with itself: copies of it are equal up to rounding only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.analysis.ties import _REASON
from graphclone.verification.lockstep import run_lockstep

WIDTH = 8


class Model(nn.Module):
    """A hidden width that is looked at, and another that may always grow."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.other, self.hidden, self.middle = nn.Linear(5, 6), nn.Linear(6, WIDTH), middle
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(torch.tanh(self.other(x)))
        return self.last(self.middle(h).to(h.dtype) * h)


def hidden_of(middle: Callable[[Tensor], Tensor]) -> tuple[int, str]:
    """How wide the hidden dim of a clone is, which computes the same, and what pins it."""
    model, x = Model(middle).double().eval(), torch.randn(2, 4, 5, dtype=torch.float64)
    made = gc.clone(model, (x,))
    assert made.state_dict()["other.weight"].shape[0] == 12
    result = run_lockstep(made.state, [x])
    assert result.first is None, str(result.first)
    torch.testing.assert_close(made.module()(x), model(x), rtol=1e-12, atol=1e-12)
    (pin,) = (str(dim.pin) for dim in made.dims if dim.name == "hidden")
    return made.state_dict()["hidden.weight"].shape[0], pin


TIED: dict[str, Callable[[Tensor], Tensor]] = {
    "equal to the greatest": lambda h: h == h.amax(-1, keepdim=True),
    "no less": lambda h: h >= h.amax(-1, keepdim=True),
    "less": lambda h: h < h.amax(-1, keepdim=True),
    "unequal to the least": lambda h: h.amin(-1, keepdim=True) != h,
    "greatest of all": lambda h: h == h.max(),
    "with positions": lambda h: h == h.max(-1, keepdim=True).values,
    "scaled alike": lambda h: h * 2 + 1 == (h.amax(-1, keepdim=True) * 2 + 1),
    "scaled before and after": lambda h: (h * 2).amax(-1, keepdim=True) == h * 2,
    "expanded": lambda h: h.amax(-1, keepdim=True).expand_as(h) == h,
    "unsqueezed": lambda h: h.amax(-1)[..., None] == h,
    "reshaped": lambda h: (h.view(2, 4, 2, 4) == h.view(2, 4, 2, 4).amax((-1, -2), keepdim=True)).view(2, 4, 8),
    "difference": lambda h: h - h.amax(-1, keepdim=True) == 0,
    "sign of the difference": lambda h: (h - h.amax(-1, keepdim=True)).sign(),
    "ratio cut to an integer": lambda h: (h.exp() / h.exp().amax(-1, keepdim=True)).to(torch.int64),
    "floor of the ratio": lambda h: (h.exp() / h.exp().amax(-1, keepdim=True)).floor(),
    "of a softmax": lambda h: (p := h.softmax(-1)) == p.amax(-1, keepdim=True),
    "not below 0": lambda h: h == h.amax(-1, keepdim=True).clamp(min=0),
    "greatest of two": lambda h: h == torch.maximum(h.amax(-1, keepdim=True), torch.zeros(1, dtype=h.dtype)),
    "one of them": lambda h: h == h[..., :1],
    "each with each": lambda h: (h[..., None] == h[..., None, :]).double().mean(-1),
    "masked": lambda h: h == h.masked_fill(h > 0.5, -1e4).amax(-1, keepdim=True),
}


@pytest.mark.parametrize("name", TIED)
def test_a_dim_whose_extreme_is_compared_with_its_elements_is_pinned(name: str) -> None:
    size, pin = hidden_of(TIED[name])
    assert size == WIDTH
    assert _REASON in pin or "searched for a position" in pin or "part of" in pin or name == "one of them"


MEETING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "stacked, the greatest": lambda p, q: torch.stack([p, q], -1).argmax(-1),
    "stacked, sorted": lambda p, q: torch.stack([p, q], -1).sort(-1).indices[..., 0],
    "less by a sum": lambda p, q: (p + (-q)) > 0,
    "their mean": lambda p, q: (p + q) / 2 > p,
    "a share of both": lambda p, q: torch.stack([p, q], -1).softmax(-1)[..., 0] > 0.5,
    "where it would be put": lambda p, q: torch.bucketize(p - q, torch.zeros(1, dtype=p.dtype)),
    "on the way to the other": lambda p, q: torch.lerp(p, q, 0.5) > p,
    "a ratio by exponents": lambda p, q: p.exp() * q.exp().reciprocal() > 1,
    "what is no number": lambda p, q: torch.isnan((p - q) / (q - p)),
    "with a factor": lambda p, q: torch.addcmul(p, q, torch.full_like(q, -1.0)) >= 0,
    "differences": lambda p, q: torch.stack([p, q], -1).diff(dim=-1)[..., 0] > 0,
    "a product with numbers": lambda p, q: torch.stack([p, q], -1) @ torch.tensor([1.0, -1.0], dtype=p.dtype) > 0,
    "functions of both": lambda p, q: p.tanh() + q.neg().tanh() > 0,
    "steep": lambda p, q: ((p - q).abs() + 1e-30).log(),
    "with a pole": lambda p, q: 1 / ((p - q).abs() + 1e-9),
}


@pytest.mark.parametrize("name", MEETING)
def test_each_with_each_by_any_function(name: str) -> None:
    """Not only the comparison may see that two are one, but all that comes before it."""
    meet = MEETING[name]
    assert (
        hidden_of(lambda h: meet(*torch.broadcast_tensors(h[..., None], h[..., None, :])).to(h.dtype).mean(-1))[0]
        == WIDTH
    )


FREE: dict[str, Callable[[Tensor], Tensor]] = {
    "threshold": lambda h: h > 0,
    "mean": lambda h: h > h.mean(-1, keepdim=True),
    "half the greatest": lambda h: h > 0.5 * h.amax(-1, keepdim=True),
    "the greatest in size": lambda h: h + 0.1 > h.abs().amax(-1, keepdim=True),
    "greatest over time": lambda h: h == h.amax(1, keepdim=True),
    "another tensor": lambda h: h == h.flip(1),
    "two halves": lambda h: torch.cat([h[..., :4] > h[..., 4:]] * 2, -1),
    "itself": lambda h: h == h.clone(),
    "a softmax in steps": lambda h: (e := (h - h.amax(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True) > 0.2,
    "rounded to a grid": lambda h: (h / (h.amax(-1, keepdim=True) - h.amin(-1, keepdim=True)) * 9).round(),
    "greatest used otherwise": lambda h: h * h.amax(-1, keepdim=True) > 0,
    "greater of two": lambda h: torch.maximum(h, h.flip(1)) == h,
    "products of each with each": lambda h: (h @ h.mT @ h) > 0.1,
    "gated by itself": lambda h: h * h.sigmoid() + h > 0.3,
}


@pytest.mark.parametrize("name", FREE)
def test_other_comparisons_hold_nothing_back(name: str) -> None:
    assert hidden_of(FREE[name])[0] == 2 * WIDTH


class Pair(nn.Module):
    """What one encoder makes of two inputs, which may be equal, side by side."""

    def __init__(self, compare: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.last, self.compare = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3), compare

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = self.hidden(x), self.hidden(y)
        return self.last(u) * self.compare(u, v).to(u.dtype).sum(-1, keepdim=True)


@pytest.mark.parametrize(
    ("compare", "grows"),
    [
        (lambda u, v: u >= v.amax(-1, keepdim=True), False),
        (lambda u, v: (u[..., None] == v[..., None, :]).any(-1), False),
        (lambda u, v: u.amax(-1, keepdim=True) > v.amax(-1, keepdim=True) + 0.1, True),
        (lambda u, v: u.mean(-1, keepdim=True) > 0, True),
    ],
)
def test_two_inputs_may_be_one(compare: Callable[[Tensor, Tensor], Tensor], grows: bool) -> None:
    x = torch.randn(2, 5, dtype=torch.float64)
    (dim,) = (
        dim for dim in gc.trace(Pair(compare).double().eval(), (x, torch.randn_like(x))).dims if dim.size == WIDTH
    )
    assert (dim.pin is None) is grows
