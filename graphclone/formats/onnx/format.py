"""The format of ONNX files: what writes and verifies their clones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graphclone.clones.clone import Format
from graphclone.clones.saving import save_safetensors
from graphclone.formats.onnx.metadata import annotate
from graphclone.formats.onnx.reader import Origin
from graphclone.formats.onnx.saving import write_model
from graphclone.formats.onnx.writer import to_model

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.formats.onnx.drawn_inputs import UserInputs
    from graphclone.verification.checks import Report
    from graphclone.verification.steps import Options


def onnx_format(inputs: UserInputs) -> Format:
    """The format of the clone of an ONNX file.

    Args:
        inputs: arrays, or sizes, of inputs that the file accepts, by name, to verify it on.
    """

    def verify(clone: Clone, options: Options) -> Report:
        from graphclone.formats.onnx.verifier import verify_onnx_model

        return verify_onnx_model(clone.state, options, inputs)

    return Format(
        source="an ONNX file",
        writers={".onnx": save_file, ".safetensors": lambda clone, path: save_safetensors(clone.state, path)},
        verifier=verify,
    )


def save_file(clone: Clone, path: Path) -> None:
    """Write the widened file, with its weights in ``<name>.data`` beside it where they are too many for one.

    Raises:
        GraphcloneError: the file cannot be written.
    """
    model = to_model(clone.state)
    annotate(model, clone.state)
    write_model(model, path, clone.state.graph.origin_as(Origin).model)
