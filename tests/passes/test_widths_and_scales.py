"""Requests, refusals and the balancing of scales, on small models made for the case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone import Clone
from graphclone.algebra.growth import Concat, Growth, Leaf, Product, rigid
from graphclone.models.randomise import randomise
from graphclone.passes.rewrite_literals import _ratio
from graphclone.verification.lockstep import run_lockstep
from tests.support.marks import slow_but

WIDTH = 24


class Model(nn.Module):
    """Input of 5, hidden of 24, output of 7; what is in between is given."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor], **extra: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(5, WIDTH)
        self.last = nn.Linear(WIDTH, 7)
        self.middle = middle
        for name, module in extra.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, torch.tanh(self.first(x))))


def clone(
    middle: Callable[[Any, Tensor], Tensor],
    widen: Any = 2,
    extra: dict[str, Any] | None = None,
    **options: Any,
) -> Clone:
    """A clone of such a model, checked at every node."""
    model = Model(middle, **(extra or {})).eval()
    made = gc.clone(model, (torch.randn(3, 5),), widen=widen, **options)
    assert_exact(made, [torch.randn(3, 5)])
    return made


def assert_exact(made: Clone, inputs: Sequence[Tensor]) -> None:
    result = run_lockstep(made.state, inputs)
    assert result.first is None and result.worst < 1e-12, str(result.first)


def inserted(made: Clone) -> int:
    return sum("_rescaled_for_" in node.name for node in made.graph.nodes)


def hidden_of(made: Clone) -> int:
    return made.state_dict()["first.weight"].shape[0]


# Reductions, each with the factor that copies give it


@pytest.mark.parametrize(
    "middle",
    [
        lambda m, h: h * h.sum(-1, keepdim=True),
        lambda m, h: h * h.mean(-1, keepdim=True),
        lambda m, h: h / h.norm(dim=-1, keepdim=True),
        lambda m, h: h / torch.linalg.vector_norm(h, ord=1, dim=-1, keepdim=True),
        lambda m, h: h * h.var(-1, keepdim=True),
        lambda m, h: h / h.std(-1, keepdim=True, correction=0),
        lambda m, h: torch.softmax(h, -1),
        lambda m, h: torch.tanh(h @ h.mT @ h / 100),
        lambda m, h: h * (h * h).sum(-1, keepdim=True).sqrt(),
        lambda m, h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6),
        lambda m, h: h * h.amax(-1, keepdim=True),
        lambda m, h: h * torch.einsum("bi,bi->b", h, h)[:, None],
    ],
)
@pytest.mark.parametrize("factor", [2, 3])
def test_reductions_over_the_widened_axis(middle: Callable[[Any, Tensor], Tensor], factor: int) -> None:
    made = clone(middle, factor)
    assert hidden_of(made) == WIDTH * factor


@pytest.mark.parametrize(
    "middle",
    [
        lambda m, h: torch.logsumexp(h, -1, keepdim=True) * h,
        lambda m, h: torch.cumsum(h, -1),
        lambda m, h: h.sort(-1).values,
        lambda m, h: h * h.prod(-1, keepdim=True),
        lambda m, h: torch.log_softmax(h, -1),
        lambda m, h: h.flip(-1),
    ],
)
def test_what_copies_would_change_is_pinned(middle: Callable[[Any, Tensor], Tensor]) -> None:
    with pytest.raises(gc.GraphcloneError, match="nothing to widen"):
        clone(middle)


