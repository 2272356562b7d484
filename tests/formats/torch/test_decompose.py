"""Operators that no rule knows, and that torch defines by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.export import export
from tests.support.clones import seeded

LENGTH = 6


class Between(nn.Module):
    """(batch, 6, 5) -> (batch, .., 3), with something between two layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.down, self.function = nn.Linear(5, 8), nn.Linear(8, 3), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.function(self.up(x)))
        return y


def between(function: Callable[[Tensor], Tensor]) -> nn.Module:
    made: nn.Module = seeded(lambda: Between(function)).double().eval()
    return made


def _normed(h: Tensor) -> Tensor:
    variance, mean = torch.var_mean(h, -1, correction=0, keepdim=True)
    return (h - mean) * (variance + 1e-5).rsqrt()


def _standardized(h: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(h, 1, keepdim=True)
    return (h - mean) / (deviation + 1e-3)


def _turned_in_place(h: Tensor) -> Tensor:
    h = h.clone()
    seen, twice = h[:, :3], h * 2
    h.transpose_(0, 1)
    h.add_(1)
    h.unsqueeze_(1)
    return h.squeeze_(1).transpose(0, 1) + twice + seen.sum(1, keepdim=True)


def _chosen(h: Tensor) -> Tensor:
    return torch.take_along_dim(h, h.argsort(1), 1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a layer norm by var_mean": _normed,
    "std_mean over the sequence": _standardized,
    "aminmax": lambda h: h.aminmax(dim=1).max,
    "quantile": lambda h: h.quantile(0.3, dim=1),
    "median": lambda h: h.median(1).values,
    "kthvalue": lambda h: h.kthvalue(2, 1).values,
    "distances": lambda h: F.pairwise_distance(h, h.flip(1))[..., None] * h.flip(1),
    "count_nonzero": lambda h: (h > 0).count_nonzero(1).to(h),
    "nanmean": lambda h: h.nanmean(1),
    "take_along_dim": _chosen,
    "trapezoid": lambda h: torch.trapezoid(h, dim=1),
    "cross": lambda h: torch.linalg.cross(h[:, :3], h[:, 3:], dim=1),
    "float_power": lambda h: torch.float_power(h, 2),
    "logaddexp2": lambda h: torch.logaddexp2(h, 2 * h),
    "ndtr": torch.special.ndtr,
    "diag_embed": lambda h: torch.diag_embed(h).sum(-1),
    "select_scatter": lambda h: torch.select_scatter(h, 2 * h[:, 0], 1, 1),
    "slice_scatter": lambda h: torch.slice_scatter(h, 2 * h[:, :2], 1, 0, 2),
    "rot90": lambda h: torch.rot90(h, 1, (0, 1)),
    "kron": lambda h: torch.kron(torch.ones(1, 2, 1).to(h), h),
    "searchsorted": lambda h: torch.searchsorted(torch.linspace(-1, 1, 5).to(h), h).to(h),
    "fmax": lambda h: torch.fmax(h, h.flip(1)),
    "shapes given in place": _turned_in_place,
    "copysign": lambda h: torch.copysign(h, h - 0.1),
}


@pytest.mark.parametrize("what", FUNCTIONS)
def test_what_torch_defines_by_other_operators_grows(what: str) -> None:
    model, x = between(FUNCTIONS[what]), torch.randn(2, LENGTH, 5, dtype=torch.float64)
    clone = gc.clone(model, (x,), widen=2)
    wide = clone.module()
    assert wide.get_parameter("up.weight").shape == (16, 5)
    torch.testing.assert_close(wide(x), model(x), rtol=1e-10, atol=1e-12)
    clone.verify()


@pytest.mark.parametrize("what", ["a layer norm by var_mean", "quantile", "slice_scatter", "cross", "diag_embed"])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_it_does_so_for_other_batches(what: str, batch: int) -> None:
    model = between(FUNCTIONS[what])
    wide = gc.clone(model, (torch.randn(2, LENGTH, 5, dtype=torch.float64),), widen=3).module()
    x = torch.randn(batch, LENGTH, 5, dtype=torch.float64)
    torch.testing.assert_close(wide(x), model(x), rtol=1e-10, atol=1e-12)


@pytest.fixture
def library() -> Iterator[torch.library.Library]:
    with torch.library._scoped_library("decomposed", "FRAGMENT") as fragment:
        yield fragment


def test_an_operator_of_somebody_s_own_that_is_composite_grows(library: torch.library.Library) -> None:
    library.define("squashed(Tensor x, float by) -> Tensor")
    library.impl("squashed", lambda x, by: torch.tanh(x * by) * torch.sigmoid(x), "CompositeImplicitAutograd")
    squashed = torch.ops.decomposed.squashed.default
    model, x = between(lambda h: squashed(h, 0.5)), torch.randn(2, LENGTH, 5, dtype=torch.float64)
    wide = gc.clone(model, (x,), widen=2).module()
    torch.testing.assert_close(wide(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda h: torch.segment_reduce(h[0], "mean", lengths=torch.tensor([2, 4]), axis=0), "segment_reduce"),
        (lambda h: h + F.rrelu(h, training=True), "random slopes"),
        (lambda h: h * torch.bernoulli(torch.sigmoid(h)), "bernoulli"),
    ],
)
def test_what_has_no_such_definition_stays_as_it_is(function: Callable[[Tensor], Tensor], says: str) -> None:
    with pytest.raises(GraphcloneError, match=says):
        gc.clone(between(function), (torch.randn(2, LENGTH, 5, dtype=torch.float64),), widen=2)


def test_a_trace_without_such_operators_is_left_alone() -> None:
    """Operators with a rule, or with a spelling that has one, stay what the user wrote."""
    model, x = between(lambda h: h.std(1) + h.chunk(2, 1)[0].mean(1)), torch.randn(2, LENGTH, 5, dtype=torch.float64)
    targets = {str(node.target) for node in export(model, (x,), {}, "model").program.graph.nodes}
    assert {"aten.std.dim", "aten.chunk.default"} <= targets


def test_so_it_is_without_weights() -> None:
    """As a model is looked at that is large, or whose checkpoint has not been read."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        groups = gc.trace(Between(_normed).eval(), (torch.randn(2, LENGTH, 5),)).dims
    assert next(group for group in groups if group.name == "up").pin is None
