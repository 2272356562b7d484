"""Optimizers whose state has been grown: training goes on as the source's would, or the call is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.api import clone
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.models import Built
from tests.support.clones import seeded
from tests.support.following import OPTIMIZERS, follower, groups_of, trained

TOLERANCE = 1e-9


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_follows_the_source(optimizer: str) -> None:
    assert follower("mlp").deviation(optimizer) < TOLERANCE


def _cases() -> Iterator[Any]:
    """Every architecture with every optimizer; the slow ones have code that asks for float32, or are more of a kind."""
    for name in ("gpt2", "opt", "pythia-mini", "resnet-basic", "llama-gqa", "experts"):
        for optimizer in OPTIMIZERS:
            fast = optimizer == "AdamW" and name not in ("llama-gqa", "experts")
            yield pytest.param(name, optimizer, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize(("name", "optimizer"), list(_cases()))
def test_every_architecture_follows_the_source(name: str, optimizer: str) -> None:
    assert follower(name).deviation(optimizer) < TOLERANCE


def test_the_rates_matter() -> None:
    """What follows only where rates do is not followed at the rates of the source."""
    follow = follower("mlp")
    own = follow.start(OPTIMIZERS["AdamW"])
    wide = follow.clone.module()
    grown = gc.grow_optimizer(follow.clone, own, wide, rule="same")
    expected = trained(follow.source.module, own, follow.source, 20, seed=1)
    actual = trained(wide, grown, follow.source, 20, seed=1)
    assert abs(expected[0] - actual[0]) < TOLERANCE
    assert max(abs(a - b) for a, b in zip(expected, actual, strict=True)) > 1e-4


class Stack(nn.Module):
    """(batch, 6) -> (batch, 5), with a norm; small enough for tests of single numbers."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(6, width), nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down(torch.tanh(self.norm(self.up(x))))
        return result


def _source() -> Built:
    module = seeded(lambda: Stack().double())
    return Built(
        module.eval(), (torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64),), {}
    )


def _stepped(source: Built, make: Any = torch.optim.AdamW, **options: Any) -> Any:
    optimizer = make(source.module.parameters(), lr=1e-2, **options)
    for _ in range(3):
        optimizer.zero_grad()
        source.module(*source.args).tanh().sum().backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


def _widened(source: Built, **options: Any) -> Clone:
    return clone(source.module, source.args, **options)


def test_moments_are_shares_of_the_source_s() -> None:
    source = _source()
    own = _stepped(source)
    made = _widened(source, widen=2)
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide)
    moments, theirs = own.state[source.module.up.weight], grown.state[wide.get_parameter("up.weight")]
    assert theirs["step"] == moments["step"] == 3
    torch.testing.assert_close(theirs["exp_avg"], moments["exp_avg"].repeat(2, 1) / 2, rtol=1e-15, atol=0)
    torch.testing.assert_close(theirs["exp_avg_sq"], moments["exp_avg_sq"].repeat(2, 1) / 4, rtol=1e-15, atol=0)
    head, last = own.state[source.module.down.weight], grown.state[wide.get_parameter("down.weight")]
    torch.testing.assert_close(last["exp_avg"], head["exp_avg"].repeat(1, 2), rtol=1e-15, atol=0)


def test_groups_keep_their_options_and_are_split_where_rates_differ() -> None:
    source = _source()
    groups = [
        {"params": list(source.module.up.parameters()), "betas": (0.8, 0.9)},
        {"params": [source.module.down.weight]},
    ]
    own = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.1, eps=1e-6, foreach=True, amsgrad=True)
    made = _widened(source, widen=2)
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide)
    names = {id(parameter): name for name, parameter in wide.named_parameters()}
    found = [([names[id(p)] for p in g["params"]], g["lr"], g["weight_decay"], g["eps"]) for g in grown.param_groups]
    assert found == [(["up.weight", "up.bias"], 1e-2, 0.1, 5e-7), (["down.weight"], 5e-3, 0.2, 1e-6)]
    assert type(grown) is torch.optim.AdamW and grown.param_groups[0]["betas"] == (0.8, 0.9)
    assert all(group["foreach"] and group["amsgrad"] for group in grown.param_groups)
    same = gc.grow_optimizer(made, own, made.module(), rule="same")
    assert [(g["lr"], g["weight_decay"], g["eps"]) for g in same.param_groups] == [(1e-2, 0.1, 1e-6)] * 2