class Blamed(nn.Module):
    """A stream under a table, whose rows and whose classes are pinned as well."""

    def __init__(self, middle: Callable[[Tensor], Tensor], *, returned: bool) -> None:
        super().__init__()
        self.unread = nn.Linear(500, 500)
        self.table, self.inner, self.last = nn.Embedding(40, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.middle, self.returned = middle, returned

    def forward(self, ids: Tensor) -> Any:
        h = self.table(ids)
        h = self.middle(h + self.inner(h))
        return h if self.returned else self.last(h)


@pytest.mark.parametrize(
    ("middle", "returned", "message"),
    [
        (lambda h: h.sort(-1).values, False, r"every dim is pinned, .* by taken in order \(sort\)"),
        (
            lambda h: h,
            True,
            r"every dim is pinned, .* by the output keeps its shape \(output\); widen_io=\['output'\] lets",
        ),
    ],
)
def test_what_is_blamed_is_what_holds_most(middle: Callable[[Tensor], Tensor], returned: bool, message: str) -> None:
    """The rows of the table come first and the classes are returned, but neither is what a user wants to grow."""
    with pytest.raises(gc.GraphcloneError, match=message):
        gc.clone(Blamed(middle, returned=returned).eval(), (torch.randint(0, 40, (2, 5)),))


class Stepped(nn.Module):
    """A step of a network that is handed its state, and convolves what it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.windows, self.first = nn.Conv1d(3, 3, 5, groups=3), nn.Linear(6, WIDTH)
        self.again, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        read: Tensor = self.last(self.again(state).tanh() + self.first(self.windows(x).flatten(1)) + state)
        return read


def test_the_state_that_a_network_is_handed_is_blamed_before_its_windows() -> None:
    with pytest.raises(gc.GraphcloneError, match=r"every dim is pinned, .* by the input keeps its shape \(state\)"):
        gc.clone(Stepped().eval(), (torch.randn(2, 3, 6), torch.randn(2, WIDTH)))


UNBIASED: dict[str, Callable[[Tensor], Tensor]] = {
    "std": lambda h: h.std(),
    "var over two axes": lambda h: h.var((0, 1), keepdim=True),
    "var over both as one": lambda h: h.flatten().var(0),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_no_factor_makes_up_for_an_unbiased_variance_over_a_dynamic_number_of_elements(name: str) -> None:
    with pytest.raises(gc.GraphcloneError, match="an unbiased variance over a dynamic number of elements"):
        clone(lambda m, h: h * UNBIASED[name](h))


@pytest.mark.parametrize(
    "middle",
    [
        lambda m, h: h * h.var((0, 1), correction=0),
        lambda m, h: h * h.flatten().std(0, correction=0),
        lambda m, h: h * h.var(0, keepdim=True),
        lambda m, h: h * h.var(-1, keepdim=True),
        lambda m, h: h * h.view(-1, WIDTH // 2).var(0).mean(),
    ],
)
@pytest.mark.parametrize("batch", [2, 3, 17])
def test_other_variances_hold_for_every_batch(batch: int, middle: Callable[[Any, Tensor], Tensor]) -> None:
    model = Model(middle).eval()
    made = gc.clone(model, (torch.randn(3, 5),))
    assert hidden_of(made) == 2 * WIDTH
    assert_exact(made, [torch.randn(batch, 5)])


# Who absorbs a factor


ADDED_PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "addmm": lambda h: torch.addmm(h[:, :3] @ h[:, :3].mT, h, h.mT),
    "addmm of one": lambda h: torch.addmm(h.mT, h.mT @ h, h.mT).mT,
    "addmm_": lambda h: torch.ones(h.shape[0], h.shape[0]).addmm_(h, h.mT, beta=2, alpha=0.5),
    "baddbmm": lambda h: torch.baddbmm(torch.ones(1), h[None], h.mT[None])[0],
    "addbmm": lambda h: torch.addbmm(torch.ones(1), h[None], h.mT[None]),
    "addmv": lambda h: torch.addmv(torch.ones(1), h, h.mean(0), beta=3)[:, None],
    "gemm of a square": lambda h: torch.addmm(h @ h.mT, h @ h.mT, h @ h.mT),
}


@pytest.mark.parametrize("name", ADDED_PRODUCTS)
def test_a_product_takes_its_factor_and_not_what_is_added_to_it(name: str) -> None:
    made = clone(lambda m, h: h * ADDED_PRODUCTS[name](h).sin().mean(-1, keepdim=True))
    assert hidden_of(made) == 2 * WIDTH
    assert inserted(made) <= 1


class Shifted(nn.Module):
    """A factor 1 + g, where g is returned as well."""

    def __init__(self, elsewhere: Callable[[nn.Module], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.g = nn.Linear(5, WIDTH), nn.Parameter(torch.randn(1))
        self.again = self.g
        self.elsewhere = elsewhere

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scaled = torch.tanh(self.first(x)).sum(-1) * (1 + self.g)
        return scaled.sin(), self.elsewhere(self)


@pytest.mark.parametrize("elsewhere", [lambda m: m.g, lambda m: m.again, lambda m: m.g[None].detach()])
def test_a_shifted_parameter_that_is_returned_keeps_its_value(elsewhere: Callable[[nn.Module], Tensor]) -> None:
    model, inputs = Shifted(elsewhere).eval(), (torch.randn(3, 5),)
    made = gc.clone(model, inputs)
    assert_exact(made, inputs)
    assert hidden_of(made) == 2 * WIDTH
    torch.testing.assert_close(made.state_dict()["g"], model.g.detach(), rtol=0, atol=0)
    torch.testing.assert_close(made.module()(*inputs), model(*inputs))


def test_a_weight_used_twice_is_widened_twice() -> None:
    """One weight contracted over both of its axes is replicated, and each use corrected."""
    made = clone(
        lambda m, h: torch.tanh(torch.tanh(h @ m.w) @ m.w.mT),
        extra={"w": nn.Parameter(torch.randn(WIDTH, WIDTH))},
    )
    assert made.state_dict()["w"].shape == (2 * WIDTH, 2 * WIDTH)


@pytest.mark.parametrize(("affine", "count"), [(True, 0), (False, 1)])
def test_a_norm_absorbs_what_a_tied_embedding_adds(affine: bool, count: int) -> None:
    class Tied(nn.Module):
        def __init__(self, *, affine: bool) -> None:
            super().__init__()
            self.table = nn.Embedding(11, WIDTH)
            self.norm = nn.LayerNorm(WIDTH, elementwise_affine=affine)

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.linear(self.norm(self.table(ids)), self.table.weight)

    ids = torch.randint(0, 11, (3, 5))
    made = gc.clone(Tied(affine=affine).eval(), (ids,), widen=3)
    assert_exact(made, [ids])
    assert inserted(made) == count


@pytest.mark.parametrize(("read_twice", "count"), [(False, 0), (True, 1)])
def test_a_weight_read_plus_one_absorbs_a_factor_if_nothing_else_reads_it(read_twice: bool, count: int) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.norm = nn.Embedding(11, WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)
            self.weight = nn.Parameter(torch.randn(WIDTH))

        def forward(self, ids: Tensor) -> Tensor:
            h = torch.tanh(self.norm(self.table(ids)) + (self.weight if read_twice else 0.5))
            return nn.functional.linear(self.norm(h) * (1 + self.weight[None]), self.table.weight)

    ids = torch.randint(0, 11, (3, 5))
    made = gc.clone(Tied().eval(), (ids,), widen=3)
    assert_exact(made, [ids])
    assert inserted(made) == count


def test_a_derived_weight_takes_the_factor_on_an_operand() -> None:
    def adapted(m: Any, h: Tensor) -> Tensor:
        return torch.tanh(nn.functional.linear(h, m.w + m.b @ m.a))

    extra = {name: nn.Parameter(torch.randn(*shape)) for name, shape in
             {"w": (36, WIDTH), "a": (4, WIDTH), "b": (36, 4)}.items()}  # fmt: skip
    made = clone(lambda m, h: m.back(adapted(m, h)), extra={**extra, "back": nn.Linear(36, WIDTH)})
    assert made.state_dict()["w"].shape == (72, 2 * WIDTH)
    assert inserted(made) == 0


def test_weight_norm_along_a_widened_axis() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
    made = clone(lambda m, h: torch.tanh(m.layer(h)), extra={"layer": layer})
    assert hidden_of(made) == 2 * WIDTH


def test_an_attention_scale_follows_head_dim() -> None:
    def attend(m: Any, h: Tensor) -> Tensor:
        q, k, v = m.qkv(h).view(-1, 3, 4, 6).permute(1, 2, 0, 3)
        return nn.functional.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)

    extra = {"qkv": nn.Linear(WIDTH, 3 * WIDTH)}
    made = clone(attend, {"*head_dim": 3}, extra)
    assert inserted(made) == 0
    assert made.state_dict()["qkv.weight"].shape == (3 * 3 * WIDTH, WIDTH)


def test_tied_names_are_cut_on_request() -> None:
    from tests.support.zoo import ZOO

    built = ZOO["opt"].build()
    made = gc.clone(built.module, built.args, built.kwargs, untie=True)
    assert_exact(made, [*built.args, *built.kwargs.values()])
    state = made.state_dict()
    embedding, head = state["model.decoder.embed_tokens.weight"], state["lm_head.weight"]
    assert embedding.shape == head.shape
    assert torch.equal(head * 2, embedding)


# Requests


def plain(m: Any, h: Tensor) -> Tensor:
    return h


def test_a_factor_by_name() -> None:
    assert hidden_of(clone(plain, {"first": 4})) == 4 * WIDTH


@pytest.mark.parametrize(
    ("widen", "message"),
    [
        (0, "widen=0: a factor is a number such as 2, 1.5 or 4/3, and at least 1"),
        (
            1.1,
            (
                r"first=11/10: 24 \* 11/10 is no whole number; the nearest sizes are 26 and 27; "
                r"sizes={'first': 27} asks for one"
            ),
        ),
        ({"first": -2}, "first=-2: a factor is a number such as 2"),
        ({"frist": 2}, "no dim is called 'frist'; did you mean 'first'?"),
        (
            {"last": 2},
            r"'last' cannot grow: last is pinned by the output keeps its shape .*; widen_io=\['output'\] lets",
        ),
    ],
)
def test_refusals_say_what_where_and_what_to_do(widen: Any, message: str) -> None:
    with pytest.raises(gc.GraphcloneError, match=message):
        clone(plain, widen)


def test_everything_pinned_is_an_error_and_not_an_unchanged_model() -> None:
    with pytest.raises(gc.GraphcloneError, match="nothing to widen"):
        gc.clone(nn.Linear(4, 4).eval(), (torch.randn(3, 4),))


def test_inputs_and_outputs_grow_on_request() -> None:
    made = gc.clone(nn.Linear(4, 6).eval(), (torch.randn(3, 4),), widen_io=("output",))
    assert made.state_dict()["weight"].shape == (12, 4)


class Projected(nn.Module):
    """A recurrence that gives on a projection of its state: by the sizes of its states alone it knows that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrence, self.last = nn.LSTM(5, 8, proj_size=6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrence(x)[0])


def test_a_projection_does_not_grow_to_the_size_of_what_it_projects() -> None:
    module, x = Projected().eval(), torch.randn(4, 2, 5)
    name = next(group.name for group in gc.trace(module, (x,)).dims if group.size == 6)
    for size, hidden in ((7, 8), (12, 16), (8, 9)):
        wide = gc.clone(module, (x,), sizes={name: size, "hidden": hidden}).module()
        torch.testing.assert_close(wide(x), module(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(gc.GraphcloneError, match=f"{name} cannot grow from 6 to 8: of one size with another state"):
        gc.clone(module, (x,), sizes={name: 8})


class TwoParts(nn.Module):
    """A norm over two hidden states side by side."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.a, self.b, self.norm, self.out = nn.Linear(5, 8), nn.Linear(5, 6), norm(14), nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(torch.cat([self.a(x), self.b(x)], -1)))


@pytest.mark.parametrize("sizes", [{"a": 16}, {"a": 24, "b": 6}, {"a": 16, "b": 18}, {"a": 11, "b": 18}])
def test_a_part_that_would_have_more_copies_than_another_has_pads(sizes: dict[str, int]) -> None:
    model, inputs = randomise(TwoParts(nn.RMSNorm)).eval(), (torch.randn(3, 5),)
    made = gc.clone(model, inputs, sizes=sizes)
    assert {name: made.state_dict()[f"{name}.weight"].shape[0] for name in sizes} == sizes
    assert_exact(made, inputs)


def test_a_request_that_another_dim_holds_back_is_refused() -> None:
    model, inputs = TwoParts(nn.LayerNorm).eval(), (torch.randn(3, 5),)
    with pytest.raises(
        gc.GraphcloneError, match="a cannot grow from 8 to 16: normalised over an axis whose parts would be repeated"
    ):
        gc.clone(model, inputs, widen={"a": 2})
    assert_exact(gc.clone(model, inputs, widen=2), inputs)


# Numbers that stand for infinity


def _masked(low: Callable[[Tensor], Any], fill: Callable[[Tensor, Tensor, Any], Tensor]) -> Callable[..., Tensor]:
    """Attention with a mask put in before the scores are divided; the first row is masked as a whole."""

    def attend(m: Any, h: Tensor) -> Tensor:
        keep = torch.ones(h.shape[0], h.shape[0]).tril(-1).bool()
        scores = fill(h @ h.mT, keep, low(h))
        return (scores / WIDTH**0.5).softmax(-1) @ h

    return attend


def _add(scores: Tensor, keep: Tensor, low: Any) -> Tensor:
    return scores + (1 - keep.to(scores.dtype)) * low


LOWEST: dict[str, Callable[[Tensor], Any]] = {
    "least number": lambda h: torch.finfo(h.dtype).min,
    "near the least": lambda h: -1e38 if h.dtype == torch.float32 else -4e4,
    "tensor": lambda h: torch.tensor(torch.finfo(h.dtype).min, dtype=h.dtype),
    "full": lambda h: torch.full((h.shape[0], 1), torch.finfo(h.dtype).min, dtype=h.dtype),
    "moderate": lambda h: -1e3,
}

FILLS: dict[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "masked_fill": lambda s, keep, low: s.masked_fill(~keep, low.min() if isinstance(low, Tensor) else low),
    "where": lambda s, keep, low: torch.where(keep, s, low),
    "added": _add,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("lowest", slow_but(("least number", "near the least"), LOWEST))
def test_a_mask_stands_for_infinity_and_does_not_overflow(lowest: str, fill: str, dtype: torch.dtype) -> None:
    model = Model(_masked(LOWEST[lowest], FILLS[fill])).eval().to(dtype)
    x = torch.randn(3, 5, dtype=dtype)
    made = gc.clone(model, (x,), widen=4)
    assert hidden_of(made) == 4 * WIDTH
    assert_exact(made, [x])
    expected, found = model(x), made.module()(x)
    assert expected.isfinite().all()
    rounding = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding)


def test_a_table_that_stands_for_infinity_is_not_scaled() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((3, 3), torch.finfo(torch.float32).min).triu())

        def forward(self, h: Tensor) -> Tensor:
            return ((h @ h.mT + self.mask) / WIDTH**0.5).softmax(-1) @ h

    made = clone(lambda m, h: m.table(h), extra={"table": Table()})
    assert hidden_of(made) == 2 * WIDTH
    assert made.state_dict()["table.mask"].isfinite().all()


@pytest.mark.parametrize("batch", [2, 3, 17])
def test_the_channels_of_a_batch_norm_without_running_statistics_grow(batch: int) -> None:
    norm = nn.BatchNorm1d(WIDTH, track_running_stats=False)
    model = randomise(Model(lambda m, h: m.norm(h), norm=norm)).eval()
    made = gc.clone(model, (torch.randn(3, 5),))
    assert made.state_dict()["norm.weight"].shape == (2 * WIDTH,)
    x = torch.randn(batch, 5)
    assert_exact(made, [x])
    torch.testing.assert_close(made.module()(x), model(x))


# Sizes that are computed


def test_what_a_computed_size_grows_by_holds_in_every_run() -> None:
    """A batch of heads has 7/5 of what it had, however large the batch; a row of two parts depends on both."""
    heads, batch, rows = Leaf(Growth.between(5, 7)), rigid(2), Leaf(Growth(3, 2))
    assert _ratio(Product((batch, heads))) == Fraction(7, 5)
    assert _ratio(Concat((batch, heads))) is None
    assert _ratio(Concat((rows, rows))) == 2
    assert _ratio(Product((batch, Concat((batch, heads))))) is None
