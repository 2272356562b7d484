"""The numbers that a model compares its integer inputs with: a sample rate, say, that decides which branch is taken."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

_KEEPING = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand", "Transpose", "Slice", "Gather")
"""Operators whose results have numbers of their first operand."""

_COMPARISONS = {"Equal": (0,), **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"), (0, 1))}
"""Comparing operators, with the distances from a number at which other things come true."""

_FEW = 16
"""How many numbers one constant may hold; more are a table."""


def compared_numbers(model: onnx_ir.Model) -> dict[str, list[int]]:
    """For every integer input that is compared with constants, the whole numbers that decide something."""
    integers = (value for value in model.graph.inputs if value.dtype is not None and value.dtype.is_integer())
    numbers = {value.name or "": sorted(set(_compared(value))) for value in integers}
    return {name: found for name, found in numbers.items() if found}


def _compared(value: onnx_ir.Value) -> Iterator[int]:
    """Numbers that decide what comparisons with a value, or with what shows it, come to."""
    for node, index in value.uses():
        if node.domain:
            continue
        if node.op_type in _COMPARISONS:
            steps = _COMPARISONS[node.op_type]
            yield from (number + step for number in _whole(node.inputs[1 - index]) for step in steps)
        elif node.op_type in _KEEPING and index == 0:
            yield from _compared(node.outputs[0])


def _whole(value: onnx_ir.Value | None) -> Iterator[int]:
    """The whole numbers that a value holds, if it is a constant of few."""
    if value is None:
        return
    producer = value.producer()
    if producer is not None and producer.op_type in _KEEPING and not producer.domain:
        yield from _whole(producer.inputs[0])
        return
    tensor = onnx_ir.convenience.get_const_tensor(value)
    if tensor is not None and tensor.size <= _FEW and tensor.dtype.is_integer() | tensor.dtype.is_floating_point():
        yield from (int(number) for number in tensor.numpy().reshape(-1).tolist() if number == number // 1)
