"""Numbers that a program computes of sizes, in ONNX.

They are what Python makes of them: integers are divided downwards, and other numbers have double precision, since
``int(0.29 * n)`` is another integer in single precision.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

import onnx_ir
import onnxscript
import torch

_ONNX: Any = onnxscript.opset18
"""Whose types leave out that numbers become constants."""

_INTEGER, _FLOAT, _DOUBLE = onnx_ir.DataType.INT64, onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE


def settle_precision(model: onnx_ir.Model) -> None:
    """Give what was computed in double precision its type, and what else reads it the single one.

    The exporter takes every number of sizes for one of single precision.
    """
    doubles = [value for node in model.graph.all_nodes() for value in node.outputs if _DOUBLE in value.meta]
    for value in doubles:
        value.dtype = _DOUBLE
        for reader, place in list(value.uses()):
            if reader.op_type != "Cast" and _DOUBLE not in reader.outputs[0].meta:
                single = onnx_ir.node("Cast", [value], {"to": _FLOAT})
                single.outputs[0].dtype, single.outputs[0].shape = _FLOAT, value.shape
                assert reader.graph is not None
                reader.graph.insert_before(reader, single)
                reader.replace_input_with(place, single.outputs[0])


def _in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers in double precision."""

    @wraps(function)
    def translated(*numbers: Any) -> Any:
        result = function(*map(_double, numbers))
        result.meta[_DOUBLE] = True
        return result

    return translated


def _of_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of integers, in double precision where a number is none."""
    in_double = _in_double(function)

    @wraps(function)
    def translated(*numbers: Any) -> Any:
        return function(*numbers) if all(map(_is_integer, numbers)) else in_double(*numbers)

    return translated


def _is_integer(number: Any) -> bool:
    return isinstance(number, int) or getattr(number, "dtype", None) == _INTEGER


def _double(number: Any) -> Any:
    if isinstance(number, int | float):
        return _ONNX.Constant(value=onnx_ir.tensor(number, dtype=_DOUBLE))
    return _ONNX.Cast(number, to=_DOUBLE)


def _whole(number: Any) -> Any:
    """A number without its fraction."""
    return _ONNX.Cast(number, to=_INTEGER)


def _to_whole(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def translated(number: Any, digits: None = None) -> Any:
        assert digits is None, "rounds to digits"
        return _whole(function(_double(number)))

    return translated


def _quotient(dividend: Any, divisor: Any) -> Any:
    """A size divided by another, downwards; ONNX divides towards 0, as the exporter itself does."""
    return _ONNX.Div(_ONNX.Sub(dividend, _ONNX.Mod(dividend, divisor)), divisor)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    operator.add: _of_kind(_ONNX.Add),
    operator.sub: _of_kind(_ONNX.Sub),
    operator.mul: _of_kind(_ONNX.Mul),
    operator.pow: _of_kind(_ONNX.Pow),
    operator.neg: _of_kind(_ONNX.Neg),
    operator.truediv: _in_double(_ONNX.Div),
    operator.floordiv: _quotient,
    torch.sym_float: _in_double(_ONNX.Identity),
    torch._sym_sqrt: _in_double(_ONNX.Sqrt),  # type: ignore[attr-defined]
    math.trunc: _whole,
    math.floor: _to_whole(_ONNX.Floor),
    math.ceil: _to_whole(_ONNX.Ceil),
    round: _to_whole(_ONNX.Round),
}
"""For torch's exporter."""
