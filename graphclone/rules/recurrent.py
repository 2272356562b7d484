"""Recurrent layers: gates are ``P(gates, hidden)``, both directions ``Concat(hidden, hidden)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.algebra.axes import Axis, Why
from graphclone.graph.ir import Value
from graphclone.rules.binding import Binding
from graphclone.rules.site import Cannot, Rule, Site, paired


def layers(gates: int) -> Rule:
    """A stack of recurrent layers as torch spells it: input, states, and a flat list of parameters."""

    def rule(s: Site) -> None:
        states = s.tensor_list("hx")
        s.ignores("batch_first")
        if s.number("dropout") and s.flag("train"):
            raise Cannot("dropout in training mode")
        directions = 2 if s.flag("bidirectional") else 1
        params, plain = s.tensor_list("params"), 4 if s.flag("has_biases") else 2
        per_cell, rest = divmod(len(params), directions * s.count("num_layers"))
        if rest or per_cell not in (plain, plain + 1) or not states:
            raise Cannot("parameters of unknown meaning")
        axes = s.states("| !t.. i -> !t.. o", "input", why="time and batch of a recurrence")
        stream = axes["i"]
        output, hidden = _states(s, states)
        if per_cell == plain:
            s.equal(output, hidden)
        else:
            why = Why(s.node.name, "of one size with another state, which would mean that nothing is projected")
            s.facts.distinct.append((output, hidden, why))
        s.facts.vanishing.add(s.node)
        for first in range(0, len(params), per_cell * directions):
            for cell in range(first, first + per_cell * directions, per_cell):
                seen = s.tensor("input") if first == 0 else None
                _cell(s, params[cell : cell + plain], gates, seen, x=stream, h=hidden, o=output)
                if per_cell > plain:
                    _project(s, params[cell + plain], output, hidden)
            stream = s.system.concat([output] * directions)
        s.equal(axes["o"], stream)
        s.require({s.tensor("input"): 1})
        s.label(hidden, "hidden")

    return rule


def _states(s: Site, states: Sequence[Value]) -> tuple[Axis, Axis]:
    """The axis of what a cell gives on, and the hidden axis of what it keeps, from the states before and after."""
    hidden: list[Axis] = []
    for before, after in paired(states, s.node.outputs[1:], "states"):
        hidden.append(s.states("| !l.. h, !l.. h", before, after, why="layers and batch of a state")["h"])
        s.require({before: 1})
    return hidden[0], hidden[-1]


def _cell(s: Site, params: Sequence[Value], gates: int, seen: Value | None, **axes: Axis) -> None:
    """Weights and biases of one cell, and the operand that it sees, if it is one; ``o`` is what it gives on."""
    biases = ", (!g h)" * (len(params) - 2)
    s.states(f"| (!g h) x, (!g h) o{biases}", *params, g=gates, why="gates", **axes)
    for weight, partner in zip(params[:2], (seen, None), strict=True):
        _absorb(s, weight, 1, partner)
    for bias in params[2:]:
        s.require({bias: 1})


def _project(s: Site, weight: Value, output: Axis, hidden: Axis) -> None:
    """What a cell gives on is a projection of what it keeps."""
    s.states("| o h", weight, o=output, h=hidden)
    _absorb(s, weight, 1)


def _absorb(s: Site, weight: Value, axis: int, partner: Value | None = None) -> None:
    """A weight takes the multiplicity of what it contracts, as nothing can be put into a recurrence.

    What an operand is multiplied with has its last axis; what states are multiplied with has one that is kept besides.
    """
    others = [] if partner is None else [(partner, partner.rank - 1)]
    s.require({weight: 1}, contraction=s.contracted((weight, [axis]), others=others), mendable=False)


def cell(gates: int) -> Rule:
    """One step of one cell."""

    def rule(s: Site) -> None:
        x = s.tensor("input")
        states = s.tensor_list("hx")
        operands = ", ".join(["... x", *["... h"] * len(states)])
        axes = s.states(f"| {operands} -> {', '.join(['... h'] * len(s.node.outputs))}", x, *states)
        for value in (x, *states):
            s.require({value: 1})
        biases = [bias for name in ("b_ih", "b_hh") if (bias := s.maybe_tensor(name)) is not None]
        params = [s.tensor("w_ih"), s.tensor("w_hh"), *biases]
        s.facts.vanishing.add(s.node)
        _cell(s, params, gates, x, x=axes["x"], h=axes["h"], o=axes["h"])

    return rule


def onnx_layer(gates: int) -> Rule:
    """One layer as ONNX spells it, with a direction per index of the first axis of each weight."""

    def rule(s: Site) -> None:
        _onnx_recurrence(s, gates, f"!d ({gates} h) i", f"d ({gates} h) h")
        s.require({s.tensor("X"): 1})
        _absorb(s, s.tensor("W"), 2, s.tensor("X"))
        _absorb(s, s.tensor("R"), 2)
        if not s.has("activations"):
            s.facts.vanishing.add(s.node)

    return rule


def quantized_lstm(s: Site) -> None:
    """``LSTM`` with weights of integers, transposed; inputs and hidden states are rounded to integers on the way.

    What is rounded takes any scale, as the step between its integers follows it; the scales take what the sums
    multiply.
    """
    axes = _onnx_recurrence(s, 4, "!d i (4 h)", "d h (4 h)")
    for name, axis, factors in (("W", axes["i"], [s.tensor("X")]), ("R", axes["h"], [])):
        weight, scale = s.axes(s.tensor(name)), s.tensor(f"{name}_scale")
        for numbers in (scale, s.tensor(f"{name}_zero_point")):
            s.equal_all(s.axes(numbers), (weight[0], weight[2])[: numbers.rank])
        s.require(dict.fromkeys([*factors, scale], 1), contraction=s.integer_sum([axis]), mendable=False)


def _onnx_recurrence(s: Site, gates: int, inputs: str, recurrent: str) -> Binding:
    """All of a layer but the scales of its weights, whose axes are given; the batch may come first."""
    s.ignores(*_OPTIONS)
    x, state, y = ("b !t i", "b d h", "b t d h") if s.flag("layout") else ("!t b i", "d b h", "t d b h")
    results = ", ".join(state if out.rank == 3 else y for out in s.node.outputs)
    pattern = f"| {x}, {inputs}, {recurrent}, d ({2 * gates} h)?, d (3 h)?, b?, {state}?, {state}? -> {results}"
    names = ("X", "W", "R", "B", "P", "sequence_lens", "initial_h", "initial_c")
    axes = s.states(pattern, *names, why="time, directions and gates of a recurrence")
    for name in names[3:]:
        if (value := s.maybe_tensor(name)) is not None:
            s.require({value: 1})
    s.label(axes["h"], "hidden")
    if s.has("hidden_size"):
        s.follow(("hidden_size",), axes["h"])
    return axes


_OPTIONS = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "input_forget",
            "linear_before_reset", "layout")  # fmt: skip
"""What says which functions act on each element, in which order, or whether gates are coupled."""


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
