"""Recurrent layers: gates are ``P(gates, hidden)``, both directions ``Concat(hidden, hidden)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.algebra.axes import Axis
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def layers(gates: int) -> Rule:
    """A stack of recurrent layers as torch spells it: input, states, and a flat list of parameters."""

    def rule(s: Site) -> None:
        x = s.tensor("input")
        states = s["hx"] if isinstance(s["hx"], list) else [s["hx"]]
        s.ignores("num_layers", "dropout", "train", "batch_first")
        directions = 2 if s.get("bidirectional", False) else 1
        params, plain = s["params"], 4 if s["has_biases"] else 2
        per_cell, rest = divmod(len(params), directions * s["num_layers"])
        if rest or per_cell not in (plain, plain + 1):
            raise Cannot("parameters of unknown meaning")
        given, hidden = _states(s, x, states)
        if per_cell == plain:
            s.equal(given, hidden)
        stream = s.axes(x)[-1]
        for first in range(0, len(params), per_cell * directions):
            for cell in range(first, first + per_cell * directions, per_cell):
                _cell(s, params[cell : cell + plain], stream, hidden, gates, given)
                if per_cell > plain:
                    _project(s, params[cell + plain], given, hidden)
            stream = s.system.concat([given] * directions)
        s.equal(s.axes(s.out)[-1], stream)
        s.require({x: 1})
        s.label(hidden, "hidden")

    return rule


def _states(s: Site, x: Value, states: list[Value]) -> tuple[Axis, Axis]:
    """Equate the states before and after: the axis of what a cell gives on, and the hidden axis of what it keeps.

    Batch and time pass, layers keep their number.
    """
    for before, after in zip(states, s.node.outputs[1:], strict=True):
        for state in (before, after):
            s.pin(s.axes(state)[:-1], "layers and batch of a state")
        s.equal(s.axes(before)[-1], s.axes(after)[-1])
        s.require({before: 1})
    s.pin([*s.axes(x)[:-1], *s.axes(s.out)[:-1]], "time and batch of a recurrence")
    return s.axes(states[0])[-1], s.axes(states[-1])[-1]


def _cell(s: Site, params: list[Value], stream: Axis, hidden: Axis, gates: int, given: Axis) -> None:
    """``w_ih (gates h) x, w_hh (gates h) g, biases (gates h)``, g what the cell gives on."""
    gated = s.system.product([s.system.dim(gates, s.why("gates")), hidden])
    for i, param in enumerate(params):
        s.equal(s.axes(param)[0], gated)
        if i >= 2:
            s.require({param: 1})
            continue
        s.equal(s.axes(param)[1], stream if i == 0 else given)
        _absorb(s, param)


def _project(s: Site, weight: Value, given: Axis, hidden: Axis) -> None:
    """``g h``: what a cell gives on is a projection of what it keeps."""
    s.equal_all(s.axes(weight), [given, hidden])
    _absorb(s, weight)


def _absorb(s: Site, weight: Value) -> None:
    """A weight takes the multiplicity of what it contracts, as nothing can be put into a recurrence."""
    s.require({weight: 1}, contraction=s.contracted((weight, [1])), mendable=False)


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
        _cell(s, params, s.axes(x)[-1], hidden, gates, hidden)

    return rule


def onnx_layer(gates: int) -> Rule:
    """One layer as ONNX spells it, with a direction per index of the first axis of ``W``, which keeps its size.

    ``X t b i, W d (g h) i, R d (g h) h, B d (2 g h), P d (3 h), states d b h -> t d b h, states d b h``, or with
    the batch first.
    """

    def rule(s: Site) -> None:
        x, directions, hidden = s.tensor("X"), s.axes(s.tensor("W"))[0], s.axes(s.tensor("R"))[2]
        s.require({x: 1})
        for name, axis in (("W", s.axes(x)[2]), ("R", hidden)):
            weight = s.tensor(name)
            s.require({weight: 1}, contraction=s.contracted((weight, [2])), mendable=False)
            s.equal_all(s.axes(weight), [directions, _blocks(s, gates, hidden), axis])
        _onnx_recurrence(s, x, directions, hidden, gates)

    return rule


def quantized_lstm(s: Site) -> None:
    """``LSTM`` with weights of integers, transposed; inputs and hidden states are rounded to integers on the way.

    ``X t b i, W d i (4 h), R d h (4 h)``, each of the two with scales and zero points ``d`` or ``d (4 h)``. What is
    rounded takes any scale, as the step between its integers follows it; the scales take what the sums multiply.
    """
    x, directions, hidden = s.tensor("X"), s.axes(s.tensor("W"))[0], s.axes(s.tensor("R"))[1]
    for name, axis, factors in (("W", s.axes(x)[2], [x]), ("R", hidden, [])):
        weight, scale, zero = s.tensor(name), s.tensor(f"{name}_scale"), s.tensor(f"{name}_zero_point")
        gated = [directions, _blocks(s, 4, hidden)]
        s.equal_all(s.axes(weight), [directions, axis, gated[1]])
        for numbers in (scale, zero):
            s.equal_all(s.axes(numbers), gated[: numbers.rank])
        s.require(dict.fromkeys([*factors, scale], 1), contraction=s.integer_sum([axis]), mendable=False)
    _onnx_recurrence(s, x, directions, hidden, 4)


def _onnx_recurrence(s: Site, x: Value, directions: Axis, hidden: Axis, gates: int) -> None:
    """All of a layer but what it does with its weights: options, biases, peepholes and states."""
    for name in _OPTIONS:
        s.get(name)
    s.pin(directions, "directions of a recurrence")
    s.label(hidden, "hidden")
    if s.has("hidden_size"):
        s.follow(("hidden_size",), hidden)
    for name, count in (("B", 2 * gates), ("P", 3)):
        _is_made_of(s, name, [directions, _blocks(s, count, hidden)])
    _onnx_states(s, x, directions, hidden)


def _onnx_states(s: Site, x: Value, directions: Axis, hidden: Axis) -> None:
    """Time keeps its size; the batch passes."""
    time, batch = s.axes(x)[:2]
    state, sequence = [directions, batch, hidden], [time, directions, batch, hidden]
    if s.get("layout"):
        batch, time = time, batch
        state, sequence = [batch, directions, hidden], [batch, time, directions, hidden]
    s.pin(time, "time of a recurrence")
    _is_made_of(s, "sequence_lens", [batch])
    for name in ("initial_h", "initial_c"):
        _is_made_of(s, name, state)
    for out in s.node.outputs:
        s.equal_all(s.axes(out), state if out.rank == len(state) else sequence)


def _is_made_of(s: Site, name: str, axes: Sequence[Axis]) -> None:
    """An operand, if it is given, has these axes; what it says is added to what cannot be rescaled."""
    value = s.maybe_tensor(name)
    if value is not None:
        s.equal_all(s.axes(value), axes)
        s.require({value: 1})


_OPTIONS = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "input_forget",
            "linear_before_reset", "layout")  # fmt: skip
"""What says which functions act on each element, in which order, or whether gates are coupled."""


def _blocks(s: Site, count: int, hidden: Axis) -> Axis:
    """So many gates, one after another."""
    return s.system.product([s.system.dim(count, s.why("gates")), hidden])


RULES: Mapping[str, Rule] = {
    "aten.lstm.input": layers(4),
    "aten.gru.input": layers(3),
    "aten.rnn_tanh.input": layers(1),
    "aten.rnn_relu.input": layers(1),
    "aten.lstm_cell.default": cell(4),
    "aten.gru_cell.default": cell(3),
    "aten.rnn_tanh_cell.default": cell(1),
    "aten.rnn_relu_cell.default": cell(1),
    "onnx.LSTM": onnx_layer(4),
    "onnx.GRU": onnx_layer(3),
    "onnx.RNN": onnx_layer(1),
    "com.microsoft.DynamicQuantizeLSTM": quantized_lstm,
}
