"""Requests, refusals and the balancing of scales, on small models made for the case."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone import Clone
from graphclone.lockstep import run_lockstep

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


# Who absorbs a factor


def test_a_weight_used_twice_is_widened_twice() -> None:
    """One weight contracted over both of its axes is replicated, and each use corrected."""
    made = clone(
        lambda m, h: torch.tanh(torch.tanh(h @ m.w) @ m.w.mT),
        extra={"w": nn.Parameter(torch.randn(WIDTH, WIDTH))},
    )
    assert made.state_dict()["w"].shape == (2 * WIDTH, 2 * WIDTH)


def test_a_norm_absorbs_what_a_tied_embedding_adds() -> None:
    class Tied(nn.Module):
        def __init__(self, *, affine: bool) -> None:
            super().__init__()
            self.table = nn.Embedding(11, WIDTH)
            self.norm = nn.LayerNorm(WIDTH, elementwise_affine=affine)

        def forward(self, ids: Tensor) -> Tensor:
            return nn.functional.linear(self.norm(self.table(ids)), self.table.weight)

    ids = torch.randint(0, 11, (3, 5))
    for affine, count in ((True, 0), (False, 1)):
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
    from tests.zoo import ZOO

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
        (0, "widen=0: a factor is a whole number of at least 1"),
        (1.5, "widen=1.5: give a whole number"),
        ({"first": -2}, "first=-2: a factor is a whole number of at least 1"),
        ({"frist": 2}, "no dim is called 'frist'; did you mean 'first'?"),
        ({"last": 2}, "'last' cannot grow: last is pinned by the output keeps its shape .*--widen-io"),
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


def test_a_request_that_another_dim_holds_back_is_refused() -> None:
    class TwoParts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm, self.out = (
                nn.Linear(5, 8),
                nn.Linear(5, 6),
                nn.LayerNorm(14),
                nn.Linear(14, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(torch.cat([self.a(x), self.b(x)], -1)))

    model, inputs = TwoParts().eval(), (torch.randn(3, 5),)
    with pytest.raises(
        gc.GraphcloneError, match="a cannot grow by 2: normalised over an axis whose parts would be repeated"
    ):
        gc.clone(model, inputs, widen={"a": 2})
    assert_exact(gc.clone(model, inputs, widen=2), inputs)
