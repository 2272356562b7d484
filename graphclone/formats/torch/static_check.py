"""Whether every node of a clone gives the shape that the layouts predict, found without computing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._C._functorch import is_batchedtensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from graphclone.graph.ir import Initializer, Node, Value
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, execute
from graphclone.runtime.maps import Maps
from graphclone.runtime.tensors import Lazy
from graphclone.verification.checks import STATIC, Check
from graphclone.verification.distance import Deviation

_DEPENDS_ON_DATA = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)


def check_static(state: State, examples: Sequence[torch.Tensor]) -> Check:
    """Run the clone on tensors without data, dynamic axes by the sizes of the trace.

    Args:
        state: after the whole pipeline.
        examples: one tensor per graph input, for their types and devices.
    """
    name, checked, first = STATIC, 0, None
    try:
        for node, results in _fake_run(state, examples):
            pairs = zip(node.outputs, results, strict=True)
            deviations = [_wrong(state, node, value, r) for value, r in pairs if _has_shape(r)]
            checked += len(deviations)
            first = first or next(filter(None, deviations), None)
    except ExecutionError as error:
        if not isinstance(error.__cause__, _DEPENDS_ON_DATA):
            first = first or Deviation.at(error.node, _first_output(error.node), float("inf"), error.reason)
        elif first is None:
            why = f"what follows {error.node.name} depends on data"
            return Check(name, True, f"{checked} values have the predicted shape; {why}", {"values": checked})
    summary = str(first) if first else f"all {checked} values have the predicted shape"
    return Check(name, first is None, summary, {"values": checked}, first=first)


def predicted_shape(state: State, value: Value) -> tuple[int, ...]:
    """The shape that a value of the clone must have."""
    return tuple(layout.new_size for layout in Maps(state).layouts(value))


def _fake_run(state: State, examples: Sequence[torch.Tensor]) -> Iterator[tuple[Node, list[Any]]]:
    def read(initializer: Initializer) -> torch.Tensor:
        return _empty(
            state,
            initializer.value,
            initializer.tensor.dtype,
            getattr(initializer.tensor, "device", torch.device("cpu")),
        )

    def run(node: Node, operands: Mapping[str, Any]) -> Sequence[Any]:
        if _returns_nothing(node):  # an assertion about a size that depends on data, for which another stands here
            return [None]
        try:
            return state.graph.dialect.run(node, operands)
        except _DEPENDS_ON_DATA:
            if not all(value.is_tensor for value in node.outputs):
                raise
            device = next(t.device for t in operands.values() if isinstance(t, torch.Tensor))
            return [_empty(state, value, getattr(torch, value.dtype), device) for value in node.outputs]

    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        pairs = zip(state.graph.inputs, examples, strict=True)
        inputs = [_empty(state, value, like.dtype, like.device) for value, like in pairs]
        yield from execute(state.graph, Lazy(state.graph, read), inputs, run=run)


def _returns_nothing(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.returns


def _empty(state: State, value: Value, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(predicted_shape(state, value), dtype=dtype, device=device)


def _has_shape(result: Any) -> bool:
    """Whether a result is a tensor; inside a vmap it hides an axis."""
    return isinstance(result, torch.Tensor) and not is_batchedtensor(result)


def _wrong(state: State, node: Node, value: Value, result: torch.Tensor) -> Deviation | None:
    if value not in state.facts.of:
        return None
    shape, predicted = tuple(result.shape), predicted_shape(state, value)
    if shape == predicted:
        return None
    return Deviation.at(node, value.name, float("inf"), f"shape {shape}, expected {predicted}")


def _first_output(node: Node) -> str:
    return node.outputs[0].name if node.outputs else node.name
