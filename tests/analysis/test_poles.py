"""What is divided by, and what a root or a logarithm is taken of, is not 0 at pads: 0 / 0 is no number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.models.randomise import randomise

WIDTH, WIDER = 10, 15


class Added(nn.Module):
    """A stream, to which a branch adds what a function makes of it, and an RMS norm, which wants 0 at pads."""

    def __init__(self, branch: Callable[[Added, Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.first, self.inner = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.matrix, self.gain = nn.Parameter(torch.empty(WIDTH, WIDTH)), nn.Parameter(torch.empty(WIDTH))
        self.norm, self.branch = nn.RMSNorm(WIDTH, eps=1e-6), branch

    def forward(self, x: Tensor) -> Tensor:
        h = self.into(x)
        h = h + self.first(torch.tanh(h))
        y: Tensor = self.out(self.norm(h + self.branch(self, h)))
        return y

    def lengths(self) -> Tensor:
        """The norm of every row."""
        norms: Tensor = torch.linalg.vector_norm(self.matrix, dim=1)
        return norms

    def product(self, h: Tensor) -> Tensor:
        return F.linear(h, self.matrix)


GROWN: dict[str, Callable[[Added, Tensor], Tensor]] = {
    "a gain over lengths": lambda m, h: m.gain / m.lengths() * m.product(h),
    "rows of one length": lambda m, h: F.linear(h, m.matrix * (m.gain / m.lengths())[:, None]),
    "a root that is divided by": lambda m, h: m.gain * m.lengths().rsqrt() * m.product(h),
    "a negative power": lambda m, h: m.gain * m.lengths() ** -0.5 * m.product(h),
    "a parameter": lambda m, h: m.inner(h) / m.gain,
    "a number added": lambda m, h: m.product(h) / (m.lengths() + 1e-3),
    "what is not 0 at 0": lambda m, h: m.inner(h) / torch.sigmoid(m.product(h)),
    "a quotient added": lambda m, h: torch.addcdiv(h, m.inner(h), m.gain, value=0.5),
    "a logarithm": lambda m, h: m.product(h) * torch.log(m.gain),
    "of two summands one": lambda m, h: m.inner(h) / (m.product(h) + m.gain),
    "a remainder": lambda m, h: m.product(h) * torch.remainder(h, m.gain),
}


@pytest.mark.parametrize("strategy", ["symmetric", "fresh"])
@pytest.mark.parametrize("name", GROWN)
def test_what_must_not_be_0_is_not(name: str, strategy: str) -> None:
    model, x = sized(GROWN[name]), torch.randn(7, 6, dtype=torch.float64)
    wide = gc.clone(model, (x,), sizes={"hidden": WIDER}, strategy=strategy).module()
    torch.testing.assert_close(wide(x), model(x))
    wide(x).square().sum().backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e5 for p in wide.parameters())


REFUSED: dict[str, tuple[Callable[[Added, Tensor], Tensor], str]] = {
    "the length of what is divided": (lambda m, h: m.product(h) / m.lengths(), "div"),
    "its root": (lambda m, h: torch.sqrt(m.product(h) ** 2), "sqrt"),
    "its logarithm": (lambda m, h: h * torch.log(h.abs()), "log"),
    "its power": (lambda m, h: h * h.abs() ** 0.3, "pow"),
    "its distance from the mean": (lambda m, h: m.inner(h) / (h - h.mean(-1, keepdim=True)), "div"),
    "itself": (lambda m, h: m.inner(h) / h, "div"),
    "itself, but for very little": (lambda m, h: m.inner(h) / (h + 1e-9), "div"),
    "a least length": (lambda m, h: F.linear(h, F.normalize(m.matrix, dim=1)), "div"),
    "the length of a pair": (lambda m, h: torch.hypot(h, m.inner(h)), "hypot"),
    "a mean square and very little": (lambda m, h: h * (h.square().mean(0, keepdim=True) + 1e-6).rsqrt(), "rsqrt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_0_is_refused_with_the_node(name: str) -> None:
    branch, op = REFUSED[name]
    with pytest.raises(GraphcloneError, match=rf"no whole multiple: .*\b{op}"):
        gc.clone(sized(branch), (torch.randn(7, 6, dtype=torch.float64),), sizes={"hidden": WIDER})


def sized(branch: Callable[[Added, Tensor], Tensor]) -> Added:
    model = randomise(Added(branch)).double().eval()
    with torch.no_grad():
        model.gain.uniform_(0.5, 2.0)
    return model
