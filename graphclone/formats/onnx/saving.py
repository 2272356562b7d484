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


def write_model(model: onnx_ir.Model, path: Path) -> None:
    """Write a model, whole or not at all.

    Raises:
        GraphcloneError: the file cannot be written.
    """
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    with written(path) as target:
        external = f"{path.name}.data" if size > INLINE_LIMIT else None
        try:
            onnx_ir.save(model, target, external_data=external, max_workers=WORKERS, max_in_flight_bytes=IN_FLIGHT)
        except Exception as error:  # onnx-ir wraps what making a tensor raises
            raise next((cause for cause in causes(error) if isinstance(cause, GraphcloneError)), error) from None