def test_a_rate_that_is_a_tensor_is_each_optimizer_s_own() -> None:
    """Schedules write into it."""
    source = _source()
    own = torch.optim.AdamW(source.module.parameters(), lr=torch.tensor(1e-2), capturable=False, foreach=False)
    made = _widened(source, widen=2)
    grown = gc.grow_optimizer(made, own, made.module())
    for group in own.param_groups:
        group["lr"].fill_(7.0)
    assert max(float(group["lr"]) for group in grown.param_groups) == pytest.approx(1e-2)


def test_a_state_of_another_precision_than_its_parameters_keeps_it() -> None:
    source = _source()
    own = _stepped(source)
    made = _widened(source, widen=2)
    for entry in own.state.values():
        entry.update({key: value.float() for key, value in entry.items()})
    grown = gc.grow_optimizer(made, own, made.module())
    assert {value.dtype for entry in grown.state.values() for value in entry.values()} == {torch.float32}


def test_what_has_not_been_updated_begins_as_it_would_have() -> None:
    """A parameter without a gradient has no state, nor has its copy; one that is frozen may be in no group."""
    source = _source()
    source.module.norm.requires_grad_(False)
    own = _stepped(source)
    made = _widened(source, widen=2)
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide)
    kept = {name for name, parameter in wide.named_parameters() if grown.state.get(parameter)}
    assert kept == {"up.weight", "up.bias", "down.weight", "down.bias"}


def test_an_optimizer_of_the_module_that_was_cloned_into() -> None:
    source, big = _source(), Stack(20).double().eval()
    own = _stepped(source, torch.optim.SGD, momentum=0.9)
    made = clone(source.module, source.args, into=big)
    grown = gc.grow_optimizer(made, own, big)
    for _ in range(5):
        for module, optimizer in ((source.module, own), (big, grown)):
            optimizer.zero_grad()
            module(*source.args).tanh().sum().backward()
            optimizer.step()
    torch.testing.assert_close(big(*source.args), source.module(*source.args), rtol=1e-12, atol=1e-12)


def test_a_tied_parameter_has_one_state() -> None:
    follow = follower("opt")
    own = follow.start(OPTIMIZERS["AdamW"], before=1)
    grown = gc.grow_optimizer(follow.clone, own, follow.clone.module())
    assert len(grown.state) == len(own.state)


# Pads and uneven growth


def test_pads_begin_with_no_first_moment_and_a_second_of_average_size() -> None:
    source = _source()
    own = _stepped(source)
    made = _widened(source, widen={"up": 1.5})
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide, inexact="fresh")
    state = grown.state[wide.get_parameter("down.weight")]
    assert not state["exp_avg"][:, 10:].any() and state["exp_avg"][:, :10].any()
    mean = own.state[source.module.down.weight]["exp_avg_sq"].mean()
    torch.testing.assert_close(state["exp_avg_sq"][:, 10:], mean.expand(5, 5), rtol=1e-12, atol=0)


def test_uneven_copies_take_no_one_rate() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)).double()
    source = Built(module, (torch.randn(3, 6, dtype=torch.float64),), {})
    own = _stepped(source)
    made = _widened(source, widen=1.5)
    with pytest.raises(GraphcloneError, match=r"2\.weight: its indices are repeated unevenly.*rule='same'"):
        gc.grow_optimizer(made, own, made.module())
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide, rule="same")
    expected = own.state[module[0].bias]["exp_avg"]
    torch.testing.assert_close(grown.state[wide.get_parameter("0.bias")]["exp_avg"][10:], expected[:5] / 2)


# Other parameters than the source's


class Blocks(nn.Module):
    """(batch, 6) -> (batch, 5) by blocks that add to a stream."""

    def __init__(self, count: int = 2) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(10), nn.Linear(10, 14), nn.GELU(), nn.Linear(14, 10)) for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for block in self.blocks:
            x = x + block(x)
        result: Tensor = self.down(torch.tanh(x))
        return result


def test_new_blocks_begin_without_a_state_in_the_groups_of_what_they_are_made_after() -> None:
    """Blocks of the source have other numbers then; each keeps its own state."""
    module = seeded(lambda: Blocks().double().eval())
    source = Built(module, _source().args, {})
    own = _stepped(source)
    made = _widened(source, depth=4)
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide)
    assert sum(len(group["params"]) for group in grown.param_groups) == len(list(wide.parameters()))
    found = [bool(grown.state.get(wide.get_parameter(f"blocks.{i}.1.weight"))) for i in range(4)]
    assert sorted(found) == [False, False, True, True]
    kept = [i for i in range(4) if found[i]]
    for narrow, deep in enumerate(kept):
        expected = own.state[module.get_parameter(f"blocks.{narrow}.1.weight")]["exp_avg"]
        assert torch.equal(grown.state[wide.get_parameter(f"blocks.{deep}.1.weight")]["exp_avg"], expected)


