"""Operators of our own for onnx's reference evaluator, as plain functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]

Index = tuple[Any, ...]
"""The index of elements of an array, axis by axis."""

Function = Callable[..., Any]
"""Takes inputs by position, None for one that is left out, and attributes by name; returns one result or a tuple."""

_NARROW = ("float16", "bfloat16")


class _Own(OpRun):
    """An operator that is a function; halves are computed in single precision."""

    function: Function

    def _load_attributes(self) -> None:
        self.attributes_names_: set[str] = set()
        attributes = self.onnx_node.attribute
        self.linked = {a.name: a.ref_attr_name for a in attributes if a.ref_attr_name}
        self.has_linked_attribute = bool(self.linked)
        self.options = {a.name: attribute_value(a) for a in attributes if not a.ref_attr_name}

    def run(self, *args: Any, linked_attributes: Mapping[str, Any] | None = None, **_: Any) -> tuple[Any, ...]:
        linked = {name: (linked_attributes or {})[outer] for name, outer in self.linked.items()}
        return self._run(*args, **self.options, **linked)

    def _run(self, *args: Any, **options: Any) -> tuple[Any, ...]:
        narrow = [a.dtype for a in args if isinstance(a, np.ndarray) and a.dtype.name in _NARROW]
        if narrow:
            args = tuple(_single(a) for a in args)
        results = type(self).function(*args, **options)
        results = results if isinstance(results, tuple) else (results,)
        if narrow:
            results = tuple(_cast(result, narrow[0]) for result in results)
        return tuple(results[: len(self.output)])


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """The value of an attribute. A float of high precision may come as a tensor."""
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        array = onnx.numpy_helper.to_array(value)
        return array if array.ndim else array.item()
    return [item.decode() if isinstance(item, bytes) else item for item in value] if _is_list(value) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _single(array: Any) -> Any:
    return array.astype(np.float32) if isinstance(array, np.ndarray) and array.dtype.name in _NARROW else array


def _cast(array: Any, dtype: Any) -> Any:
    return array.astype(dtype) if isinstance(array, np.ndarray) and array.dtype.kind == "f" else array


def operators(domain: str, functions: Mapping[str, Function]) -> list[type[OpRun]]:
    """The classes by which the evaluator knows these functions."""
    return [
        type(name, (_Own,), {"op_domain": domain, "function": staticmethod(function)})
        for name, function in functions.items()
    ]
