"""The specification of graphs and states: whatever breaks a sentence of it is caught, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from graphclone.algebra.growth import Growth
from graphclone.errors import InvariantError
from graphclone.formats.torch.export import Exported
from graphclone.formats.torch.reader import trace_module as trace
from graphclone.graph.invariants import check_graph
from graphclone.graph.ir import Graph, Opaque, Output, Value
from graphclone.passes import default_pipeline
from graphclone.pipeline.invariants import check_state
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State

Damage = Callable[[Graph], object]


def traced() -> Graph:
    layers = (nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 5))
    return trace(nn.Sequential(*layers).eval(), (torch.ones(2, 6),))


def set_shape(value: Value, shape: object) -> None:
    value.shape = shape


DAMAGES: dict[str, Damage] = {
    "input is an input, but its role is node": lambda g: setattr(g.inputs[0], "role", "node"),
    "input is an input but names a producer": lambda g: setattr(g.inputs[0], "producer", g.nodes[0]),
    "an input defines a value without a name": lambda g: setattr(g.inputs[0], "name", ""),
    "input is a tensor but has no dtype": lambda g: setattr(g.inputs[0], "dtype", ""),
    r"input has a shape that is none: \(2, -6\)": lambda g: set_shape(g.inputs[0], (2, -6)),
    r"input has a shape that is none: \(2, True\)": lambda g: set_shape(g.inputs[0], (2, True)),
    r"input has a shape that is none: \(2, 6.0\)": lambda g: set_shape(g.inputs[0], (2, 6.0)),
    r"input has a shape that is none: \[2, 6\]": lambda g: set_shape(g.inputs[0], [2, 6]),
    "input is a number but has a dtype": lambda g: set_shape(g.inputs[0], None),
    r"input has 2 axes, but its axis 2 is dynamic \('s'\)": lambda g: setattr(g.inputs[0], "dynamic", {2: "s"}),
    r"input has 2 axes, but its axis 0 is dynamic \(''\)": lambda g: setattr(g.inputs[0], "dynamic", {0: ""}),
    "the initializer behind 0.weight has no name": lambda g: setattr(g.initializers[0], "names", ()),
    "two initializers are called 0.weight": lambda g: setattr(g.initializers[1], "names", ("0.bias", "0.weight")),
    "initializer 0.weight is a weight, which is no kind": lambda g: setattr(g.initializers[0], "kind", "weight"),
    r"0.weight has 2 axes, but its data are \(3,\)": lambda g: setattr(g.initializers[0], "tensor", torch.ones(3)),
    "0.weight is initializer 0.weight, but its role is input": lambda g: setattr(
        g.initializers[0].value, "role", "input"
    ),
    "linear has an op without a vocabulary: 'linear'": lambda g: setattr(g.nodes[0], "op", "linear"),
    "linear has an op without a vocabulary: 'aten.'": lambda g: setattr(g.nodes[0], "op", "aten."),
    "linear has an operand without a name": lambda g: g.nodes[0].operands.update({"": 1}),
    "linear has an operand that is a Node, which is no literal": lambda g: g.nodes[0].operands.update(bias=g.nodes[1]),
    "linear has an operand that is a dict": lambda g: g.nodes[0].operands.update(bias=[{"a": 1}]),
    "linear has an operand that is a set": lambda g: g.nodes[0].operands.update(bias=[[{1}]]),
    "linear has an operand that is a dtype, which": lambda g: g.nodes[0].operands.update(bias=torch.float32),
    "linear has an operand that is a list, which": lambda g: g.nodes[0].operands.update(bias=Opaque([1])),
    "linear reads relu before it is computed": lambda g: g.nodes[0].operands.update(bias=[g.nodes[1].outputs[0]]),
    "output more reads stray before it is computed": lambda g: g.outputs.append(
        Output("more", [Value("stray", (2,), "float32")])
    ),
    "linear defines input a second time": lambda g: setattr(g.nodes[0].outputs[0], "name", "input"),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_graph_that_breaks_its_rules_is_caught(message: str) -> None:
    graph = traced()
    check_graph(graph)
    DAMAGES[message](graph)
    with pytest.raises(InvariantError, match=message):
        check_graph(graph)


def state_after(count: int) -> State:
    state = State(traced(), Request(widen=2))
    run(default_pipeline()[:count], state, check=True)
    return state


def forget_an_axis(state: State) -> None:
    value = state.graph.inputs[0]
    state.facts.of[value] = state.facts.of[value][:1]


def resize(state: State) -> None:
    state.graph.nodes[0].outputs[0].shape = (2, 15)


def damage_the_source(state: State) -> None:
    state.source.nodes[0].outputs[0].producer = None


def widen_what_is_gone(state: State) -> None:
    state.growths[state.facts.axes.dim(7)] = Growth(7, 2)


def scale_by_what_is_no_number(state: State) -> None:
    state.scales.factors[state.graph.initializers[0].value] = float("nan")


def forget_a_recipe(state: State) -> None:
    del state.recipes[state.graph.initializers[1].value]


def keep_a_weight(state: State) -> None:
    value = state.graph.initializers[0].value
    recipe = state.recipes[value]
    state.recipes[value] = replace(recipe, axes=recipe.axes[:1], contracted=())


@pytest.mark.parametrize(
    ("count", "damage", "message"),
    [
        (3, forget_an_axis, "input has 2 axes, but the facts know 1"),
        (3, resize, r"linear is \(2, 15\), which is neither \(2, 14\) nor \(2, 14\)"),
        (7, resize, r"linear is \(2, 15\), which is neither \(2, 14\) nor \(2, 28\)"),
        (3, damage_the_source, "linear is an output of linear but names another producer"),
        (4, widen_what_is_gone, "a dim of 7 grows that the graph does not have"),
        (5, scale_by_what_is_no_number, "%0.weight is scaled by nan"),
        (6, forget_a_recipe, "0.bias has no recipe"),
        (6, keep_a_weight, r"the recipe of 0.weight is for another shape, \(14,\)"),
    ],
)
def test_a_state_that_breaks_its_rules_is_caught(count: int, damage: Callable[[State], None], message: str) -> None:
    state = state_after(count)
    check_state(state)
    damage(state)
    with pytest.raises(InvariantError, match=message):
        check_state(state)


def test_what_a_graph_was_read_from_has_its_type() -> None:
    graph = traced()
    assert graph.origin_as(Exported) is graph.origin
    graph.origin = None
    with pytest.raises(InvariantError, match="Sequential was not read from an Exported"):
        graph.origin_as(Exported)