def test_uses_that_get_weights_of_their_own_have_no_share_of_a_sum() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm, self.head = nn.Embedding(7, 10), nn.LayerNorm(10), nn.Linear(10, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            result: Tensor = self.head(self.norm(self.embed(tokens)))
            return result

    source = Built(seeded(lambda: Tied().double().eval()), (torch.arange(6).view(2, 3),), {})
    own = _stepped(source)
    made = _widened(source, widen=2, untie=True)
    with pytest.raises(GraphcloneError, match="are one weight in the source, which keeps the sum of their gradients"):
        gc.grow_optimizer(made, own, made.module())
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide, inexact="fresh")
    assert sum(len(group["params"]) for group in grown.param_groups) == len(list(wide.parameters())) == 4
    assert not grown.state.get(wide.get_parameter("head.weight"))


# What is not exact


def test_noise_is_refused_or_begins_fresh() -> None:
    source = _source()
    own = _stepped(source)
    made = _widened(source, widen=2, strategy="noisy-symmetric")
    with pytest.raises(
        GraphcloneError, match=r"the gradient of up\.weight is no multiple of the source's.*noise.*fresh"
    ):
        gc.grow_optimizer(made, own, made.module())
    wide = made.module()
    grown = gc.grow_optimizer(made, own, wide, inexact="fresh")
    kept = {name for name, parameter in wide.named_parameters() if grown.state.get(parameter)}
    assert kept == {"down.weight", "down.bias"}


def test_moments_are_measured_at_rate_0() -> None:
    source = _source()
    made = _widened(source, widen=2, strategy="noisy-diagonal")
    wide = made.module()
    grown = gc.grow_optimizer(made, _stepped(source), wide, inexact="fresh")
    before, head = copy.deepcopy(wide.state_dict()), grown.state[wide.get_parameter("down.weight")]["exp_avg"].clone()
    batches = [torch.randn(3, 6, dtype=torch.float64) for _ in range(4)]
    assert gc.warm_moments(grown, (wide(batch).tanh().sum() for batch in batches)) == 4
    assert all(torch.equal(value, before[name]) for name, value in wide.state_dict().items())
    assert {group["lr"] for group in grown.param_groups} == {1e-2, 5e-3}
    state = grown.state[wide.get_parameter("up.weight")]
    assert state["step"] == 4 and state["exp_avg"].any()
    assert torch.equal(grown.state[wide.get_parameter("down.weight")]["exp_avg"], head)
    assert all(parameter.grad is None for parameter in wide.parameters())


@pytest.mark.parametrize(("losses", "text"), [([], "no loss"), ([torch.tensor(float("nan"))], "a loss is nan")])
def test_losses_that_say_nothing_are_refused(losses: list[Tensor], text: str) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))])
    with pytest.raises(GraphcloneError, match=text):
        gc.warm_moments(optimizer, losses)


# What does not belong together


def test_another_optimizer_is_refused_by_name() -> None:
    source = _source()
    made = _widened(source, widen=2)
    with pytest.raises(
        GraphcloneError,
        match=r"^Adadelta: graphclone does not know how the state of this optimizer grows; use one of Adam",
    ):
        gc.grow_optimizer(made, torch.optim.Adadelta(source.module.parameters()), made.module())


def test_an_optimizer_of_another_module_is_refused() -> None:
    made = _widened(_source(), widen=2)
    with pytest.raises(GraphcloneError, match=r"a parameter of shape \(10, 6\), which is none of the source's"):
        gc.grow_optimizer(made, torch.optim.AdamW(Stack().parameters()), made.module())


