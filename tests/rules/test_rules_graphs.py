"""Rules at work together: weights seen through views, writes through views, computed sizes, scales that travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.strategies import strategy
from graphclone.analysis.facts import Facts
from graphclone.formats.torch.dialect import TorchDialect
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Graph, Node, Output, Value
from graphclone.models.randomise import randomise
from graphclone.passes import default_pipeline
from graphclone.passes.balance_scales import Unbalanced
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.rules import apply
from graphclone.rules.site import Site
from graphclone.runtime.maps import Maps
from graphclone.runtime.tensors import lazily_widened, lifted_tensor
from graphclone.verification.lockstep import run_lockstep
from tests.support.tracing import random_pipeline

torch.set_num_threads(1)


class Module(nn.Module):
    """A function of parameters and inputs as a module.

    Args:
        shapes: of its parameters.
        function: of the parameters, then the inputs.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], function: Callable[..., Any]) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(shape)) for shape in shapes])
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*self.weights, *inputs)


def clones(
    shapes: Sequence[tuple[int, ...]], function: Callable[..., Any], *inputs: Tensor, io: bool = False
) -> list[State]:
    """Clones of a function with all free dims grown at random, each equal to the source at every node."""
    module = randomise(Module(shapes, function)).eval()
    graph = trace_module(module, inputs)
    states = []
    for seed, kind in ((0, "tile"), (1, "interleave"), (2, "tile")):
        request = Request(widen_io=("*",) if io else (), strategy=strategy("noisy-diagonal"), seed=seed)
        state = State(graph.copy(), request)
        run(random_pipeline(seed, kind), state, check=True)  # type: ignore[arg-type]
        result = run_lockstep(state, inputs)
        assert result.first is None, str(result.first)
        assert result.worst <= 1e-12
        states.append(state)
    return states


def grown(states: Sequence[State]) -> bool:
    return any(state.growths for state in states)


def x(*shape: int) -> Tensor:
    return torch.randn(shape)


# Weights seen through views

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda w: w.transpose(0, 1).transpose(0, 1),
    "permute": lambda w: w.permute(1, 0).mT,
    "t": lambda w: w.t().t(),
    "T": lambda w: w.T.T,
    "adjoint": lambda w: w.adjoint().adjoint(),
    "movedim": lambda w: w.movedim(0, 1).movedim(-1, 0),
    "unsqueeze": lambda w: w.unsqueeze(1).squeeze(1),
    "squeeze all": lambda w: w[None].squeeze(),
    "contiguous": lambda w: w.contiguous(),
    "clone": lambda w: w.clone(),
    "detach": lambda w: w.detach(),
    "to": lambda w: w.to(torch.float64).to(torch.float32),
    "type_as": lambda w: w.type_as(torch.zeros(3, dtype=torch.float64)).float(),
    "dropout": lambda w: F.dropout(w, 0.5, False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_weight_absorbs_copies_behind_a_view(name: str) -> None:
    view = VIEWS[name]
    states = clones([(8, 6), (6, 8)], lambda a, b, x: F.linear(F.linear(x, view(a)).relu(), view(b)), x(3, 6))
    assert grown(states)
    assert all(len(state.facts.folded) == 2 for state in states)


NO_VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "cast to integers": lambda w: (w * 100).to(torch.int64).float(),
    "exponential": lambda w: w.exp(),
    "reshape": lambda w: w.reshape(4, 2, 6).reshape(8, 6),
    "added": lambda w: w + w,
}


@pytest.mark.parametrize("name", NO_VIEWS)
@pytest.mark.parametrize("io", [False, True])
def test_a_weight_behind_anything_else_is_replicated(io: bool, name: str) -> None:
    """The copies are then balanced by a scale, or held back."""
    derived = NO_VIEWS[name]
    states = clones([(8, 6), (6, 8)], lambda a, b, x: F.linear(F.linear(x, derived(a)).relu(), b), x(3, 6), io=io)
    assert all(len(state.facts.folded) == 1 for state in states)
    assert grown(states)


def test_a_weight_cast_to_integers_is_not_divided() -> None:
    """It would be rounded to something else."""
    states = clones(
        [(8, 6), (6, 8)], lambda a, b, x: F.linear(F.linear(x, a).relu(), b.to(torch.int64).to(torch.float32)), x(3, 6)
    )
    assert all(len(state.facts.folded) == 1 for state in states)


