"""Deeper models compute what their sources compute, and all that is new in them trains."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Graph
from graphclone.models import Built
from graphclone.passes import default_pipeline
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.verification.depth import check_depth
from graphclone.verification.lockstep import run_lockstep
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


@pytest.mark.parametrize("name", LADDER)
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
