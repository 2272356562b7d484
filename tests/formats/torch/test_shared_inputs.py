"""One tensor for several inputs: a trace has each of them by itself, and refuses what the code tells apart."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.guards import InputError

X, Y = torch.randn(3, 5, 8), torch.randn(3, 7, 8)


class Cross(nn.Module):
    """Attends from one input to another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.attention, self.last = (
            nn.Linear(8, 12),
            nn.MultiheadAttention(12, 2, batch_first=True),
            nn.Linear(12, 2),
        )

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        query, key = self.first(query), self.first(key)
        return self.last(self.attention(query, key, key)[0])


class Asks(Cross):
    """Computes something else if both inputs are one tensor."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(query))) if query is key else super().forward(query, key)


@pytest.mark.parametrize("traced", [(X, X), (X, Y)], ids=["one", "two"])
def test_inputs_are_read_each_by_itself_whatever_was_traced(traced: tuple[Tensor, Tensor]) -> None:
    model = Cross().eval()
    cloned = gc.clone(model, traced, dynamic_axes={"query": [1], "key": [1]})
    assert cloned.verify().ok
    for given in ((X, X), (X, Y), (Y, Y.clone())):
        torch.testing.assert_close(cloned.module()(*given), model(*given))


def test_attention_of_torch_on_one_tensor_takes_three() -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    wide = gc.clone(model, (X, X, X)).module()
    for given in ((X, X, X), (X, X.flip(0), X.flip(1)), (X, X.flip(0), X)):
        torch.testing.assert_close(wide(*given)[0], model(*given)[0])


def test_one_tensor_is_refused_where_the_code_asks_for_it() -> None:
    model = Asks().eval()
    wide = gc.clone(model, (X, X + 1)).module()
    torch.testing.assert_close(wide(X, X.clone()), model(X, X.clone()))
    for module in (wide, copy.deepcopy(wide)):
        with pytest.raises(InputError, match="query and key are one tensor, and the code asks for that; give a copy"):
            module(X, X)


def test_an_example_of_one_tensor_is_none_of_such_a_model() -> None:
    with pytest.raises(GraphcloneError, match="the example inputs are not those it was traced with: query and key are"):
        gc.clone(Asks().eval(), (X, X)).verify()


def test_only_the_pair_that_the_code_asks_for_is_refused() -> None:
    class Three(Asks):
        def forward(self, query: Tensor, key: Tensor, more: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(query, key) + self.last(self.first(more))

    model = Three().eval()
    wide = gc.clone(model, (X, X + 1, X + 2)).module()
    torch.testing.assert_close(wide(X, X + 1, X), model(X, X + 1, X))
    with pytest.raises(InputError, match="query and key are one tensor"):
        wide(X, X, X)


def test_an_input_that_is_a_weight_as_well_is_an_input() -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(8, 12), nn.Linear(12, 2)
            self.register_buffer("places", torch.randn(5, 8))
            self.start = torch.randn(5, 8)

        def forward(self, x: Tensor, places: Tensor, start: Tensor, bias: Tensor) -> Tensor:
            h = self.first(x + self.places + 2 * places + self.start * start)
            return self.last(torch.tanh(h)) + bias

    model = Placed().eval()
    example = (X, model.places, model.start, model.last.bias)
    wide = gc.clone(model, example).module()
    for given in (example, (X, X[0], X[1], torch.ones(2))):
        torch.testing.assert_close(wide(*given), model(*given))
