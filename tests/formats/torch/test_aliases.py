"""Tensors that the code makes and writes into, by one name or another: no call of a clone leaves traces in the next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.reader import trace_module
from graphclone.passes.canonicalize import Canonicalize
from graphclone.pipeline.state import Request, State

WIDTH = 8


class Written(nn.Module):
    """A tensor made in the code, written into through an alias, and read."""

    def __init__(self, alias: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...] = (WIDTH,)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.alias, self.shape = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, WIDTH)), alias, shape

    def forward(self, x: Tensor) -> Tensor:
        h, t = self.first(x), torch.zeros(self.shape)
        self.alias(h, t).add_(1.0)
        return (h * t).sum(-1).sin()


ALIASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "type_as": lambda h, t: t.type_as(h),
    "einsum": lambda h, t: torch.einsum("i->i", t),
    "expand": lambda h, t: t.expand(WIDTH),
    "expand_as": lambda h, t: t.expand_as(h[0]),
    "to": lambda h, t: t.to(h.dtype),
    "to other": lambda h, t: t.to(h),
    "float": lambda h, t: t.float(),
    "contiguous": lambda h, t: t.contiguous(),
    "reshape": lambda h, t: t.reshape(2, WIDTH // 2),
    "reshape_as": lambda h, t: t.reshape_as(h[0]),
    "flatten": lambda h, t: t.flatten(),
    "atleast_2d": lambda h, t: torch.atleast_2d(t),
    "meshgrid": lambda h, t: torch.meshgrid(h[0].detach(), t, indexing="ij")[1][0],
    "narrow": lambda h, t: t.narrow(0, 2, 3),
    "unbind": lambda h, t: t.unbind()[3],
    "split": lambda h, t: t.split(2)[1],
    "chunk": lambda h, t: t.chunk(2)[1],
    "tensor_split": lambda h, t: t.tensor_split(2)[1],
    "unsafe_split": lambda h, t: torch.unsafe_split(t, 4)[1],
    "dropout": lambda h, t: nn.functional.dropout(t, 0.5, training=False),
    "detach": lambda h, t: t.detach(),
    "real": lambda h, t: t.real,
    "unfold": lambda h, t: t.unfold(0, 2, 2)[0],
    "to the same again": lambda h, t: t.to(h.dtype).to(h.dtype),
    "several": lambda h, t: t.type_as(h).flatten().to(h.dtype)[2:],
}


def assert_calls_agree(model: nn.Module, *inputs: Tensor) -> None:
    """Calls 1, 2, 3 of a clone are what calls 1, 2, 3 of the model are."""
    wide = gc.clone(model.eval(), inputs).module()
    for _ in range(3):
        torch.testing.assert_close(wide(*inputs), model(*inputs))


@pytest.mark.parametrize("name", ALIASES)
def test_what_is_written_into_by_another_name_is_no_constant(name: str) -> None:
    assert_calls_agree(Written(ALIASES[name]), torch.randn(4, 5))


OF_THE_BATCH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "broadcast_tensors": lambda h, t: torch.broadcast_tensors(h, t)[1],
    "movedim": lambda h, t: t.movedim(0, 1),
    "permute": lambda h, t: t.permute(1, 0),
    "where it is the second of two": lambda h, t: torch.broadcast_tensors(t, h)[0][:2],
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_what_is_written_into_need_not_be_the_first_operand(name: str) -> None:
    assert_calls_agree(Written(OF_THE_BATCH[name], (1, WIDTH)), torch.randn(1, 5))


def test_what_the_caller_writes_into_is_no_constant() -> None:
    class Returned(Written):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return self.first(x).sum(-1).sin(), torch.zeros(3).expand(2, 3)[0]

    x = torch.randn(4, 5)
    wide = gc.clone(Returned(lambda h, t: t).eval(), (x,)).module()
    for _ in range(2):
        _, state = wide(x)
        assert not state.any()
        state.add_(1.0)


def test_what_is_converted_twice_is_what_it_was_the_first_time() -> None:
    class Converted(Written):
        def forward(self, x: Tensor) -> Tensor:
            h, t = self.first(x), torch.zeros(self.shape)
            before = t.to(torch.float64)
            t.add_(1.0)
            return (h * before.to(torch.float64) + h * t).float().sum(-1).sin()

    assert_calls_agree(Converted(lambda h, t: t), torch.randn(4, 5))


FRESH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda h, t: h + t,
    "linear": lambda h, t: nn.functional.linear(t.expand(2, WIDTH), h.mT @ h),
    "clone": lambda h, t: t.clone() + h,
    "cat": lambda h, t: torch.cat([t[None], h]),
    "other dtype": lambda h, t: t.double() + h,
}


@pytest.mark.parametrize("name", FRESH)
def test_a_result_of_its_own_leaves_its_operands_constant(name: str) -> None:
    class Fresh(Written):
        def forward(self, x: Tensor) -> Tensor:
            h, t = self.first(x), torch.arange(WIDTH, dtype=torch.float32)
            return self.alias(h, t).mul_(2.0).sum(-1).sin()

    graph = trace_module(Fresh(FRESH[name]).eval(), (torch.randn(4, 5),))
    Canonicalize()(State(graph, Request()))
    assert not any(node.op.startswith("aten.arange") for node in graph.nodes)


def _written_late(h: Tensor, t: Tensor) -> Tensor:
    view = h.view(-1, 2, WIDTH // 2)
    h.mul_(2.0)
    return view


def _written_early(h: Tensor, t: Tensor) -> Tensor:
    return h.mul_(2.0).view(-1, 2, WIDTH // 2)


@pytest.mark.parametrize(
    ("alias", "expected"), [(_written_late, "aten.view.default"), (_written_early, "aten.reshape.default")]
)
def test_a_view_of_what_is_written_into_later_stays_a_view(
    alias: Callable[[Tensor, Tensor], Tensor], expected: str
) -> None:
    class Shown(Written):
        def forward(self, x: Tensor) -> Tensor:
            return self.alias(self.first(x), x).sum(-1)

    graph = trace_module(Shown(alias).eval(), (torch.randn(4, 5),))
    Canonicalize()(State(graph, Request()))
    assert expected in [node.op for node in graph.nodes]
