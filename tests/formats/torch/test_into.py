"""Clones into another instance of the same code: widths and constants are read off the wide one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.scales import exp, ratio
from graphclone.errors import GraphcloneError
from graphclone.verification.lockstep import run_lockstep
from tests.support.clones import features, seeded
from tests.support.marks import slow_but
from tests.support.zoo import ZOO

CLONED = sorted(
    {name for name, source in ZOO.items() if source.args}
    | {"opt-mini", "pythia-mini", "gpt2", "llama-gqa", "gemma2", "bert-classifier", "resnet-basic", "t5"}
)
"""Models of plain torch, and one of every kind of transformers."""

EXACT = 1e-12


def first_output(module: nn.Module, args: Any, kwargs: Any) -> Tensor:
    with torch.no_grad():
        found = module(*args, **kwargs)
    tensor: Tensor = found if isinstance(found, Tensor) else next(iter(found.values()))
    return tensor


QUICK = ("lstm", "mlp", "mobilenet", "opt-mini", "pythia-mini", "resnet-basic", "unet")


@pytest.mark.parametrize("name", slow_but(QUICK, CLONED))
def test_a_model_is_cloned_into_its_wider_self(name: str) -> None:
    small, big = ZOO[name].build(), ZOO[name].build(2)
    clone = gc.clone(small.module, small.args, small.kwargs, into=big.module)
    inputs = tuple(t for t in (*small.args, *small.kwargs.values()) if isinstance(t, Tensor))
    by_name = dict(zip([*range(len(small.args)), *small.kwargs], inputs, strict=True))
    ordered = [by_name.get(value.name, inputs[i]) for i, value in enumerate(clone.graph.inputs)]
    result = run_lockstep(clone.state, ordered)
    assert result.first is None and result.worst <= EXACT, result
    expected, found = (first_output(m, small.args, small.kwargs) for m in (small.module, big.module))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("strategy", ["diagonal", "noisy-symmetric"])
def test_strategies(strategy: str) -> None:
    small, big = ZOO["llama-gqa"].build(), ZOO["llama-gqa"].build(3)
    gc.clone(small.module, kwargs=small.kwargs, into=big.module, strategy=strategy, seed=3)
    expected, found = (first_output(m, (), small.kwargs) for m in (small.module, big.module))
    torch.testing.assert_close(found, expected, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize("name", ["gemma", "mlp"])
def test_a_wide_model_on_the_meta_device_is_streamed_to(name: str) -> None:
    """Its tables are computed as the class does when it is loaded, or their constants could not be compared."""
    small = ZOO[name].build()
    with torch.device("meta"):
        meta = ZOO[name].module(2).eval()
    clone = gc.clone(small.module, small.args, small.kwargs, into=meta)
    assert all(tensor.is_meta for tensor in meta.parameters())
    big = ZOO[name].build(2).module
    big.load_state_dict(dict(clone.tensors()))
    expected, found = (first_output(m, small.args, small.kwargs) for m in (small.module, big))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


class Scaled(nn.Module):
    """A stream multiplied by the square root of its width, then normed: (batch, 6) -> (batch, 5)."""

    def __init__(self, hidden: int, inner: int, heads: int = 1, table: Tensor | None = None) -> None:
        super().__init__()
        self.up, self.mid = nn.Linear(6, hidden), nn.Linear(hidden, inner)
        self.down = nn.Linear(inner, 5)
        self.scale, self.heads = hidden**0.5, heads
        if table is not None:
            self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.up(x) * self.scale)
        if hasattr(self, "table"):
            y = y + self.table
        z: Tensor = self.down(torch.relu(self.mid(y)))
        return z


def scaled(*sizes: Any) -> nn.Module:
    made: nn.Module = seeded(lambda: Scaled(*sizes)).eval()
    return made


def test_constants_of_the_wide_code_are_made_up_for() -> None:
    small, big, x = scaled(10, 14), scaled(30, 28), features(3, 6)
    clone = gc.clone(small, (x,), into=big)
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(big.up.weight[:10], small.up.weight / 3**0.5)  # type: ignore[union-attr, index, operator]
    assert [group.size for group in clone.dims if any(factor > 1 for factor in clone.factors(group))] == [10, 14]
    assert not [node for node in clone.graph.nodes if "_rescaled_for_" in node.name]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [(8**0.5, 16**0.5, 2**0.5), (1.0, 3.0, 3.0), (7**0.25, 14**0.25, 2**0.25), (0.1, 0.7137, 7.137)],
)
def test_ratio(old: float, new: float, expected: float) -> None:
    assert exp(ratio(old, new)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("big", "message"),
    [
        (
            lambda: scaled(5, 14),
            "axis 0 of up.weight is 10 in the narrow model, 5 in the wide one, and nothing shrinks",
        ),
        (lambda: nn.Linear(6, 5).eval(), "are not the same code at two widths: only Scaled has up.weight"),
        (lambda: scaled(20, 14).double(), "is float32 in the one and float64 in the other; cast one"),
        (lambda: scaled(20, 14).train(), "put both into eval mode"),
        (lambda: "wide", "into must be a torch.nn.Module, got str"),
    ],
)
def test_what_is_no_wider_instance(big: Any, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message):
        gc.clone(scaled(10, 14), (features(3, 6),), into=big())


def test_tables_must_hold_the_numbers_of_the_narrow_model() -> None:
    x, table = features(3, 6), torch.arange(10.0)
    small = scaled(10, 14, 1, table)
    big = scaled(20, 14, 1, table.repeat(2))
    gc.clone(small, (x,), into=big)
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)
    among_others = scaled(20, 14, 1, torch.arange(20.0).flip(0))
    gc.clone(small, (x,), into=among_others)
    torch.testing.assert_close(among_others(x), small(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(GraphcloneError, match="table: the wide model computes this table from its widths"):
        gc.clone(small, (x,), into=scaled(20, 14, 1, torch.arange(20.0) + 0.5))


class Ramped(nn.Module):
    """What is multiplied by a table of two rows, of which the last is the same in all columns."""

    def __init__(self, width: int, steps: int = 1) -> None:
        super().__init__()
        self.up, self.down, self.steps = nn.Linear(5, width), nn.Linear(width, 3), steps

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.arange(self.up.out_features) / self.steps
        return self.down(self.up(x) * torch.stack([ramp, torch.ones_like(ramp)]))


def test_columns_of_a_table_that_end_alike_are_told_apart() -> None:
    x = torch.randn(2, 5)
    small, big = Ramped(6).eval(), Ramped(12, 2).eval()
    clone = gc.clone(small, (x,), into=big)
    assert [growth.entries for growth in clone.state.growths.values()] == [(0, -1, 1, -1, 2, -1, 3, -1, 4, -1, 5, -1)]
    assert run_lockstep(clone.state, [x]).worst < 1e-12
    torch.testing.assert_close(big(x), small(x))


def test_an_output_that_is_a_width_needs_to_be_named() -> None:
    small, big, x = nn.Linear(6, 10).eval(), nn.Linear(6, 20).eval(), features(3, 6)
    with pytest.raises(GraphcloneError, match=r"keeps its shape \(output\); widen_io=\['output'\] lets it grow"):
        gc.clone(small, (x,), into=big)
    gc.clone(small, (x,), into=big, widen_io=["output"])
    torch.testing.assert_close(big(x), small(x).repeat(1, 2))


class Headed(nn.Module):
    """A table of tokens and a head, one tensor or two: (batch, length) -> (batch, length, 11)."""

    def __init__(self, hidden: int, *, tied: bool) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(11, hidden), nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 11, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.table(tokens)))
        return found


def test_two_weights_cannot_become_one() -> None:
    with pytest.raises(GraphcloneError, match=r"table.weight and head.weight are one tensor in the wide Headed only"):
        gc.clone(Headed(6, tied=False).eval(), (torch.ones(2, 5).long(),), into=Headed(12, tied=True).eval())


def test_an_untied_wide_model_takes_what_a_tied_one_cannot() -> None:
    small, tied = ZOO["olmo-mini"].build(), ZOO["olmo-mini"].build(2)
    with pytest.raises(GraphcloneError, match=r"2.0 times too large.*lm_head.weight are not tied can be cloned into"):
        gc.clone(small.module, kwargs=small.kwargs, into=tied.module)
    config: Any = tied.module.config
    config.tie_word_embeddings = False
    untied = type(tied.module)(config).eval()  # type: ignore[call-arg]
    gc.clone(small.module, kwargs=small.kwargs, into=untied)
    expected, found = (first_output(m, (), small.kwargs) for m in (small.module, untied))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


class Heads(nn.Module):
    """(batch, length, 6) -> (batch, length, 5), an attention that spells its heads as numbers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, width) for _ in range(3))
        self.o, self.heads = nn.Linear(width, 5), heads

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (m(x).view(b, t, self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        mixed = ((q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5).softmax(-1) @ v
        y: Tensor = self.o(mixed.transpose(1, 2).reshape(b, t, -1))
        return y


class Convolved(nn.Module):
    """(batch, 3, 9, 9) -> (batch, 2, 5, 5), channels in groups that are shuffled."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3)
        self.second = nn.Conv2d(width, width, 3, groups=groups)
        self.norm, self.last, self.groups = nn.GroupNorm(groups, width), nn.Conv2d(width, 2, 1), groups

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.second(torch.relu(self.first(x))))
        b, c, h, w = y.shape
        y = y.view(b, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(b, c, h, w)
        z: Tensor = self.last(y)
        return z


class Cut(nn.Module):
    """(batch, 6) -> (batch, 5), of the first channels only, however many there are."""

    def __init__(self, width: int, first: int) -> None:
        super().__init__()
        self.up, self.down, self.first = nn.Linear(6, width), nn.Linear(first, 5), first

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(torch.tanh(self.up(x))[:, : self.first])
        return y


NUMBERS: dict[str, tuple[type[nn.Module], tuple[int, int], tuple[int, int], Tensor]] = {
    "heads stay": (Heads, (8, 4), (16, 4), features(2, 3, 6)),
    "heads grow": (Heads, (8, 4), (16, 8), features(2, 3, 6)),
    "heads grow and widen": (Heads, (8, 4), (48, 8), features(2, 3, 6)),
    "groups stay": (Convolved, (8, 2), (24, 2), features(2, 3, 9, 9)),
    "groups grow": (Convolved, (8, 2), (24, 6), features(2, 3, 9, 9)),
    "groups grow and widen": (Convolved, (8, 2), (32, 4), features(2, 3, 9, 9)),
    "a cut stays": (Cut, (8, 4), (16, 4), features(3, 6)),
    "a cut moves": (Cut, (8, 4), (16, 8), features(3, 6)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_in_the_wide_code_are_equations_like_its_shapes(name: str) -> None:
    """The same shapes may be reached by more groups or by wider ones; what the code says decides."""
    made, narrow, wide, x = NUMBERS[name]
    small, big = (seeded(lambda sizes=sizes: made(*sizes)).double().eval() for sizes in (narrow, wide))
    clone = gc.clone(small, (x.double(),), into=big)
    torch.testing.assert_close(big(x.double()), small(x.double()), rtol=1e-11, atol=1e-12)
    assert clone.verify(sets=2, onnx=False).ok


def test_numbers_that_no_growth_gives_are_refused() -> None:
    with pytest.raises(GraphcloneError, match=r"num_groups .* is 4 in the narrow model, 3 in the wide one"):
        gc.clone(seeded(lambda: grouped(8, 4)), (features(3, 6),), into=seeded(lambda: grouped(24, 3)))


@pytest.mark.parametrize("groups", [4, 6, 12])
def test_groups_and_their_members_grow_to_any_number(groups: int) -> None:
    clone = gc.clone(seeded(lambda: grouped(8, 4)), (features(3, 6),), into=seeded(lambda: grouped(24, groups)))
    assert clone.verify(onnx=False).ok


def grouped(width: int, groups: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.GroupNorm(groups, width), nn.Linear(width, 5)).eval()


class TwoParts(nn.Module):
    """Two streams, one taken off the other, or side by side and normed: (batch, 6) -> (batch, 5)."""

    def __init__(self, first: int, second: int, *, joined: bool = False, swapped: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, first), nn.Linear(6, second)
        width = first + second if joined else first
        self.norm, self.down = nn.LayerNorm(width), nn.Linear(width, 5)
        self.joined, self.swapped = joined, swapped

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.tanh(self.first(x)), torch.tanh(self.second(x))
        if self.swapped:
            a, b = b, a
        y: Tensor = self.down(self.norm(torch.cat([a, b], -1) if self.joined else a - b))
        return y


def test_operands_in_another_order_are_other_code() -> None:
    small, big = TwoParts(10, 10).eval(), TwoParts(20, 20, swapped=True).eval()
    with pytest.raises(GraphcloneError, match=r"linear reads first.weight in the one and second.weight in the other"):
        gc.clone(small, (features(3, 6),), into=big)


def test_what_is_averaged_over_must_grow_evenly() -> None:
    small, x = seeded(lambda: TwoParts(10, 14, joined=True)).eval(), features(3, 6)
    big = TwoParts(20, 28, joined=True).eval()
    gc.clone(small, (x,), into=big)
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(GraphcloneError, match="first cannot grow from 10 to 20: what is beside it in the same axis"):
        gc.clone(small, (x,), into=TwoParts(20, 14, joined=True).eval())


class Gated(nn.Module):
    """(batch, 6) -> (batch, 5) by way of a gated linear unit, whose two halves are one dim."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 2 * inner), nn.Linear(inner, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(nn.functional.glu(self.up(x), -1))
        return y


def test_a_part_that_occurs_twice_counts_twice() -> None:
    small, big, x = seeded(lambda: Gated(8)).eval(), Gated(24).eval(), features(3, 6)
    gc.clone(small, (x,), into=big)
    torch.testing.assert_close(big(x), small(x), rtol=1e-5, atol=1e-6)


class Halves(nn.Module):
    """A product of keys whose halves change places, each half as wide as n."""

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n, self.q, self.k, self.o = n, nn.Linear(3, 2 * n), nn.Linear(3, 2 * n), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        k = self.k(x)
        k = torch.cat((-k[..., self.n :], k[..., : self.n]), -1)
        return self.o(self.q(x) @ k.transpose(-1, -2))


def test_what_has_one_element_grows_as_the_wide_model_says() -> None:
    wide = Halves(2).eval()
    clone = gc.clone(Halves().eval(), (torch.randn(4, 5, 3),), into=wide)
    assert clone.verify(onnx=False).ok


def test_what_no_input_reaches_is_left_as_the_wide_module_has_it() -> None:
    class Net(nn.Module):
        """(batch, 4) -> (batch, 3), and to (batch, 2) in train mode"""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.body, self.head, self.other = nn.Linear(4, width), nn.Linear(width, 3), nn.Linear(width, 2)

        def forward(self, x: torch.Tensor) -> Any:
            h = torch.relu(self.body(x))
            return (self.head(h), self.other(h)) if self.training else self.head(h)

    small, wide = seeded(lambda: Net(6)).eval(), Net(12).eval()
    before = wide.other.weight.detach().clone()
    clone = gc.clone(small, (features(5, 4),), into=wide)
    assert clone.verify(onnx=False).verdict == "equivalent"
    assert torch.equal(wide.other.weight, before)
    assert "not reached by the example inputs, and left as the wide module has it: other.weight" in clone.graph.notes
