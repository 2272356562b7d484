"""Write widened tensors into safetensors files, without ever holding many of them.

The header of a file says where each tensor begins, so it is written first, and tensors then in any order. Where some
rows of the result take no more than some of the source, a tensor is read, widened and written a block of rows at a
time, and never held whole. Noise and means take all of the source: there a tensor is widened in one piece, and a budget
keeps what is held at once within twice the largest. All threads write into one file, each at places of its own. The
system lets but one at a time into the file, which takes a sixth of the time that writing into a map of it takes, where
every page is a fault.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from graphclone.algebra.growth import rigid
from graphclone.algebra.recipes import Widening
from graphclone.graph.ir import Stored
from graphclone.runtime.blocks import BLOCK, Rows, Source, widen_block
from graphclone.runtime.kernel import first_irregular, widen
from graphclone.runtime.memory import empty
from graphclone.runtime.pads import has_means
from graphclone.runtime.threads import workers

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types of safetensors that can be widened; quantised ones cannot."""

_DTYPE_NAMES = {
    **{dtype: name for name, dtype in DTYPES.items()},
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
}
"""What can be written: of some types nothing is contracted, so that their copies are plain."""

_ALIGNMENT = 8

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Slot:
    """A tensor in a file, as its header has it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Entry:
    """One tensor to be written.

    Attributes:
        name: it is written under.
        source: where its data comes from.
        recipe: how that is widened.
    """

    name: str
    source: Stored
    recipe: Widening

    @property
    def nbytes(self) -> int:
        return prod(self.recipe.shape) * self._itemsize

    @property
    def _itemsize(self) -> int:
        dtype: torch.dtype = self.source.dtype
        return dtype.itemsize

    @property
    def held(self) -> int:
        """Bytes in memory while it is widened in one piece."""
        return self.nbytes + prod(self.source.shape) * self._itemsize

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The tensor that is written."""
        return (Slot(self.name, self.recipe.shape, self.source.dtype),)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The tensor that is widened."""
        return (self,)

    def widened(self) -> tuple[list[torch.Tensor], bool]:
        """A tensor for every slot, and whether the source holds NaNs."""
        source = self.source.read()
        return [widen(source, self.recipe)], _has_nan(source)


@dataclass(frozen=True)
class Bundle:
    """Tensors of the model that are written in another form than the model has them.

    Attributes:
        entries: the tensors of the model.
        slots: what is written.
        restored: from tensors of the model to what is written, by name.
    """

    entries: tuple[Entry, ...]
    slots: tuple[Slot, ...]
    restored: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

    @property
    def name(self) -> str:
        """The name that messages use: that of its first tensor."""
        return self.entries[0].name

    @property
    def nbytes(self) -> int:
        return sum(slot.nbytes for slot in self.slots)

    @property
    def held(self) -> int:
        """Bytes in memory, twice because both forms are."""
        return 2 * sum(entry.held for entry in self.entries)

    def widened(self) -> tuple[list[torch.Tensor], bool]:
        """A tensor for every slot, and whether a source holds NaNs."""
        tensors, nans = {}, False
        for entry in self.entries:
            (tensors[entry.name],), has_nans = entry.widened()
            nans = nans or has_nans
        written = self.restored(tensors)
        return [written[slot.name] for slot in self.slots], nans


@dataclass(frozen=True)
class Shard:
    """One file of tensors.

    Attributes:
        file_name: within its folder.
        entries: its tensors, in their order.
        metadata: what its header says beside them.
    """

    file_name: str
    entries: tuple[Entry | Bundle, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> list[Slot]:
        """The tensors of the file, in their order."""
        return [slot for entry in self.entries for slot in entry.slots]

    @property
    def header(self) -> bytes:
        """Everything before the data."""
        fields: dict[str, object] = {"__metadata__": {"format": "pt", **self.metadata}}
        offset = 0
        for slot in self.slots:
            end = offset + slot.nbytes
            described = {"dtype": _DTYPE_NAMES[slot.dtype], "shape": list(slot.shape)}
            fields[slot.name] = {**described, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        return len(text).to_bytes(8, "little") + text

    @property
    def nbytes(self) -> int:
        """Size of the whole file."""
        return len(self.header) + sum(entry.nbytes for entry in self.entries)


def sharded(entries: Sequence[Entry | Bundle], max_bytes: int) -> list[Shard]:
    """Gather tensors into files of at most so many bytes of data. A larger tensor gets a file of its own."""
    groups: list[list[Entry | Bundle]] = [[]]
    size = 0
    for entry in entries:
        if groups[-1] and size + entry.nbytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.nbytes
    if len(groups) == 1:
        return [Shard("model.safetensors", tuple(entries))]
    names = (f"model-{i:05d}-of-{len(groups):05d}.safetensors" for i in range(1, len(groups) + 1))
    return [Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


Done = Callable[[Shard, list[str]], None]
"""Told of every finished file, with the names of source tensors in it that hold NaNs."""


def _ignore(*told: object) -> None:
    """A callback for when nobody wants to know."""


def write_shards(
    folder: Path, shards: Sequence[Shard], done: Done = _ignore, advance: Callable[[int], None] = _ignore
) -> None:
    """Write files into a folder; each appears under its name when it is whole.

    Args:
        folder: to write into.
        shards: the files.
        done: told of every finished file.
        advance: told how many more bytes have been written.

    Raises:
        OSError: a file cannot be written.
        GraphcloneError: a tensor cannot be read.
    """
    entries = [entry for shard in shards for entry in shard.entries]
    budget = _Budget(max((max(2 * entry.nbytes, entry.held) for entry in entries), default=0))
    for shard in shards:
        partial = folder / f"{shard.file_name}.partial"
        with partial.open("w+b") as file, workers() as pool:
            _make_room(file, shard.nbytes)
            tasks = _begun(shard, file, pool, budget, advance)
            finished, _ = wait(tasks.values(), return_when=FIRST_EXCEPTION)
            for task in finished:
                task.result()
        partial.replace(folder / shard.file_name)
        done(shard, [entry.name for entry in shard.entries if tasks[entry.name].result()])


def _make_room(file: BinaryIO, size: int) -> None:
    """Take the disk's space now, so that a full disk is an error before anything is computed."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _begun(
    shard: Shard, file: BinaryIO, pool: ThreadPoolExecutor, budget: _Budget, advance: Callable[[int], None]
) -> dict[str, Future[bool]]:
    """What a pool has been given to do for one file: its tensors, each of which tells whether it holds NaNs."""
    header = shard.header
    _write_at(file, np.frombuffer(header, np.uint8), 0)
    starts = itertools.accumulate((entry.nbytes for entry in shard.entries), initial=len(header))
    todo = [_Task(entry, file, offset, budget, advance) for entry, offset in zip(shard.entries, starts, strict=False)]
    # The largest first: whoever takes a large one last works on alone.
    return {task.entry.name: pool.submit(task) for task in sorted(todo, key=lambda task: -task.entry.nbytes)}


