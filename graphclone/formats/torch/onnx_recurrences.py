"""Recurrent layers in ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnxscript
import torch
from torch.export import ExportedProgram

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.recurrences import STAND_INS

_ONNX: Any = onnxscript.opset18
"""Whose types leave out that numbers become constants."""


def check_recurrences(program: ExportedProgram) -> None:
    """Refuse what ONNX has no operator for.

    Raises:
        GraphcloneError: a layer projects its states.
    """
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.lstm.input):
        hidden, cell = (state.meta["val"].shape[-1] for state in node.args[1])
        if hidden != cell:
            raise GraphcloneError(f"{node.name}: ONNX has no recurrence that projects its states (proj_size)")


@dataclass(frozen=True)
class _Layers:
    """A stack of recurrent layers: torch has the stack as one operator, ONNX each layer.

    Attributes:
        operator: of ONNX.
        gates: where those of ONNX are among torch's.
        options: more attributes of the operator, by direction where they are lists.
    """

    operator: Callable[..., Any]
    gates: tuple[int, ...]
    options: dict[str, Any]

    def __call__(self, seen: Any, hx: Any, params: Sequence[Any], *options: Any) -> tuple[Any, ...]:
        """The layers in ONNX; dropout is left out, as a clone is exported for evaluation."""
        has_biases, num_layers, _, _, bidirectional, batch_first = options
        states = list(hx) if isinstance(hx, list | tuple) else [hx]
        directions, plain = 2 if bidirectional else 1, 4 if has_biases else 2
        stream = _ONNX.Transpose(seen, perm=[1, 0, 2]) if batch_first else seen
        last: list[list[Any]] = [[] for _ in states]
        for layer in range(num_layers):
            cells = params[layer * directions * plain : (layer + 1) * directions * plain]
            inputs, recurrent, *biases = (self.of_layer(cells[part::plain]) for part in range(plain))
            place = [layer * directions], [(layer + 1) * directions], [0]
            steps, *after = self.operator(
                stream,
                inputs,
                recurrent,
                _ONNX.Concat(*biases, axis=1) if biases else None,
                None,
                *(_ONNX.Slice(state, *place) for state in states),
                direction="bidirectional" if bidirectional else "forward",
                hidden_size=states[-1].shape[-1],
                **{name: o * directions if isinstance(o, list) else o for name, o in self.options.items()},
            )
            stream = _ONNX.Reshape(_ONNX.Transpose(steps, perm=[0, 2, 1, 3]), [0, 0, -1])
            for before, state in zip(last, after, strict=False):  # the operator's fixed number of results
                before.append(state)
        given = _ONNX.Transpose(stream, perm=[1, 0, 2]) if batch_first else stream
        return given, *(_ONNX.Concat(*parts, axis=0) for parts in last)

    def of_layer(self, parameters: Sequence[Any]) -> Any:
        """A weight or bias of a layer, its directions along a first axis and its gates as ONNX has them."""
        return _ONNX.Concat(*map(self.of_direction, parameters), axis=0)

    def of_direction(self, parameter: Any) -> Any:
        by_gate = _ONNX.Reshape(parameter, [len(self.gates), -1])
        ordered = _ONNX.Gather(by_gate, list(self.gates), axis=0)
        return _ONNX.Reshape(ordered, [1, *parameter.shape])


_ATEN = torch.ops.aten
_LAYERS = {
    _ATEN.lstm.input: _Layers(_ONNX.LSTM, (0, 3, 1, 2), {}),
    _ATEN.gru.input: _Layers(_ONNX.GRU, (1, 0, 2), {"linear_before_reset": 1}),
    _ATEN.rnn_tanh.input: _Layers(_ONNX.RNN, (0,), {"activations": ["Tanh"]}),
    _ATEN.rnn_relu.input: _Layers(_ONNX.RNN, (0,), {"activations": ["Relu"]}),
}

TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {STAND_INS[op]: layers for op, layers in _LAYERS.items()}
"""For torch's exporter."""
