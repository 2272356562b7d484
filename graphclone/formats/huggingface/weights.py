"""The tensors of a checkpoint on disk: where they lie, and one at a time what they hold.

Nothing is mapped into memory: a tensor is read into a buffer of its own when it is wanted, and gone when it is
dropped. The safetensors format is 8 bytes for the length of a JSON header, the header, and the data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from graphclone.errors import GraphcloneError, first_line
from graphclone.formats.huggingface.layouts import layout_advice
from graphclone.runtime.memory import empty
from graphclone.runtime.shards import DTYPES

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_FILES = (SINGLE, INDEX, PICKLE, PICKLE_INDEX)

_MAX_HEADER = 100_000_000
"""Bytes of the longest header; safetensors itself takes no longer one."""

PICKLE_NOTE = "read from pickle files (.bin), by torch.load(weights_only=True); safetensors files need less memory"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file, read anew whenever it is wanted.

    Attributes:
        file: that it lies in.
        name: it has there.
        offset: of its first byte in the file.
        shape: of the tensor.
        dtype: of the tensor once it is read.
        file_dtype: what it has in the file, if that is another.
    """

    file: Path
    name: str
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    file_dtype: torch.dtype | None = None

    @property
    def parts(self) -> tuple[StoredTensor]:
        """The tensors on disk that it is made of."""
        return (self,)

    @property
    def nbytes(self) -> int:
        """Its size in the file, in bytes."""
        return prod(self.shape) * (self.file_dtype or self.dtype).itemsize

    def to(self, dtype: torch.dtype) -> StoredTensor:
        """The tensor in another dtype once it is read."""
        return replace(self, dtype=dtype, file_dtype=self.file_dtype or self.dtype)

    def rows(self, first: int, end: int) -> StoredTensor:
        """The part between two indices of its first axis."""
        row = self.nbytes // self.shape[0]
        return replace(self, offset=self.offset + first * row, shape=(end - first, *self.shape[1:]))

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own.

        Raises:
            GraphcloneError: the file cannot be read, or has become shorter.
        """
        data = empty((self.nbytes,), torch.uint8, torch.device("cpu"))
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.offset)
                while view and (count := file.readinto(view)):
                    view = view[count:]
        except OSError as error:
            raise GraphcloneError(f"{self.file}: {self.name} cannot be read: {error.strerror or error}") from error
        if view:
            raise GraphcloneError(f"{self.file}: ends within {self.name}; copy or download it again")
        return data.view(self.file_dtype or self.dtype).reshape(self.shape).to(self.dtype)


@dataclass(frozen=True)
class PickledTensor:
    """A tensor of a pickle file, mapped into memory by torch; in another dtype once it is read, if one is given."""

    file: Path
    name: str
    tensor: torch.Tensor
    other: torch.dtype | None = None

    @property
    def parts(self) -> tuple[PickledTensor]:
        """The tensors on disk that it is made of."""
        return (self,)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.other or self.tensor.dtype

    def to(self, dtype: torch.dtype) -> PickledTensor:
        """The tensor in another dtype once it is read."""
        return replace(self, other=dtype)

    def read(self) -> torch.Tensor:
        return self.tensor.to(self.dtype)


_Reader = Callable[[Path], Iterator[Any]]

Weights = Mapping[str, StoredTensor | PickledTensor]


def converted(tensors: Weights, dtype: torch.dtype) -> Weights:
    """The tensors with all floats in a dtype; none is read."""
    return {name: tensor.to(dtype) if tensor.dtype.is_floating_point else tensor for name, tensor in tensors.items()}


def are_in(folder: Path) -> bool:
    """Whether a folder holds weights, or something that is to be made into a checkpoint first."""
    return any((folder / name).exists() for name in _FILES) or layout_advice(folder) is not None


def open_weights(folder: Path) -> Weights:
    """The tensors of a checkpoint by name; none is read.

    Raises:
        GraphcloneError: there are none, or files are missing, damaged, or not what the index says.
    """
    readers: tuple[_Reader, ...] = (safetensors_of, _indexed, _pickled, _indexed)
    for name, read in zip(_FILES, readers, strict=True):
        if (path := folder / name).exists():
            return {tensor.name: tensor for tensor in read(path)}
    raise GraphcloneError(layout_advice(folder) or f"{folder}: no weights; expected {SINGLE}, {INDEX} or {PICKLE}")


def _indexed(index: Path) -> Iterator[StoredTensor | PickledTensor]:
    """The tensors of all files of an index, which must list each where it is."""
    files = _weight_map(index)
    read: _Reader = safetensors_of if index.name == INDEX else _pickled
    for file_name in dict.fromkeys(files.values()):
        path = index.parent / file_name
        if Path(file_name).name != file_name or not path.is_file():
            raise GraphcloneError(f"{index}: lists {file_name}, which is not there; complete the checkpoint")
        tensors: list[StoredTensor | PickledTensor] = [*read(path)]
        names = {tensor.name for tensor in tensors}
        expected = {name for name, file in files.items() if file == file_name}
        if names != expected:
            odd = min(names ^ expected)
            where = "lists it there, but it is not in" if odd in expected else "does not list it, but it is in"
            raise GraphcloneError(f"{index}: the index disagrees about {odd}: it {where} {file_name}")
        yield from tensors


def _weight_map(index: Path) -> dict[str, str]:
    try:
        files = json.loads(index.read_bytes())["weight_map"]
        if isinstance(files, dict) and all(isinstance(item, str) for item in files.values()):
            return files
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphcloneError(f"{index}: not an index of weights: {type(error).__name__}: {error}") from error
    raise GraphcloneError(f"{index}: not an index of weights: its weight_map is not a map of names")


def safetensors_of(path: Path) -> Iterator[StoredTensor]:
    """The tensors of one safetensors file, as its header has them.

    Raises:
        GraphcloneError: the file cannot be read, or its header is not what its data is.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 0 < length <= min(_MAX_HEADER, size - 8) else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its header is damaged"
        raise GraphcloneError(f"{path}: cannot be read: {reason}; copy or download it again") from error
    if not isinstance(header, dict):
        raise GraphcloneError(f"{path}: not a safetensors file, or cut off; copy or download it again")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        yield _entry(path, name, entry, 8 + length, size)


def _entry(path: Path, name: str, entry: Any, start: int, size: int) -> StoredTensor:
    try:
        kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError):
        raise GraphcloneError(f"{path}: the entry of {name} is damaged; copy or download it again") from None
    if kind not in DTYPES:
        raise GraphcloneError(f"{path}: {name} is {kind}, which cannot be widened; use the unquantised checkpoint")
    tensor = StoredTensor(path, name, start + first, shape, DTYPES[kind])
    if any(axis < 0 for axis in shape) or first < 0 or last - first != tensor.nbytes:
        raise GraphcloneError(f"{path}: the data of {name} does not have its shape; copy or download it again")
    if start + last > size:
        raise GraphcloneError(f"{path}: ends within {name}; copy or download it again")
    return tensor


def _pickled(path: Path) -> Iterator[PickledTensor]:
    """The tensors of a pickle file, read by torch's restricted unpickler, which runs no code."""
    try:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file in torch's old format cannot be mapped
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the unpickler stumbles over
        reason = first_line(error)
        raise GraphcloneError(f"{path}: refused by torch.load(weights_only=True): {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise GraphcloneError(f"{path}: holds more than tensors; convert it to safetensors")
    for name, tensor in tensors.items():
        yield PickledTensor(path, name, tensor.detach())
