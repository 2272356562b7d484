"""The numbers that a model compares its inputs with: a sample rate that decides on a branch, the bounds of a pitch."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

import onnx_ir

_KEEPING = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand", "Transpose", "Slice", "Gather")
"""Operators whose results have numbers of their first operand."""

_COMPARISONS = {"Equal": (0,), **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual"), (0, 1))}
"""Comparing operators, with the distances from a number at which other things come true."""

_FEW = 16
"""How many numbers of a constant count; of more only the least and the greatest do."""


def compared_numbers(model: onnx_ir.Model) -> dict[str, list[float]]:
    """For every input that is compared with constants, the numbers that decide something; of integers, whole ones."""
    by_input: dict[str, list[float]] = {}
    for value in model.graph.inputs:
        whole = value.dtype is not None and value.dtype.is_integer()
        numbers = sorted({number for number in _compared(value, whole=whole) if number == number // 1 or not whole})
        if numbers:
            by_input[value.name or ""] = numbers
    return by_input


def _compared(value: onnx_ir.Value, *, whole: bool) -> Iterator[float]:
    """Numbers that decide what comparisons with a value, or with what shows it, come to."""
    for node, index in value.uses():
        if node.domain:
            continue
        if node.op_type in _COMPARISONS:
            steps = _COMPARISONS[node.op_type] if whole else (0,)
            yield from (number + step for number in _numbers(node.inputs[1 - index]) for step in steps)
        elif node.op_type in _KEEPING and index == 0:
            yield from _compared(node.outputs[0], whole=whole)


def _numbers(value: onnx_ir.Value | None) -> list[float]:
    """The numbers that a value holds, if it is a constant."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type in _KEEPING and not producer.domain:
        return _numbers(producer.inputs[0])
    tensor = None if value is None else onnx_ir.convenience.get_const_tensor(value)
    if tensor is None or not (tensor.dtype.is_integer() or tensor.dtype.is_floating_point()):
        return []
    numbers = [number for number in tensor.numpy().reshape(-1).tolist() if isfinite(number)]
    return numbers if len(numbers) <= _FEW else [min(numbers), max(numbers)]
