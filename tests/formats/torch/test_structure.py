"""Inputs in lists, tuples and dicts: a clone's module takes those of the structure it was traced with."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, defaultdict
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.guards import InputError

X, Y = torch.randn(3, 4), torch.randn(3, 4)


class Counts(nn.Module):
    """Sums over all that it is given, and asks for a key."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, batch: dict[str, Any], more: Any = ()) -> Tensor:
        h = batch["x"] * batch.get("mask", 1)
        for group in more:
            h = h + (sum(group) if isinstance(group, list | tuple) else group)
        return self.last(torch.tanh(self.first(h)))


class InOrder(Counts):
    """Reads a dict in the order of its keys."""

    def forward(self, batch: dict[str, Any], more: Any = ()) -> Tensor:
        return super().forward({"x": sum((i + 1) * value for i, value in enumerate(batch.values()))})


@pytest.mark.parametrize(
    ("traced", "given", "message"),
    [
        (({"x": X},), ({"x": X, "mask": Y},), "batch has the keys x, mask, traced with x;"),
        (({"x": X, "mask": Y},), ({"x": X},), "batch has the keys x, traced with x, mask;"),
        (({"x": X},), (X,), "batch is a Tensor, traced with a dict"),
        (({"x": X}, [Y]), ({"x": X}, [Y, Y]), "more has 2 items, traced with 1"),
        (({"x": X}, [Y, Y]), ({"x": X}, (Y,)), "more has 1 items, traced with 2"),
        (({"x": X}, [[X, Y], [Y]]), ({"x": X}, [[X, Y], [Y, X]]), r"more\[1\] has 2 items, traced with 1"),
        (({"x": X}, [Y]), ({"x": X}, Y), "more is a Tensor, traced with a list"),
    ],
)
def test_another_structure_is_refused(traced: Any, given: Any, message: str) -> None:
    model = Counts().eval()
    wide = gc.clone(model, traced).module()
    torch.testing.assert_close(wide(*traced), model(*traced))
    with pytest.raises(InputError, match=message):
        wide(*given)


def test_arguments_by_name_have_a_structure_too() -> None:
    model = Counts().eval()
    wide = gc.clone(model, ({"x": X},), {"more": [Y]}).module()
    torch.testing.assert_close(wide({"x": Y}, more=(X,)), model({"x": Y}, more=(X,)))
    with pytest.raises(InputError, match="more has 0 items, traced with 1"):
        wide({"x": X}, more=[])


def test_keys_in_another_order_are_taken_where_the_order_says_nothing() -> None:
    given, opposite = {"x": X, "mask": Y}, {"mask": Y, "x": X}
    for model in (Counts().eval(), InOrder().eval()):
        wide = gc.clone(model, (given,)).module()
        torch.testing.assert_close(wide(given), model(given))
        if isinstance(model, InOrder):
            with pytest.raises(InputError, match="batch has the keys mask, x, traced with x, mask in this order"):
                wide(opposite)
        else:
            torch.testing.assert_close(wide(opposite), model(opposite))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_copies_of_a_module_refuse_as_it_does() -> None:
    model = Counts().eval()
    wide = gc.clone(model, ({"x": X},)).module()
    for again in (copy.deepcopy(wide), pickle.loads(pickle.dumps(wide)), wide.double().float()):
        torch.testing.assert_close(again({"x": X}), model({"x": X}))
        with pytest.raises(InputError):
            again({"x": X, "mask": Y})


class Named(NamedTuple):
    x: Tensor
    mask: Tensor


class Swapped(NamedTuple):
    mask: Tensor
    x: Tensor


class ByName(Counts):
    def forward(self, batch: Any, more: Any = ()) -> Tensor:
        return super().forward({"x": batch.x, "mask": batch.mask.tanh()})


def test_a_named_tuple_is_no_other_one() -> None:
    model = ByName().eval()
    wide = gc.clone(model, (Named(X, Y),)).module()
    torch.testing.assert_close(wide(Named(Y, X)), model(Named(Y, X)))
    for given in (Swapped(Y, X), (X, Y), {"x": X, "mask": Y}):
        with pytest.raises(InputError, match=f"batch is a {type(given).__name__}, traced with a Named"):
            wide(given)


DICTS = [dict, OrderedDict, partial(defaultdict, list)]


@pytest.mark.parametrize("traced", DICTS)
@pytest.mark.parametrize("given", DICTS)
def test_dicts_of_any_class_are_dicts(traced: Any, given: Any) -> None:
    model = Counts().eval()
    wide = gc.clone(model, (traced(x=X, mask=Y),)).module()
    torch.testing.assert_close(wide(given(mask=X, x=Y)), model(given(mask=X, x=Y)))
    with pytest.raises(InputError, match="batch has the keys x, traced with x, mask"):
        wide(given(x=X))


class Attends(nn.Module):
    """Three arguments, two of which may be left out."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.keys, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        h = self.queries(query)
        h = h if key is None else h * torch.tanh(self.keys(key))
        return self.last(h if value is None else h - torch.relu(self.keys(value)))


Z = torch.randn(3, 4)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((X,), {"value": Z, "key": Y}), ((), {"value": Z, "query": X, "key": Y}), ((X, Y), {"value": Z}), ((X, Y, Z), {})],
)
def test_arguments_have_the_places_and_the_names_that_they_have_in_the_source(args: Any, kwargs: Any) -> None:
    model = Attends().eval()
    wide = gc.clone(model, args, kwargs).module()
    expected = model(X, Y, Z)
    torch.testing.assert_close(wide(X, Y, Z), expected)
    torch.testing.assert_close(wide(X, value=Z, key=Y), expected)
    torch.testing.assert_close(copy.deepcopy(wide)(value=Z, key=Y, query=X), expected)


@pytest.mark.parametrize(("args", "kwargs"), [((X,), {"value": Z}), ((), {"value": Z, "query": X})])
def test_a_place_that_the_trace_left_out_is_nobody_else_s(args: Any, kwargs: Any) -> None:
    model = Attends().eval()
    wide = gc.clone(model, args, kwargs).module()
    torch.testing.assert_close(wide(X, value=Z), model(X, value=Z))
    with pytest.raises(TypeError, match="positional argument"):
        wide(X, Z)