class _Budget:
    """Bytes that may be held at once; whoever needs more than there are waits."""

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.changed = threading.Condition()

    @contextmanager
    def holding(self, count: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            with self.changed:
                self.free += count
                self.changed.notify_all()


@dataclass(frozen=True)
class _Task:
    """Widens one tensor into its place in a file; a call returns whether the source holds NaNs."""

    entry: Entry | Bundle
    file: BinaryIO
    offset: int
    budget: _Budget
    advance: Callable[[int], None]

    def __call__(self) -> bool:
        if isinstance(self.entry, Entry) and isinstance(self.entry.source, Rows):
            copies = _equal_rows(self.entry.recipe)
            if copies is not None:
                return self.by_rows(self.entry.source, self.entry.recipe, copies)
            if _streams(self.entry.recipe):
                return self.by_blocks(self.entry.source, self.entry.recipe)
        with self.budget.holding(self.entry.held):
            return self.whole()

    def whole(self) -> bool:
        tensors, has_nans = self.entry.widened()
        at = 0
        for tensor in tensors:
            data = _bytes(tensor)
            self.write(data, at)
            at += len(data)
        return has_nans

    def by_rows(self, source: Rows, recipe: Widening, copies: int) -> bool:
        """Widen blocks of rows, and write each block once for every copy."""
        rows = source.shape[0]
        row_bytes = self.entry.nbytes // (rows * copies)
        step = max(1, BLOCK // max(row_bytes, 1))
        scale = recipe.scale / (copies if 0 in recipe.contracted else 1)
        contracted = tuple(axis for axis in recipe.contracted if axis)
        has_nans = False
        for first in range(0, rows, step):
            part = source.rows(first, min(first + step, rows)).read()
            axes = (rigid(len(part)), *recipe.axes[1:])
            wide = widen(part, replace(recipe, axes=axes, contracted=contracted, scale=scale))
            for copy in range(copies):
                self.write(_bytes(wide), (copy * rows + first) * row_bytes)
            has_nans = has_nans or _has_nan(part)
        return has_nans

    def by_blocks(self, stored: Rows, recipe: Widening) -> bool:
        """Widen blocks of the new rows, each from the old ones that it takes."""
        source, rows = _Watched(stored), recipe.shape[0]
        row_bytes = self.entry.nbytes // rows
        step = max(1, BLOCK // row_bytes)
        held = empty((min(step, rows), *recipe.shape[1:]), stored.dtype, torch.device("cpu"))
        wanted = [np.arange(size) for size in recipe.shape]
        for first in range(0, rows, step):
            wanted[0] = np.arange(first, min(first + step, rows))
            block = held[: len(wanted[0])]
            widen_block(source, recipe, wanted, block)
            self.write(_bytes(block), first * row_bytes)
        return source.has_nans

    def write(self, data: Bytes, at: int) -> None:
        for first in range(0, len(data), BLOCK):
            part = data[first : first + BLOCK]
            _write_at(self.file, part, self.offset + at + first)
            self.advance(len(part))


def _equal_rows(recipe: Widening) -> int | None:
    """How often the rows of the result repeat as a whole, or None where they do not."""
    if not recipe.axes or recipe.noisy or (recipe.contracted and not recipe.strategy.uniform):
        return None
    layout = recipe.axes[0]
    if any(axis.padded for axis in recipe.axes):
        return None
    if not layout.size or layout.new_size % layout.size or not prod(recipe.shape):
        return None
    if not np.array_equal(layout.index_map, np.arange(layout.new_size) % layout.size):
        return None
    return layout.new_size // layout.size


def _streams(recipe: Widening) -> bool:
    """Whether some rows of the result take no more than some rows of the source."""
    whole = recipe.noisy or first_irregular(recipe) is not None or has_means(recipe)
    return bool(recipe.axes) and bool(prod(recipe.shape)) and not whole


class _Watched(Source):
    """A source that remembers whether a part of it held NaNs."""

    has_nans = False

    def rows(self, first: int, end: int) -> torch.Tensor:
        """A part of its first axis."""
        part = super().rows(first, end)
        self.has_nans = self.has_nans or _has_nan(part)
        return part


def _has_nan(tensor: torch.Tensor) -> bool:
    """The extremes of what holds a NaN are NaNs; that is ten times as quick as looking at each number."""
    return tensor.is_floating_point() and bool(tensor.numel()) and bool(torch.aminmax(tensor)[0].isnan())


def _bytes(tensor: torch.Tensor) -> Bytes:
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()


def _write_at(file: BinaryIO, data: Bytes, offset: int) -> None:
    """Write some bytes into a place that the file has."""
    view = data.data
    while len(view):
        written = _write_some(file.fileno(), view, offset)
        view, offset = view[written:], offset + written


_TURN = threading.Lock()
"""Held by whoever moves the place of a file that others write to, too."""


def _write_some(descriptor: int, view: memoryview, offset: int) -> int:
    """Write as much as the system takes at once; how many bytes."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, view, offset)
    with _TURN:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, view)
