"""The format of torch modules: what writes and verifies their clones."""

from __future__ import annotations

from graphclone.clones.clone import Format
from graphclone.clones.saving import save_safetensors
from graphclone.formats.torch.example import Example


def torch_format(example: Example) -> Format:
    """The format of the clone of a module.

    Args:
        example: the module, and the inputs that it was traced with.
    """
    from graphclone.formats.torch.export_onnx import save_as_onnx
    from graphclone.formats.torch.verifier import verify
    from graphclone.formats.torch.writer import module_of, save_program

    return Format(
        source="a torch module",
        writers={
            ".onnx": lambda clone, path: save_as_onnx(clone.state, example, path),
            ".pt2": lambda clone, path: save_program(clone.state, example, path),
            ".safetensors": lambda clone, path: save_safetensors(clone.state, path),
        },
        verifier=lambda clone, options: verify(clone, options, example),
        module=lambda clone: module_of(clone.state, example),
    )
