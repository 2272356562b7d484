"""Deeper models compute what their sources compute, and all that is new in them trains."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphclone as gc
from graphclone.analysis.closing import _Walker
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.blocks import Block
from graphclone.graph.ir import Graph, Initializer
from graphclone.models import Built
from graphclone.passes import default_pipeline
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.verification.depth import check_depth
from graphclone.verification.lockstep import run_lockstep
from tests.support.clones import seeded
from tests.support.deep_models import built
from tests.support.zoo import ZOO

LADDER = {
    "llama-gqa": "model.layers",
    "gpt2": "transformer.h",
    "pythia-mini": "gpt_neox.layers",  # parallel branches
    "opt": "model.decoder.layers",
    "gemma2": "model.layers",  # norms close the branches, and kinds take turns
    "vit": "vit.layers",
    "encoder-norm-first": "encoder.layers",
    "mixtral": "model.layers",
    "mamba2": "backbone.layers",
    "modernbert": "model.layers",
}
LAYERS = {"modernbert": 4}
SLOW = ("mamba2", "modernbert")


@cache
def source(name: str) -> Built:
    return ZOO[name].build() if name in ZOO else built(name, LAYERS.get(name, 2))


@cache
def traced(name: str) -> tuple[Graph, tuple[torch.Tensor, ...]]:
    made = source(name)
    leaves = pytree.tree_leaves((made.args, made.kwargs))
    inputs = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return trace_module(made.module, made.args, made.kwargs, name=name), inputs


def deeper(name: str, **request: Any) -> State:
    state = State(traced(name)[0].copy(), Request(**request))
    run(default_pipeline(), state, check=True)
    return state


def assert_equal(name: str, state: State) -> None:
    inputs = traced(name)[1]
    depth = check_depth(state, [inputs])
    assert depth is not None
    assert depth.ok, depth.summary
    assert depth.figures["worst"] <= 1e-12
    lockstep = run_lockstep(state, inputs)
    assert lockstep.first is None
    assert lockstep.worst <= 1e-12


def names(state: State) -> set[str]:
    return {name for i in state.graph.initializers if i.kind != "constant" for name in i.names}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in LADDER])
def test_a_deeper_model_is_equal_at_every_node(name: str) -> None:
    layers = LAYERS.get(name, 2)
    state = deeper(name, widen=2, depth=layers + 3)
    assert_equal(name, state)
    assert len(state.depth.additions) == 3
    numbers = {n.removeprefix(f"{LADDER[name]}.").split(".")[0] for n in names(state) if n.startswith(LADDER[name])}
    assert numbers == {str(number) for number in range(layers + 3)}


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "t5"])
def test_new_blocks_may_come_first_and_be_random(name: str) -> None:
    depth = {"encoder": 4, "decoder.*": 3} if name == "t5" else 3
    state = deeper(name, widen={}, depth=depth, new_blocks="start", new_from="random", seed=5)
    assert_equal(name, state)
    first = {addition.name.rpartition(".")[2] for addition in state.depth.additions}
    assert first == ({"0", "1"} if name == "t5" else {"0"})


def test_the_stock_class_has_the_same_names_and_gives_the_same() -> None:
    small = source("mixtral")
    clone = gc.clone(small.module, small.args, small.kwargs, depth=4)
    stock = built("mixtral", 4).module
    stock.load_state_dict(clone.state_dict())
    assert list(clone.state_dict()) == list(stock.state_dict())
    torch.testing.assert_close(stock(**small.kwargs).logits, small.module(**small.kwargs).logits, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("start", ["copy", "random"])
def test_all_that_is_new_trains_from_the_second_step_on(start: str) -> None:
    made = source("llama-gqa")
    clone = gc.clone(made.module, made.args, made.kwargs, depth=3, new_from=start)
    module = clone.module()
    new = tuple(addition.name for addition in clone.state.depth.additions)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    targets = made.kwargs["input_ids"].roll(-1, 1)
    for step in range(2):
        optimizer.zero_grad()
        logits = module(**made.kwargs)["logits"]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if name.startswith(new)}
        assert all(g is not None and bool(g.isfinite().all()) for g in gradients.values())
        if step:
            assert all(bool(gradient.any()) for gradient in gradients.values() if gradient is not None)
        optimizer.step()


def test_random_blocks_are_as_large_as_those_they_are_made_after_and_always_the_same() -> None:
    states = [deeper("gpt2", widen={}, depth=3, new_from="random", seed=seed) for seed in (1, 1, 2)]
    tensors = [{i.name: i.read() for i in state.graph.initializers} for state in states]
    name, old = "transformer.h.2.mlp.c_fc.weight", "transformer.h.1.mlp.c_fc.weight"
    assert torch.equal(tensors[0][name], tensors[1][name])
    assert not torch.equal(tensors[0][name], tensors[2][name])
    torch.testing.assert_close(tensors[0][name].std(), tensors[0][old].std(), rtol=0.1, atol=0)
    assert not tensors[0]["transformer.h.2.mlp.c_proj.weight"].any()


def test_a_closing_parameter_that_was_missed_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    closers = _Walker.closers

    def missing(walker: _Walker, block: Block) -> dict[Initializer, float]:
        return {i: number for i, number in closers(walker, block).items() if not i.name.endswith("fc2.bias")}

    monkeypatch.setattr(_Walker, "closers", missing)
    made = source("opt")
    report = gc.clone(made.module, made.args, made.kwargs, depth=3).verify(onnx=False)
    assert not report.ok
    (check,) = [check for check in report.checks if check.name == "depth"]
    assert "the new block model.decoder.layers.2 changes the stream" in check.summary


REFUSED = {
    "post-norm": ("bert-mlm", 3, r"bert.encoder.layer cannot be repeated: layer_norm_\d+ .* changes the stream"),
    "shared": ("albert", 3, "albert has no blocks that are repeated"),
    "shallower": ("opt", 1, r"model.decoder.layers=1: the depth is a whole number of at least 2"),
    "no whole number": ("opt", {"model": 2.5}, r"model.decoder.layers=2.5: the depth is a whole number"),
    "no blocks": ("mlp", 12, "mlp has no blocks that are repeated"),
    "unknown": ("opt", {"encoder": 3}, r"no stack of blocks is called 'encoder'; there are model.decoder.layers \(2\)"),
    "several": ("t5", 3, r"several stacks of blocks, encoder.block \(2\), decoder.block \(2\); say which, as "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str) -> None:
    name, depth, message = REFUSED[case]
    with pytest.raises(GraphcloneError, match=message):
        deeper(name, depth=depth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": "4"}, "depth='4': give a whole number of blocks"),
        ({"depth": 4, "new_blocks": "middle"}, "new_blocks='middle': give 'spread' or 'end' or 'start'"),
        ({"depth": 4, "new_from": "zero"}, "new_from='zero': give 'copy' or 'random'"),
    ],
)
def test_what_means_nothing_is_refused(arguments: dict[str, Any], message: str) -> None:
    made = source("opt")
    with pytest.raises(GraphcloneError, match=message):
        gc.clone(made.module, made.args, made.kwargs, **arguments)


def test_as_many_blocks_as_there_are_change_nothing() -> None:
    state = deeper("opt", widen={}, depth=2)
    assert not state.depth.additions
    assert check_depth(state, [traced("opt")[1]]) is None


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(torch.relu(self.up(self.norm(x) + beside)))
        return y


class Bridged(nn.Module):
    """The middle of a U-Net: what goes around the blocks is read in each of them, and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.into, self.after, self.head = (
            nn.Linear(3, 8),
            nn.Linear(8, 8),
            nn.Linear(8, 8),
            nn.Linear(16, 3),
        )
        self.middle = nn.ModuleList(Residual() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around = torch.relu(self.before(x))
        inner = torch.relu(self.into(around))
        for block in self.middle:
            inner = block(inner, around)
        y: torch.Tensor = self.head(torch.cat([self.after(inner), around], -1))
        return y


@pytest.mark.parametrize("options", [{"depth": 4}, {"depth": 3, "widen": 2}, {"depth": {"middle": 5}}], ids=str)
def test_blocks_that_something_goes_around_are_repeated(options: dict[str, Any]) -> None:
    module, x = seeded(Bridged).double(), torch.randn(5, 3, dtype=torch.double)
    clone = gc.clone(module, (x,), **options)
    depth = options["depth"]
    deepest = max(int(name.split(".")[1]) for name in clone.state_dict() if name.startswith("middle."))
    assert deepest == (depth["middle"] if isinstance(depth, dict) else depth) - 1
    torch.testing.assert_close(clone.module()(x[:2]), module(x[:2]), rtol=0, atol=1e-12)
    assert clone.verify(onnx=False).ok
