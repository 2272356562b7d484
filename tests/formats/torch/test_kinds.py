"""Kinds of numbers: a clone's module takes those it was traced with, and others only where nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.guards import InputError
from graphclone.formats.torch.trace_check import FAST_PATH


class Encoder(nn.Module):
    """Takes a mask of floats, which is added, or of booleans, which is filled in."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(12, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=mask))


X = torch.randn(2, 5, 12)
HIDDEN = torch.arange(10).view(2, 5) % 4 == 3


def test_a_mask_of_booleans_is_none_of_floats(tmp_path: Path) -> None:
    model, added = Encoder().eval(), HIDDEN.float() * -1e9
    clone = gc.clone(model, (X, added))
    wide = clone.module()
    torch.testing.assert_close(wide(X, added), model(X, added), rtol=0, atol=1e-5)
    assert (model(X, HIDDEN.float()) - model(X, HIDDEN)).abs().max() > 0.01
    with pytest.raises(InputError, match=r"mask is of torch.bool, traced with torch.float32"):
        wide(X, HIDDEN)
    clone.save(tmp_path / "wide.pt2")
    program = torch.export.load(tmp_path / "wide.pt2").module()
    torch.testing.assert_close(program(X, added), model(X, added), rtol=0, atol=1e-5)
    with pytest.raises(RuntimeError, match="dtype mismatch"):
        program(X, HIDDEN)


class Picture(nn.Module):
    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.asks = asks
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.asks or x.dtype == torch.uint8:
            x = x / 255
        return self.last(torch.tanh(self.first(x.to(self.first.weight.dtype))))


@pytest.mark.parametrize("asks", [False, True])
def test_other_integers_are_taken_where_the_code_does_not_ask_for_them(asks: bool) -> None:
    model, x = Picture(asks).eval(), torch.randint(0, 255, (2, 6), dtype=torch.uint8)
    wide = gc.clone(model, (x,)).module()
    torch.testing.assert_close(wide(x), model(x))
    if asks:
        with pytest.raises(InputError, match=r"x is of torch.int64, traced with torch.uint8"):
            wide(x.long())
    else:
        torch.testing.assert_close(wide(x.long()), model(x.long()))
    with pytest.raises(InputError, match=r"x is of torch.float32, traced with torch.uint8"):
        wide(x.float())


def test_a_module_that_is_cast_takes_floats_of_that_precision() -> None:
    model = nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    wide = gc.clone(model, (X,)).module().double()
    torch.testing.assert_close(wide(X.double()), model.double()(X.double()))
    with pytest.raises(InputError, match=r"is of torch\.complex64"):
        wide(X.cfloat())


class Pooled(nn.Module):
    """Reads what the encoder makes of padding."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
        self.table, self.encoder, self.head = nn.Embedding(9, 12), nn.TransformerEncoder(layer, 1), nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.encoder(self.table(tokens), src_key_padding_mask=tokens == 0)
        return self.head(hidden.mean(1))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.filterwarnings("ignore:.*nested tensors")
def test_the_fast_path_of_torch_is_spoken_of_where_it_computes_something_else(padded: bool) -> None:
    tokens = torch.arange(1, 9).view(2, 4)
    if padded:
        tokens[0, 2:] = 0
    report = gc.clone(Pooled().eval(), (tokens,)).verify()
    assert report.ok
    assert (FAST_PATH in report.checks[0].summary) == padded


class Returns(nn.Module):
    """Looks at dtypes in ways that no code can be seen to do."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(6, 8), nn.Linear(8, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.last(torch.tanh(self.first(x.to(self.first.weight.dtype)))), x)


ASKING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "converted": lambda y, x: (10 * y).to(x),
    "bytes": lambda y, x: y * x.element_size(),
    "class": lambda y, x: y * (2 if x.type() in ("torch.LongTensor", "torch.FloatTensor") else 3),
}


@pytest.mark.parametrize("what", ASKING)
@pytest.mark.parametrize(("traced", "given"), [(torch.int64, torch.int32), (torch.float32, torch.float16)], ids=str)
def test_another_dtype_is_refused_if_the_model_makes_something_else_of_it(
    what: str, traced: torch.dtype, given: torch.dtype
) -> None:
    model, x = Returns(ASKING[what]).eval(), torch.randint(0, 9, (4, 6))
    wide = gc.clone(model, (x.to(traced),)).module()
    torch.testing.assert_close(wide(x.to(traced)), model(x.to(traced)))
    with pytest.raises(InputError, match=f"x is of {given}, traced with {traced}"):
        wide(x.to(given))


def test_floats_of_another_precision_are_taken_where_the_model_makes_the_same_of_them() -> None:
    model, x = Returns(lambda y, x: y + x.float().mean()).eval(), torch.randn(4, 6)
    wide = gc.clone(model, (x,)).module()
    torch.testing.assert_close(wide(x.half()), model(x.half()))


@pytest.mark.parametrize("given", [torch.float32, torch.int64], ids=str)
def test_inputs_have_to_be_contiguous_where_the_code_reads_memory(given: torch.dtype) -> None:
    def framed(x: Tensor) -> Tensor:
        return x.as_strided((x.shape[0], 2, 4), (x.stride(0), 2 * x.stride(1), x.stride(1))).flatten(1)[:, :6]

    class Framed(Returns):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(framed(x))

    x = torch.randint(0, 9, (4, 6)).to(given)
    turned = x.t().contiguous().t()
    model = Framed(lambda y, _: y).eval()
    with pytest.raises(GraphcloneError, match="not those it was traced with: x is not contiguous"):
        gc.clone(model, (turned,)).verify()
    wide = gc.clone(model, (x,)).module()
    torch.testing.assert_close(wide(x), model(x))
    with pytest.raises(InputError, match=r"x is not contiguous, and the code asks for that; give x.contiguous\(\)"):
        wide(turned)
    plain = Returns(lambda y, _: y).eval()
    torch.testing.assert_close(gc.clone(plain, (x,)).module()(turned), plain(turned))
