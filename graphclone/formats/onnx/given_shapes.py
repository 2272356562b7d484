"""Shapes that the user gives for the inputs of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir

from graphclone.errors import GraphcloneError


def check_shape(name: str, shape: Sequence[int], declared: Mapping[str, Sequence[int | str | None] | None]) -> None:
    """Refuse a shape for an input that the file does not have, or declares otherwise.

    Args:
        name: of the input.
        shape: that the user gives.
        declared: the shape of each input in the file; a symbol or None for a size that may vary, and
            None for a shape that is not said.

    Raises:
        GraphcloneError: it does not fit.
    """
    if name not in declared:
        raise GraphcloneError(f"inputs: the model has no input {name!r}; it has {', '.join(declared)}")
    sizes = declared[name]
    if sizes is None:
        return
    if len(sizes) != len(shape) or any(isinstance(a, int) and a != b for a, b in zip(sizes, shape, strict=True)):
        expected = "x".join("?" if size is None else str(size) for size in sizes) or "scalar"
        raise GraphcloneError(f"inputs: {name} is {expected} in the model, not {'x'.join(map(str, shape)) or 'scalar'}")


def declared_shapes(model: onnx_ir.Model) -> dict[str, list[int | str | None] | None]:
    """The shape of each input of a model, as ``check_shape`` wants it."""
    shapes = {value.name or "": value.shape for value in model.graph.inputs}
    return {
        name: None if shape is None else [size if isinstance(size, int) else size.value for size in shape]
        for name, shape in shapes.items()
    }
