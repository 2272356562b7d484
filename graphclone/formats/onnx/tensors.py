"""Tensors of ONNX files as torch tensors, read when they are wanted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
import torch

from graphclone.runtime.arrays import Array

_TORCH_NAMES = {
    onnx_ir.DataType.FLOAT: "float32",
    onnx_ir.DataType.DOUBLE: "float64",
    onnx_ir.DataType.FLOAT8E4M3FN: "float8_e4m3fn",
    onnx_ir.DataType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    onnx_ir.DataType.FLOAT8E5M2: "float8_e5m2",
    onnx_ir.DataType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
}

_ONNX_TYPES = {name: dtype for dtype, name in _TORCH_NAMES.items()}

_REINTERPRETED = {
    "bfloat16": (np.int16, torch.bfloat16),
    **{name: (np.uint8, getattr(torch, name)) for name in _ONNX_TYPES if name.startswith("float8")},
}
"""Types that numpy and torch share no buffers of, with what both can read them as."""


_UNPACKED = {"int4": torch.int8, "int2": torch.int8, "uint4": torch.uint8, "uint2": torch.uint8}
"""Types that share a byte with others, and the type that one of them is read as."""


def dtype_name(dtype: onnx_ir.DataType) -> str:
    """The name of an element type in torch; ONNX's own, in small letters, where torch has none."""
    return _TORCH_NAMES.get(dtype, dtype.name.lower())


def data_type(name: str) -> onnx_ir.DataType:
    """The element type that ``dtype_name`` gave this name."""
    return _ONNX_TYPES.get(name) or onnx_ir.DataType[name.upper()]


def to_torch(array: Array) -> torch.Tensor:
    """An array as a tensor, in the same memory where the types allow. Four-bit numbers take a byte each."""
    kind = array.dtype.name
    if kind in _REINTERPRETED:
        through, dtype = _REINTERPRETED[kind]
        return _shared(array.view(through)).view(dtype)
    if kind in _UNPACKED:
        return _shared(array.astype(str(_UNPACKED[kind]).removeprefix("torch.")))
    return _shared(array)


def _shared(array: Array) -> torch.Tensor:
    array = np.ascontiguousarray(array).reshape(array.shape)  # which would else make a vector of a scalar
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_array(tensor: torch.Tensor, dtype: onnx_ir.DataType | None = None) -> Array:
    """A tensor as an array, of another element type if one is given."""
    tensor = tensor.detach().cpu().contiguous()
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind in _REINTERPRETED:
        through, _ = _REINTERPRETED[kind]
        array = tensor.view(torch.int16 if through is np.int16 else torch.uint8).numpy().view(data_type(kind).numpy())
    else:
        array = tensor.numpy()
    return array if dtype is None or dtype.numpy() == array.dtype else array.astype(dtype.numpy())


@dataclass(frozen=True, eq=False)
class OnnxTensor:
    """An initializer in an ONNX file.

    Attributes:
        source: as onnx-ir has it.
    """

    source: onnx_ir.TensorProtocol

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape.numpy())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it is read as. Strings, which are never widened, count as bytes."""
        name = dtype_name(self.source.dtype)
        if name in _UNPACKED:
            return _UNPACKED[name]
        dtype: torch.dtype = getattr(torch, name, torch.uint8)
        return dtype

    def read(self) -> torch.Tensor:
        """The data, copied, so that the mapped file can be let go: pages of it would count as memory."""
        tensor = to_torch(np.array(self.source.numpy()))
        if isinstance(self.source, onnx_ir.ExternalTensor):
            self.source.release()
        return tensor
