"""The vocabulary of one-hot inputs, however they are spelled: it counts ids, and is no hidden dim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from tests.support.onnx_graphs import parse, widened


class Compared(nn.Module):
    """Places of tokens in a vocabulary, which a matrix is multiplied with."""

    def __init__(self, places: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.places = places
        self.table, self.head = nn.Linear(11, 6, bias=False), nn.Linear(6, 3)
        self.register_buffer("ids", torch.arange(11))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.table(self.places(x, self.ids).float())))  # type: ignore[arg-type]
        return y


@pytest.mark.parametrize(
    "places",
    [
        lambda x, ids: nn.functional.one_hot(x, 11),
        lambda x, ids: x[..., None] == torch.arange(11),
        lambda x, ids: torch.arange(11).view(1, 1, 11).to(x.device).eq(x.unsqueeze(-1)),
        lambda x, ids: x[..., None] == ids,
        lambda x, ids: x[..., None] == ids.view(1, 1, -1),
        lambda x, ids: ~(x[..., None] != ids[None, None]),
        lambda x, ids: torch.eye(11)[x],
        lambda x, ids: torch.eye(11, dtype=torch.int64)[x],
        lambda x, ids: torch.eye(11).index_select(0, x.flatten()).view(*x.shape, 11),
        lambda x, ids: nn.functional.embedding(x, 3 * torch.eye(11).t()),
        lambda x, ids: torch.cat([torch.zeros(1, 11), torch.eye(11)])[x],
    ],
)
def test_a_vocabulary_keeps_its_size(places: Callable[[Tensor, Tensor], Tensor]) -> None:
    found = {g.size: g for g in gc.trace(Compared(places).eval(), (torch.randint(0, 11, (2, 7)),)).dims}
    assert found[11].pin is not None and not found[11].default
    assert found[6].pin is None and found[6].default


_ONE_HOT = "h = OneHot<axis=-1>(x, depth, values)"
_EQUAL = "u = Unsqueeze(x, last) e = Equal(u, ids) h = Cast<to=1>(e)"
_RANGE = "u = Unsqueeze(x, last) r = Range(zero, depth, one) e = Equal(r, u) h = Cast<to=1>(e)"


_IDENTITY = "h = Gather(identity, x)"
_WHERE = _EQUAL.replace("Cast<to=1>(e)", "Where(e, unit, nil)")


@pytest.mark.parametrize("places", [_ONE_HOT, _EQUAL, _RANGE, _WHERE, _IDENTITY])
def test_a_vocabulary_of_a_file_keeps_its_size(places: str) -> None:
    text = f"g (int64[2, 7] x) => (float[2, 7, 3] y) {{ {places} a = MatMul(h, up) b = Tanh(a) y = MatMul(b, down) }}"
    numbers = {"last": [-1], "ids": range(11), "zero": 0, "one": 1, "depth": 11}
    floats = {"values": [0, 1], "unit": 1, "nil": 0, "identity": np.eye(11)}
    weights = {name: np.array(number) for name, number in numbers.items() if name in text}
    weights |= {name: np.array(number, np.float32) for name, number in floats.items() if name in text}
    state = widened(parse(text, {"up": (11, 6), "down": (6, 3), **weights}))
    shapes = {i.name: i.value.shape for i in state.graph.initializers}
    assert shapes["up"] == (11, 12) and shapes["down"] == (12, 3)


def test_a_table_that_marks_more_grows() -> None:
    table = torch.eye(11) + torch.eye(11).roll(1, 0)
    found = {
        g.size: g for g in gc.trace(Compared(lambda x, ids: table[x]).eval(), (torch.randint(0, 11, (2, 7)),)).dims
    }
    assert found[11].pin is None


def test_an_identity_that_is_added_grows() -> None:
    products = "s = Add(w, identity) h = MatMul(x, up) a = MatMul(h, s) y = MatMul(a, down)"
    weights = {"up": (5, 11), "w": (11, 11), "down": (11, 3), "identity": np.eye(11, dtype=np.float32)}
    state = widened(parse(f"g (float[2, 5] x) => (float[2, 3] y) {{ {products} }}", weights))
    assert {i.name: i.value.shape for i in state.graph.initializers}["up"] == (5, 22)
