# ruff: noqa: PLR0913  operands and attributes are those of the operators
"""RNN, GRU and LSTM for the evaluator, with sequences of different lengths and all activations.

onnx's reference implementation knows neither, nor limits what goes into an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphclone.formats.onnx.evaluator.functions import in_bytes
from graphclone.formats.onnx.evaluator.own import Array

Activation = Callable[[Array], Array]
CellState = tuple[Array, ...]
"""What a cell remembers, each ``batch hidden``: the hidden state first."""

_ACTIVATIONS: Mapping[str, tuple[tuple[float, ...], Callable[..., Array]]] = {
    "affine": ((0.0, 0.0), lambda x, alpha, beta: alpha * x + beta),
    "elu": ((1.0,), lambda x, alpha: np.where(x < 0, alpha * np.expm1(x), x)),
    "hardsigmoid": ((0.2, 0.5), lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1)),
    "leakyrelu": ((0.01,), lambda x, alpha: np.where(x < 0, alpha * x, x)),
    "relu": ((), lambda x: np.maximum(x, 0)),
    "scaledtanh": ((0.0, 0.0), lambda x, alpha, beta: alpha * np.tanh(beta * x)),
    "sigmoid": ((), lambda x: 1 / (1 + np.exp(-x))),
    "softplus": ((), lambda x: np.logaddexp(0, x)),
    "softsign": ((), lambda x: x / (1 + np.abs(x))),
    "tanh": ((), np.tanh),
    "thresholdedrelu": ((0.0,), lambda x, alpha: np.where(x > alpha, x, 0)),
}
"""By name, in small letters: what alpha and beta are unless given, and the function. Where the standard gives no
number ONNX Runtime takes 0."""


@dataclass(frozen=True)
class _Layer:
    """The weights of one direction.

    Attributes:
        w: of the input, ``(gate hidden) input``.
        r: of the hidden state, ``(gate hidden) hidden``.
        wb: bias of the input, ``(gate hidden)``.
        rb: bias of the hidden state, ``(gate hidden)``.
        p: of the cell state, ``(gate hidden)``, its gates being input, output and forget.
        activations: of this direction.
        clip: limits what goes into the activation of a gate; infinite if it does not.
    """

    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array
    activations: Sequence[Activation]
    clip: float

    def gates(self, x: Array, h: Array, count: int) -> list[Array]:
        """What goes into every gate, from input and hidden state together."""
        return np.split(x @ self.w.T + self.wb + h @ self.r.T + self.rb, count, axis=-1)

    def activate(self, index: int, x: Array) -> Array:
        return self.activations[index](np.clip(x, -self.clip, self.clip))


Cell = Callable[[_Layer, Array, CellState], CellState]
"""The state after one step, from an input ``batch input`` and the state before."""


def rnn(x: Array, w: Array, r: Array, b: Array | None = None, *more: Array | None, **attributes: Any) -> CellState:
    """``RNN``: the hidden states of all steps, and the last."""
    lengths, h = _padded(more, 2)
    return _run(_rnn_cell, ("Tanh",), x, (w, r, b, None), lengths, (h,), **attributes)


def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    *more: Array | None,
    linear_before_reset: int = 0,
    **attributes: Any,
) -> CellState:
    """``GRU``: the hidden states of all steps, and the last."""
    lengths, h = _padded(more, 2)
    cell = _gru_cell_reset_after if linear_before_reset else _gru_cell
    return _run(cell, ("Sigmoid", "Tanh"), x, (w, r, b, None), lengths, (h,), **attributes)


def lstm(
    x: Array, w: Array, r: Array, b: Array | None = None, *more: Array | None, input_forget: int = 0, **attributes: Any
) -> CellState:
    """``LSTM``: the hidden states of all steps, the last, and the last cell state."""
    lengths, h, c, p = _padded(more, 4)
    cell = _lstm_cell_coupled if input_forget else _lstm_cell
    return _run(cell, ("Sigmoid", "Tanh", "Tanh"), x, (w, r, b, p), lengths, (h, c), **attributes)


def dynamic_lstm(
    x: Array, w: Array, r: Array, b: Array | None, *more: Array | None, input_forget: int = 0, **attributes: Any
) -> CellState:
    """``LSTM`` with weights of integers, transposed; inputs and hidden states are rounded to bytes on the way."""
    lengths, h, c, p, w_scale, w_zero, r_scale, r_zero = more
    if lengths is not None and (lengths != len(x)).any():  # what ONNX Runtime rounds along is not even computed
        raise NotImplementedError("sequences of different lengths, which are rounded together")
    lstm_cell = _lstm_cell_coupled if input_forget else _lstm_cell

    def cell(layer: _Layer, x: Array, state: CellState) -> CellState:
        return lstm_cell(layer, x, (_rounded(state[0]), *state[1:]))

    weights = (_unquantized(w, w_scale, w_zero), _unquantized(r, r_scale, r_zero), b, p)
    return _run(cell, ("Sigmoid", "Tanh", "Tanh"), _rounded(x), weights, lengths, (h, c), **attributes)


def _rounded(x: Array) -> Array:
    numbers, scale, zero = in_bytes(x)
    floats: Array = (numbers - zero) * scale
    return floats.astype(x.dtype)


def _unquantized(weight: Array, scale: Array | None, zero: Array | None) -> Array:
    """``d g i`` of the floats that integers ``d i g`` stand for, with a scale and a zero point ``d`` or ``d g``."""
    assert scale is not None
    assert zero is not None
    numbers = np.swapaxes(weight.astype(scale.dtype), 1, 2)
    floats: Array = (numbers - zero.reshape(len(zero), -1, 1)) * scale.reshape(len(scale), -1, 1)
    return floats


def _padded(operands: Sequence[Array | None], count: int) -> Sequence[Array | None]:
    return [*operands, *[None] * (count - len(operands))]


# Cells


def _rnn_cell(layer: _Layer, x: Array, state: CellState) -> CellState:
    (gate,) = layer.gates(x, state[0], 1)
    return (layer.activate(0, gate),)


def _gru_cell(layer: _Layer, x: Array, state: CellState) -> CellState:
    """The hidden state is reset before it is multiplied."""
    h, size = state[0], state[0].shape[-1]
    z, r, _ = (layer.activate(0, gate) for gate in layer.gates(x, h, 3))
    last = slice(2 * size, None)
    new = layer.activate(1, x @ layer.w[last].T + layer.wb[last] + (r * h) @ layer.r[last].T + layer.rb[last])
    return ((1 - z) * new + z * h,)


def _gru_cell_reset_after(layer: _Layer, x: Array, state: CellState) -> CellState:
    """The hidden state is reset after it is multiplied."""
    h, size = state[0], state[0].shape[-1]
    z, r, _ = (layer.activate(0, gate) for gate in layer.gates(x, h, 3))
    last = slice(2 * size, None)
    new = layer.activate(1, x @ layer.w[last].T + layer.wb[last] + r * (h @ layer.r[last].T + layer.rb[last]))
    return ((1 - z) * new + z * h,)


def _lstm_cell(layer: _Layer, x: Array, state: CellState, *, coupled: bool = False) -> CellState:
    h, c = state
    i, o, f, new = layer.gates(x, h, 4)
    to_input, to_output, to_forget = np.split(layer.p, 3)
    i = layer.activate(0, i + to_input * c)
    f = 1 - i if coupled else layer.activate(0, f + to_forget * c)
    c = f * c + i * layer.activate(1, new)
    return layer.activate(0, o + to_output * c) * layer.activations[2](c), c


def _lstm_cell_coupled(layer: _Layer, x: Array, state: CellState) -> CellState:
    """What is forgotten is what is put in."""
    return _lstm_cell(layer, x, state, coupled=True)


# Steps and directions


def _run(
    cell: Cell,
    default: tuple[str, ...],
    x: Array,
    weights: Sequence[Array | None],
    lengths: Array | None,
    initial: Sequence[Array | None],
    *,
    direction: str = "forward",
    layout: int = 0,
    clip: float = np.inf,
    **attributes: Any,
) -> CellState:
    """All directions of a recurrence: ``time direction batch hidden``, and what is remembered in the end."""
    w, r, b, p = weights
    assert w is not None
    assert r is not None
    if layout:
        x, initial = np.swapaxes(x, 0, 1), [None if s is None else np.swapaxes(s, 0, 1) for s in initial]
    time, batch, hidden = *x.shape[:2], r.shape[-1]
    b = np.zeros((len(w), 2 * w.shape[1]), x.dtype) if b is None else b
    p = np.zeros((len(w), 3 * hidden), x.dtype) if p is None else p
    start = [np.zeros((len(w), batch, hidden), x.dtype) if state is None else state for state in initial]
    counts = np.full(batch, time) if lengths is None else lengths
    functions = list(_activations(attributes, default * len(w)))
    runs = []
    for index in range(len(w)):
        own = functions[index * len(default) : (index + 1) * len(default)]
        wb, rb = np.split(b[index], 2)
        layer = _Layer(w[index], r[index], wb, rb, p[index], own, clip)
        backwards = direction == "reverse" or index == 1
        runs.append(_direction(cell, layer, x, counts, tuple(state[index] for state in start), backwards=backwards))
    stacked = np.stack([steps for steps, _ in runs], 1)
    last = [np.stack(states) for states in zip(*(state for _, state in runs), strict=True)]
    if layout:
        stacked, last = stacked.transpose(2, 0, 1, 3), [np.swapaxes(state, 0, 1) for state in last]
    return tuple(array.astype(x.dtype) for array in (stacked, *last))


def _direction(
    cell: Cell, layer: _Layer, x: Array, counts: Array, state: CellState, *, backwards: bool
) -> tuple[Array, CellState]:
    """The hidden states, 0 beyond the end of a sequence, and what is remembered at its end."""
    steps = np.zeros((*x.shape[:2], layer.r.shape[-1]), x.dtype)
    for t in range(len(x))[:: -1 if backwards else 1]:
        inside = (t < counts)[:, None]
        state = tuple(np.where(inside, new, old) for new, old in zip(cell(layer, x[t], state), state, strict=True))
        steps[t] = np.where(inside, state[0], 0)
    return steps, state


def _activations(attributes: Mapping[str, Any], default: Sequence[str]) -> Iterator[Activation]:
    """The functions by their names; each takes from the given alphas and betas what it needs, in order."""
    alphas, betas = (iter(attributes.get(f"activation_{name}") or ()) for name in ("alpha", "beta"))
    for name in attributes.get("activations") or default:
        usual, function = _ACTIVATIONS[name.lower()]
        numbers = [next(supply, number) for supply, number in zip((alphas, betas), usual, strict=False)]
        yield _with(function, numbers)


def _with(function: Callable[..., Array], numbers: Sequence[float]) -> Activation:
    return lambda x: function(x, *numbers)
