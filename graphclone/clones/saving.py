"""Write a clone to a file whose suffix says the format."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from graphclone.errors import GraphcloneError

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone

SUFFIXES = (".onnx", ".pt2", ".safetensors")


def check_target(path: Path, force: bool) -> None:
    """Refuse a path that nothing can be written to, before any work is done.

    Raises:
        GraphcloneError: unknown suffix, no such folder, or a file in the way.
    """
    if path.suffix not in SUFFIXES:
        raise GraphcloneError(f"{path}: the suffix says what to write: {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise GraphcloneError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise GraphcloneError(f"{path}: is a folder; give the path of a file")
    for file in (path, path.with_name(f"{path.name}.data")):  # large weights lie beside an ONNX model
        if file.exists() and not force:
            raise GraphcloneError(f"{file}: exists already; --force overwrites it")


def write(clone: Clone, path: Path) -> None:
    """Write a clone in the format its suffix says.

    Raises:
        GraphcloneError: there is not enough room, or the format cannot hold the model.
        OSError: the file cannot be written.
    """
    _check_room(clone, path)
    try:
        if path.suffix == ".onnx":
            clone.save_onnx(path)
        elif path.suffix == ".pt2":
            clone.save(path)
        else:
            _save_safetensors(clone, path)
    except GraphcloneError as error:
        if isinstance(error.__cause__, OSError):  # whoever gave the path knows what the user calls it
            raise error.__cause__ from None
        raise


def _check_room(clone: Clone, path: Path) -> None:
    needed = size_in_bytes(clone)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        shortage = f"needs {needed / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free"
        raise GraphcloneError(f"{path.name}: {shortage}; make room or write elsewhere")


def size_in_bytes(clone: Clone) -> int:
    """Of all initializers of the clone."""
    return sum(
        prod(initializer.value.shape or ()) * initializer.tensor.dtype.itemsize
        for initializer in clone.graph.initializers
    )


def _save_safetensors(clone: Clone, path: Path) -> None:
    """The state dict; a tied tensor is stored once, its other names in the metadata, as transformers do."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = clone.state_dict()
    stored = [initializer for initializer in clone.graph.initializers if initializer.kind != "constant"]
    aliases = {alias: initializer.name for initializer in stored for alias in initializer.names[1:]}
    tensors = {initializer.name: state[initializer.name].contiguous() for initializer in stored}
    path.touch()
    mode = path.stat().st_mode  # as for any other file; safetensors lets nobody else read what it writes
    try:
        save_file(tensors, path, {"format": "pt", **aliases})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)
