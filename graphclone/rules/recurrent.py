"""Recurrent layers: gates are ``P(gates, hidden)``, both directions ``Concat(hidden, hidden)``."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.axes import Axis
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def layers(gates: int) -> Rule:
    """A stack of recurrent layers as torch spells it: input, states, and a flat list of parameters."""

    def rule(s: Site) -> None:
        x = s.tensor("input")
        states = s["hx"] if isinstance(s["hx"], list) else [s["hx"]]
        for name in ("has_biases", "num_layers", "dropout", "train", "batch_first"):
            s.get(name)
        directions = 2 if s.get("bidirectional", False) else 1
        per_cell = 4 if s["has_biases"] else 2
        params = s["params"]
        if len(params) != per_cell * directions * s["num_layers"]:
            raise Cannot("projections")
        hidden = _states(s, x, states)
        stream = s.axes(x)[-1]
        for first in range(0, len(params), per_cell * directions):
            for cell in range(first, first + per_cell * directions, per_cell):
                _cell(s, params[cell : cell + per_cell], stream, hidden, gates)
            stream = s.system.concat([hidden] * directions)
        s.equal(s.axes(s.out)[-1], stream)
        s.require({x: 1})
        s.label(hidden, "hidden")

    return rule


def _states(s: Site, x: Value, states: list[Value]) -> Axis:
    """Equate the states before and after; the hidden axis. Batch and time pass, layers keep their number."""
    hidden = s.axes(states[0])[-1]
    for state in (*states, *s.node.outputs[1:]):
        s.pin(s.axes(state)[:-1], "layers and batch of a state")
        s.equal(s.axes(state)[-1], hidden)
    for state in states:
        s.require({state: 1})
    s.pin([*s.axes(x)[:-1], *s.axes(s.out)[:-1]], "time and batch of a recurrence")
    return hidden


def _cell(s: Site, params: list[Value], stream: Axis, hidden: Axis, gates: int) -> None:
    """``w_ih (gates h) x, w_hh (gates h) h, biases (gates h)``"""
    gated = s.system.product([s.system.dim(gates, s.why("gates")), hidden])
    for i, param in enumerate(params):
        s.equal(s.axes(param)[0], gated)
        if i >= 2:
            s.require({param: 1})
            continue
        s.equal(s.axes(param)[1], stream if i == 0 else hidden)
        s.require({param: 1}, contraction=s.contracted((param, [1])), mendable=False)


def cell(gates: int) -> Rule:
    """One step of one cell."""

    def rule(s: Site) -> None:
        x = s.tensor("input")
        states = s["hx"] if isinstance(s["hx"], list) else [s["hx"]]
        hidden = s.axes(states[0])[-1]
        for state in (*states, *s.node.outputs):
            s.equal_all(s.axes(state)[:-1], s.axes(x)[:-1])
            s.equal(s.axes(state)[-1], hidden)
        for value in (x, *states):
            s.require({value: 1})
        params = [s.tensor("w_ih"), s.tensor("w_hh")]
        params += [b for b in (s.maybe_tensor("b_ih"), s.maybe_tensor("b_hh")) if b is not None]
        _cell(s, params, s.axes(x)[-1], hidden, gates)

    return rule


RULES: Mapping[str, Rule] = {
    "aten.lstm.input": layers(4),
    "aten.gru.input": layers(3),
    "aten.rnn_tanh.input": layers(1),
    "aten.rnn_relu.input": layers(1),
    "aten.lstm_cell.default": cell(4),
    "aten.gru_cell.default": cell(3),
    "aten.rnn_tanh_cell.default": cell(1),
    "aten.rnn_relu_cell.default": cell(1),
}