def test_a_module_that_is_not_the_clone_is_refused() -> None:
    source = _source()
    made = _widened(source, widen=2)
    with pytest.raises(
        GraphcloneError, match=r"up\.weight of the module is \(10, 6\), but that of the clone is \(20, 6\)"
    ):
        gc.grow_optimizer(made, torch.optim.AdamW(source.module.parameters()), Stack())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda entry: entry.pop("exp_avg_sq"), "the state of norm.weight has no exp_avg_sq, which AdamW keeps"),
        (lambda entry: entry.pop("step"), "the state of norm.weight has no step, which AdamW keeps"),
        (
            lambda entry: entry.update(exp_avg=torch.zeros(3)),
            r"the state of norm.weight has exp_avg of \(3,\), but it is \(10,",
        ),
        (lambda entry: entry.update(exp_avg=1.0), "the state of norm.weight has exp_avg of float"),
        (
            lambda entry: entry.update(shift=torch.zeros(10)),
            "the state of norm.weight has shift, which AdamW does not keep",
        ),
    ],
)
def test_a_state_that_does_not_fit_names_its_parameter(change: Any, text: str) -> None:
    source = _source()
    own = _stepped(source)
    change(own.state[source.module.norm.weight])
    made = _widened(source, widen=2)
    with pytest.raises(GraphcloneError, match=text):
        gc.grow_optimizer(made, own, made.module())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rule": "half"}, "rule=.half.: give .function. or .same."),
        ({"inexact": "no"}, "inexact=.no.: give .refuse. or"),
    ],
)
def test_a_choice_that_there_is_not(options: dict[str, Any], text: str) -> None:
    source = _source()
    made = _widened(source, widen=2)
    with pytest.raises(GraphcloneError, match=text):
        gc.grow_optimizer(made, _stepped(source), made.module(), **options)


# Bare states


def test_a_bare_state_is_what_the_grown_optimizer_has() -> None:
    source = _source()
    own = _stepped(source)
    made = _widened(source, widen=2)
    state = gc.grow_optimizer(made, own, made.module()).state_dict()
    bare = made.optimizer_state_dict(own.state_dict())
    for number, entry in state["state"].items():
        assert all(torch.equal(value, bare["state"][number][key]) for key, value in entry.items())
    assert [g["lr"] for g in bare["param_groups"]] == [g["lr"] for g in state["param_groups"]]
    wide = made.module()
    torch.optim.AdamW(made.param_groups(wide, lr=1.0)).load_state_dict(bare)


def test_a_state_by_names_stays_one_by_names() -> None:
    source = _source()
    own = _stepped(source)
    order = [name for name, _ in source.module.named_parameters()]
    by_number = own.state_dict()
    groups = [{**group, "params": [order[i] for i in group["params"]]} for group in by_number["param_groups"]]
    state = {"state": {order[i]: entry for i, entry in by_number["state"].items()}, "param_groups": groups}
    bare = _widened(source, widen=2).optimizer_state_dict(state, rule="same")
    assert set(bare["state"]) == set(order) and bare["param_groups"][0]["params"] == order
    assert bare["state"]["up.bias"]["exp_avg"].shape == (20,)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda state: state.pop("state"), "not the state of an optimizer"),
        (lambda state: state["param_groups"][0]["params"].pop(), "down.bias is the first without one"),
        (lambda state: state["state"].update({9: {}}), "an entry of parameter 9"),
    ],
)
def test_a_bare_state_of_something_else_is_refused(change: Any, text: str) -> None:
    source = _source()
    state = _stepped(source).state_dict()
    change(state)
    with pytest.raises(GraphcloneError, match=text):
        _widened(source, widen=2).optimizer_state_dict(state)


def test_a_tied_parameter_that_is_there_twice_is_refused() -> None:
    clone = follower("opt").clone
    name, alias = next(i.names[:2] for i in clone.graph.initializers if len(i.names) > 1)
    state = {"state": {}, "param_groups": [{"lr": 1.0, "params": [name]}, {"lr": 1.0, "params": [alias]}]}
    with pytest.raises(GraphcloneError, match=f"has one parameter twice, as {name} and as {alias}"):
        clone.optimizer_state_dict(state, rule="same")


def test_groups_for_an_optimizer_without_a_state() -> None:
    source = _source()
    made = _widened(source, widen=2)
    wide = made.module()
    groups = made.param_groups(wide, torch.optim.SGD, lr=1.0, weight_decay=0.5)
    rates = {name: g["lr"] for g in groups for name, p in wide.named_parameters() if any(p is q for q in g["params"])}
    assert rates == {
        "up.weight": 2.0, "up.bias": 2.0, "norm.weight": 2.0, "norm.bias": 2.0, "down.weight": 0.5, "down.bias": 1.0,
    }  # fmt: skip
    assert [g["lr"] for g in made.param_groups(wide, rule="same", lr=1.0)] == [1.0]


def test_in_the_groups_of_each_optimizer_decay_is_its_own() -> None:
    """Two groups in, of which one decays; a group out decays only if its own did."""
    follow = follower("mlp")
    own = OPTIMIZERS["AdamW"](groups_of(follow.source.module))
    grown = gc.grow_optimizer(follow.clone, own, follow.clone.module())
    for group in grown.param_groups:
        assert {p.dim() < 2 for p in group["params"]} == {not group["weight_decay"]}
