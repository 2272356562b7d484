"""Functions that writers of clones share: room on the disk, and the state dict as a safetensors file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Initializer
from graphclone.pipeline.state import State
from graphclone.progress import in_bytes
from graphclone.runtime.files import written
from graphclone.runtime.shards import Entry, Shard, write_shards


def check_room(path: Path, size: int) -> None:
    """Refuse to write what the disk cannot hold.

    Args:
        path: to be written.
        size: bytes.

    Raises:
        GraphcloneError: there are fewer.
    """
    free = shutil.disk_usage(path.parent).free
    if size > free:
        shortage = f"needs {in_bytes(size)} of disk, and {in_bytes(free)} are free"
        raise GraphcloneError(f"{path.name}: {shortage}; make room or write elsewhere")


def size_in_bytes(graph: Graph) -> int:
    """The size of all initializers of a graph, in bytes."""
    return sum(
        prod(initializer.value.shape or ()) * initializer.tensor.dtype.itemsize for initializer in graph.initializers
    )


@dataclass(frozen=True)
class _Data:
    """The data of an initializer of the source, read when it is wanted."""

    initializer: Initializer

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.initializer.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.initializer.tensor.dtype
        return dtype

    def read(self) -> torch.Tensor:
        tensor: torch.Tensor = self.initializer.read().detach()
        return tensor


def save_safetensors(state: State, path: Path) -> None:
    """Write the state dict of a clone, one tensor at a time.

    A tied tensor is stored once, and its other names in the file's metadata, as transformers does it.

    Raises:
        GraphcloneError: the file cannot be written.
    """
    recipes = state.recipes
    initializers = [initializer for initializer in state.graph.initializers if initializer.kind != "constant"]
    entries = tuple(Entry(i.name, _Data(i), recipes[i.value]) for i in initializers)
    aliases = {alias: initializer.name for initializer in initializers for alias in initializer.names[1:]}
    with written(path) as stage:
        write_shards(stage.parent, [Shard(stage.name, entries, aliases)])
