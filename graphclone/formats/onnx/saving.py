"""Write an ONNX model, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
import onnx_ir.passes.common

from graphclone.errors import GraphcloneError, causes
from graphclone.runtime.files import written

INLINE_LIMIT = 1_900_000_000
"""Bytes of weights that still go into the model file itself, which protobuf limits to 2 GiB."""


WORKERS, IN_FLIGHT = 2, 256 << 20
"""How many tensors are computed and written at once, and how many bytes they may take together. A larger tensor goes
alone.
"""


def write_model(model: onnx_ir.Model, path: Path, source: onnx_ir.Model | None = None) -> None:
    """Write a model, whole or not at all.

    Args:
        model: to be written.
        path: of the file; weights that are too many for it go to ``<name>.data`` beside it.
        source: a model whose files must stay as they are.

    Raises:
        GraphcloneError: the file cannot be written, or the source keeps weights where those would go.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    with written(path) as target:
        external = f"{path.name}.data" if size > INLINE_LIMIT else None
        if external is not None and source is not None and path.with_name(external).resolve() in _files(source):
            raise GraphcloneError(f"{path.with_name(external)}: the source keeps its weights there; give another name")
        try:
            onnx_ir.save(model, target, external_data=external, max_workers=WORKERS, max_in_flight_bytes=IN_FLIGHT)
        except Exception as error:  # onnx-ir wraps what making a tensor raises
            raise next((cause for cause in causes(error) if isinstance(cause, GraphcloneError)), error) from None


def _files(model: onnx_ir.Model) -> set[Path]:
    """The files beside its own that a model keeps weights in."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return {Path(tensor.path).resolve() for tensor in tensors if isinstance(tensor, onnx_ir.ExternalTensor)}