def test_two_weights_multiplied_with_each_other() -> None:
    """``B A`` as one weight: only one of the two is divided by the number of copies of what they share."""
    shapes = [(8, 6), (8, 4), (4, 6), (6, 8)]
    assert grown(clones(shapes, lambda w, b, a, v, x: F.linear(F.linear(x, w + b @ a).relu(), v), x(3, 6)))


def _with_itself(a: Tensor, w: Tensor, m: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return F.linear(F.linear(F.linear(x, a).tanh() @ m, w @ w), v)


def _added_to_its_product(a: Tensor, w: Tensor, m: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return F.linear(F.linear(F.linear(x, a).tanh(), torch.addmm(w, m.relu(), w)), v)


def _over_both_axes(a: Tensor, w: Tensor, m: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return F.linear(((F.linear(x, a).tanh() @ w).tanh() @ w.mT).tanh() @ m, v)


@pytest.mark.parametrize("function", [_with_itself, _added_to_its_product, _over_both_axes])
def test_a_weight_with_a_second_use_is_replicated(function: Callable[..., Any]) -> None:
    """A weight that is shared out for one of its uses would be wrong in the other."""
    states = clones([(8, 6), (8, 8), (8, 8), (5, 8)], function, x(3, 6))
    assert grown(states)
    for state in states:
        assert "weights.1" not in [i.name for i in state.graph.initializers if i.value in state.facts.folded]


@pytest.mark.parametrize("seen", [lambda w: w, lambda w: w.mT], ids=["itself", "a view"])
def test_a_weight_that_is_returned_is_replicated(seen: Callable[[Tensor], Tensor]) -> None:
    states = clones([(8, 6), (6, 8)], lambda a, b, x: (F.linear(F.linear(x, a).tanh(), b), seen(b)), x(3, 6), io=True)
    assert grown(states)
    for state in states:
        returned = next(i for i in state.graph.initializers if i.name == "weights.1")
        data = lifted_tensor(returned)
        assert torch.equal(lazily_widened(state)[returned.value], Maps(state).widened(returned.value, data))


def _into_a_recurrence(w: Tensor, u: Tensor, v: Tensor, x: Tensor) -> Tensor:
    states, _ = torch.rnn_tanh(x, x.new_zeros(1, x.shape[0], 8), [w, u], False, 1, 0.0, False, False, True)
    return F.linear(states @ u.sigmoid(), v)


def test_nothing_is_multiplied_inside_a_recurrence() -> None:
    """What feeds it is not what its second weight sums over, and that weight cannot be divided for its other use."""
    module = randomise(Module([(8, 6), (8, 8), (5, 8)], _into_a_recurrence)).eval()
    with pytest.raises(Unbalanced, match="times too large and nothing can absorb it"):
        run(default_pipeline(), State(trace_module(module, (x(3, 7, 6),)), Request(2)))


# Writes through views


def _slices_written(a: Tensor, b: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 12, dtype=x.dtype)
    h[:, :8] = F.linear(x, a)
    h[:, 8:].copy_(F.linear(x, b))
    h.mul_(2.0).relu_()
    return F.linear(h, v)


def _accumulated(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    total = torch.zeros_like(h)
    total.index_put_((torch.tensor([0, 2]),), h[:2], accumulate=True)
    total.masked_fill_(x[:, :1] > 0, 0.0)
    total[1].add_(h[0])
    return F.linear(total, v)


def _unrolled(a: Tensor, u: Tensor, v: Tensor, x: Tensor) -> Tensor:
    state = x.new_zeros(x.shape[0], 8)
    for step in range(3):
        state = torch.tanh(F.linear(x[:, step], a) + F.linear(state, u))
    return F.linear(state, v)


@pytest.mark.parametrize(
    ("shapes", "function", "shape"),
    [
        ([(8, 6), (4, 6), (5, 12)], _slices_written, (3, 6)),
        ([(8, 6), (5, 8)], _accumulated, (3, 6)),
        ([(8, 6), (8, 8), (5, 8)], _unrolled, (4, 3, 6)),
    ],
    ids=["slices", "index_put", "unrolled"],
)
def test_writes_into_what_was_made_for_it(shapes: Any, function: Any, shape: tuple[int, ...]) -> None:
    assert grown(clones(shapes, function, x(*shape)))


def _added_up(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    total = torch.zeros(8)
    for row in F.linear(x, a).unbind(0):
        total.add_(row)
    return F.linear(total, v)


def test_what_is_written_into_is_made_anew_in_every_run() -> None:
    module, inputs = randomise(Module([(8, 6), (5, 8)], _added_up)).eval(), x(3, 6)
    made = gc.clone(module, (inputs,)).module()
    for _ in range(2):
        torch.testing.assert_close(made(inputs), module(inputs), rtol=1e-5, atol=1e-5)


# Computed sizes


def _heads(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    batch, length, _ = x.shape
    h = F.linear(x, a).view(batch, length, 4, 3).transpose(1, 2)
    h = h.reshape(batch * 4, length, 3)
    h = h.view(batch, 4, length, 3).permute(0, 2, 1, 3).reshape(batch, length, -1)
    return F.linear(h, v)


def _expanded(a: Tensor, token: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    tokens = token.expand(x.shape[0], -1, -1)
    repeated = token.repeat(x.shape[0], 1, 1)
    zeros = torch.zeros(x.shape[0], 1, 12)
    return F.linear(torch.cat([tokens, h, repeated, zeros], 1), v)


def _sizes_read(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    h = h[:, : h.shape[1] - 1] + h.narrow(1, 1, h.shape[1] - 1)
    return F.linear(h * h.shape[1], v) / x.shape[0]


def _cut_batch_with_heads(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a).unflatten(-1, (4, 3)).movedim(2, 0).flatten(0, 1)
    first, second = h.chunk(2, 0)
    h = torch.cat([first, second], 0).unflatten(0, (4, -1)).movedim(0, 2).flatten(2)
    return F.linear(h, v)


@pytest.mark.parametrize("function", [_heads, _expanded, _sizes_read])
def test_computed_sizes(function: Callable[..., Any]) -> None:
    shapes = [(12, 6), (1, 1, 12), (5, 12)] if function is _expanded else [(12, 6), (5, 12)]
    assert grown(clones(shapes, function, x(2, 7, 6)))


def _heads_first(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a).unflatten(-1, (4, 3)).movedim(2, 0).flatten(0, 1).tanh()
    return F.linear(h.unflatten(0, (4, -1)).movedim(0, 2).flatten(2), v)


def test_heads_in_one_axis_with_a_batch_of_another_size() -> None:
    """It is the batch that has another size in another run, though the heads come first."""
    module = randomise(Module([(12, 6), (5, 12)], _heads_first)).eval()
    state = State(trace_module(module, (x(2, 7, 6),)), Request(2, kind="interleave"))
    run(default_pipeline(), state)
    assert any(axis.size == 4 for axis in state.growths)
    assert run_lockstep(state, [x(3, 5, 6)]).first is None


def test_cutting_a_batch_that_holds_heads_holds_them_back() -> None:
    for state in clones([(12, 6), (5, 12)], _cut_batch_with_heads, x(2, 7, 6)):
        assert not any(axis.size == 4 for axis in state.growths)


# Scales that travel


def _padded(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    scores = h @ h.mT
    scores = torch.cat([scores, torch.zeros(scores.shape[0], scores.shape[1], 2), torch.ones_like(scores[..., :1])], -1)
    return F.pad(scores, (1, 1)) @ v


def _padded_with_ones(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    return F.pad(h @ h.mT, (1, 1), value=1.0) @ v


def _filled(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    scores = torch.where(x[..., :1] > 0, h @ h.mT, 0.5).masked_fill(x[..., 1:2] > 0, 2.0)
    return torch.maximum(scores, torch.full((1,), 0.25)) @ v


def _counted(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    active = (h > 0).sum(-1, keepdim=True)
    return F.linear(h * active, v)


def _rounded(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    return ((h @ h.mT).to(torch.int64).to(x.dtype)) @ v


def _normed(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a)
    normed = h / h.std(-1, keepdim=True) * h.norm(dim=-1, keepdim=True)
    return F.linear(normed / h.var((0, -1), correction=0, keepdim=True), v)


@pytest.mark.parametrize("function", [_padded, _padded_with_ones, _filled, _rounded, _normed])
def test_scales_travel_as_far_as_they_may(function: Callable[..., Any]) -> None:
    columns = {_padded: 12, _padded_with_ones: 9, _filled: 7, _rounded: 7}.get(function)
    assert grown(clones([(8, 6), (columns, 5) if columns else (5, 8)], function, x(2, 7, 6)))


def test_what_is_counted_is_held_back() -> None:
    """Its number is an integer, which no scale could mend."""
    assert not grown(clones([(8, 6), (5, 8)], _counted, x(2, 7, 6)))


def test_a_result_may_be_mended() -> None:
    """Where nothing else absorbs the copies, a multiplication is put behind the norm that counts them."""
    shapes = [(8, 6), (5, 8)]
    assert grown(
        clones(shapes, lambda a, v, x: F.linear((h := F.linear(x, a)) + h.norm(dim=-1, keepdim=True), v), x(3, 6))
    )


def _squared(a: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h = F.linear(x, a).tanh()
    return F.linear(h * torch.dot(h, h).tanh(), v)


def test_a_square_takes_a_factor_once() -> None:
    """One value is both operands of a product, and one of the two is divided by the copies."""
    assert grown(clones([(8, 6), (5, 8)], _squared, x(6)))


def _uneven(a: Tensor, b: Tensor, v: Tensor, x: Tensor) -> Tensor:
    h, k = F.linear(x, a), F.linear(x, b)
    k = k + k.view(-1, 2, 3).transpose(1, 2).flatten(1)
    return F.linear(F.layer_norm(torch.cat([h, h, k], -1), (18,)), v)


def test_a_norm_over_a_dim_that_occurs_twice() -> None:
    clones([(6, 5), (6, 5), (4, 18)], _uneven, x(3, 5))


def test_what_a_rule_says_nothing_of_keeps_its_scale() -> None:
    """A rule that balances one operand and forgets another must not leave the other's scale free."""

    def forgetful(s: Site) -> None:
        s.broadcast(*s.tensors)
        s.scale(s.out, {s.tensor("self"): 1})
        s.get("other"), s.get("alpha")

    x, y = (Value(name, (4,), "float32", role="input") for name in "xy")
    node = Node("op", "aten.add.Tensor", {"self": x, "other": y}, [out := Value("out", (4,), "float32")])
    out.producer = node
    facts = Facts(Graph("g", [x, y], [], [node], [Output("out", out)], TorchDialect()))
    facts.of.update({value: (facts.axes.dim(4),) for value in (x, y, out)})
    apply(node, facts, {"aten.add.Tensor": forgetful})
    assert [balance.terms for balance in facts.balances[node]] == [((1, x),), ((1, y),)]


class Filled(nn.Module):
    """A mask made of a stream, in its shape, of which one column is taken."""

    def __init__(self, mask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.into, self.out, self.mask = nn.Linear(5, 16), nn.Linear(16, 3), mask

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.into(x))
        y: Tensor = self.out(h) + self.mask(h)[..., None]
        return y


def _marked(h: Tensor) -> Tensor:
    mask = torch.zeros_like(h)
    mask[..., 3] = 1.0
    return mask[..., 3]


@pytest.mark.parametrize(
    ("mask", "grows"),
    [
        (lambda h: torch.zeros_like(h)[..., 0], True),
        (lambda h: torch.ones_like(h, dtype=torch.int)[..., -1], True),
        (lambda h: torch.full_like(h, 2.0)[..., 3], True),
        (lambda h: h.new_ones(h.shape)[..., 3], True),
        (lambda h: h[..., 0], False),
        (_marked, False),
    ],
)
def test_any_place_of_what_is_the_same_everywhere_is_as_good(mask: Callable[[Tensor], Tensor], grows: bool) -> None:
    model, x = Filled(mask).double().eval(), torch.randn(2, 7, 5, dtype=torch.float64)
    (dim,) = (dim for dim in gc.trace(model, (x,)).dims if dim.name == "into")
    assert (dim.pin is None) is grows
    if grows:
        wide = gc.clone(model, (x,), widen=3).module()
        torch.testing.assert_close(wide(x), model(x))
