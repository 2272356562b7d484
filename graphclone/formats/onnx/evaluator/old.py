"""Operators of old opsets, respelled as those that took their place, which onnx's reference implementation knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from graphclone.formats.onnx.evaluator.own import Array

Attributes = dict[str, Any]
Operands = list[Array | None]
CurrentCall = tuple[int, Attributes, Operands]
"""An opset, attributes and inputs."""


RENAMED: Mapping[str, str] = {"Upsample": "Resize"}
"""What a respelled operator is called now, if not as before."""

OLDEST_KNOWN = 13
"""The opset from which on nothing needs to be respelled."""


def respelled(op: str, opset: int, attributes: Mapping[str, Any], arrays: Sequence[Array | None]) -> CurrentCall | None:
    """An operator of an old opset as one of a later opset; None where it need not be respelled."""
    until, function = _OLD.get(op, (0, None))
    if function is None or opset >= until:
        return None
    return function(dict(attributes), list(arrays))


def _binary(attributes: Attributes, arrays: Operands) -> CurrentCall:
    """The second operand is laid along axes from one that is given, or along the last ones."""
    a, b = arrays
    assert a is not None
    assert b is not None
    axis = attributes.get("axis")
    if attributes.get("broadcast") and axis is not None:
        b = b.reshape(*b.shape, *[1] * (a.ndim - axis % a.ndim - b.ndim))
    return 7, {}, [a, b]


def _product(attributes: Attributes, arrays: Operands) -> CurrentCall:
    attributes.pop("broadcast", None)
    return 7, attributes, arrays


def _slope(_: Attributes, arrays: Operands) -> CurrentCall:
    """A slope for each channel was a vector."""
    x, slope = arrays
    assert x is not None
    assert slope is not None
    return 7, {}, [x, slope.reshape(-1, *[1] * (x.ndim - 2)) if slope.size > 1 and slope.ndim == 1 else slope]


def _normalised(attributes: Attributes, arrays: Operands) -> CurrentCall:
    """The statistics were of channels, unless told otherwise, and stayed as they are if told so."""
    if attributes.get("spatial", 1) == 1 and attributes.get("is_test", 1) == 1:
        attributes = {name: value for name, value in attributes.items() if name in ("epsilon", "momentum")}
    return 9, attributes, arrays


def _attribute_to_input(
    opset: int, *names: str, dtype: Any = np.int64
) -> Callable[[Attributes, Operands], CurrentCall]:
    """Attributes that have become inputs, after those that there were."""

    def respell(attributes: Attributes, arrays: Operands) -> CurrentCall:
        values = [attributes.pop(name, None) for name in names]
        attributes.pop("consumed_inputs", None)
        own: Any = dtype or (arrays[0].dtype if arrays[0] is not None else None)
        return opset, attributes, [*arrays, *(None if a is None else np.array(a, own) for a in values)]

    return respell


def _top(attributes: Attributes, arrays: Operands) -> CurrentCall:
    return 10, attributes, [*arrays, np.array([attributes.pop("k")])]


def _pad(attributes: Attributes, arrays: Operands) -> CurrentCall:
    (x,) = arrays
    assert x is not None
    pads = attributes.pop("pads") if "pads" in attributes else attributes.pop("paddings")
    return 13, attributes, [x, np.array(pads), np.array(attributes.pop("value", 0), x.dtype)]


def _dropout(_: Attributes, arrays: Operands) -> CurrentCall:
    """No input takes the place of the ratio, which is for training."""
    return 13, {}, arrays


def _first_tile(_: Attributes, arrays: Operands) -> CurrentCall:
    x, tiles, axis = arrays
    assert x is not None
    assert tiles is not None
    assert axis is not None
    repeats = np.ones(x.ndim, np.int64)
    repeats[int(axis.item())] = int(tiles.item())
    return 6, {}, [x, repeats]


def _first_cast(attributes: Attributes, arrays: Operands) -> CurrentCall:
    to = attributes["to"]
    return 9, {"to": onnx.TensorProto.DataType.Value(to) if isinstance(to, str) else to}, arrays


def _first_concat(attributes: Attributes, arrays: Operands) -> CurrentCall:
    return 4, {"axis": 1, **attributes}, arrays


def _upsample(attributes: Attributes, arrays: Operands) -> CurrentCall:
    """The scales were attributes, one for all spatial axes or one for each, before they were an input."""
    mode = attributes.get("mode", "nearest")
    factors = attributes.get("scales") or [1, 1, attributes.get("height_scale", 1), attributes.get("width_scale", 1)]
    scales = arrays[1] if len(arrays) > 1 else np.array(factors, np.float32)
    return _resize({"mode": "linear" if mode == "bilinear" else mode}, [arrays[0], scales])


def _resize(attributes: Attributes, arrays: Operands) -> CurrentCall:
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return 11, {**attributes, **modes}, [arrays[0], np.zeros(0, np.float32), arrays[1]]


_BINARY = "Add Sub Mul Div Pow And Or Xor Equal Less Greater"

_OLD: Mapping[str, tuple[int, Callable[[Attributes, Operands], CurrentCall]]] = {
    **dict.fromkeys(_BINARY.split(), (7, _binary)),
    "PRelu": (7, _slope),
    "BatchNormalization": (9, _normalised),
    "Gemm": (7, _product),
    "Clip": (11, _attribute_to_input(12, "min", "max", dtype=None)),
    "Cast": (6, _first_cast),
    "Concat": (4, _first_concat),
    "Dropout": (12, _dropout),
    "Pad": (11, _pad),
    "Reshape": (5, _attribute_to_input(5, "shape")),
    "Resize": (11, _resize),
    "Squeeze": (13, _attribute_to_input(13, "axes")),
    "Tile": (6, _first_tile),
    "TopK": (10, _top),
    "Unsqueeze": (13, _attribute_to_input(13, "axes")),
    "Upsample": (10, _upsample),
}
