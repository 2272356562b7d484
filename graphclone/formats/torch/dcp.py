"""Checkpoints of ``torch.distributed.checkpoint`` (DCP): written from recipes, and read into a module.

A tensor is written in parts of its first axis, each of which is computed when it is written, by any of the processes
that share the work. ``dcp.load`` puts the parts together for whatever mesh a model is sharded over.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlanner,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from graphclone.algebra.recipes import Widening
from graphclone.clones.saving import check_room, size_in_bytes
from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.graph.ir import Initializer
from graphclone.pipeline.state import State
from graphclone.runtime.blocks import Map, Source, stored, widen_block
from graphclone.runtime.files import aside, replace_folder
from graphclone.runtime.quiet import quiet
from graphclone.runtime.ranks import ALONE, Ranks

PREFIX = "model"
"""What the model's state dict is called in a checkpoint, as ``{"model": model.state_dict()}`` has it."""

PART = 256 << 20
"""Bytes of a tensor that are computed, and written, at once."""

_METADATA = ".metadata"


# Writing


def save_dcp(
    state: State,
    path: Path,
    *,
    force: bool = False,
    ranks: Ranks = ALONE,
    extras: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> None:
    """Write the state dict of a clone as a DCP checkpoint, under the name ``model``.

    Args:
        state: the clone's.
        path: of a folder, which appears once it is whole.
        force: replace a checkpoint that is there already.
        ranks: the processes that share the work; all of them call this.
        extras: texts of other files in the folder, by name.
        beside: what else is in the state dict, under other names; the first process has it.

    Raises:
        GraphcloneError: the folder is in the way, or cannot be written to.
    """
    partial = _partial(path)
    others = _Others(*flatten_state_dict(dict(beside or {})))
    if ranks.first:
        check_target(path, force=force)
        check_room(path, size_in_bytes(state.graph))
        shutil.rmtree(partial, ignore_errors=True)
    if len(set(ranks.gathered(_digest(state) if ranks.count > 1 else ""))) > 1:
        raise GraphcloneError(f"{path}: the processes have different models; seed what draws their weights")
    try:
        with quiet():
            _save(_Planner(state, ranks, others), _Writer(partial, state, others), ranks)
        if ranks.first:
            for name, text in (extras or {}).items():
                (partial / name).write_text(text)
            replace_folder(partial, path)
    except (OSError, CheckpointException, KeyboardInterrupt) as error:
        shutil.rmtree(partial, ignore_errors=True)
        cause = _cause(error)
        if isinstance(cause, KeyboardInterrupt):
            raise cause from None
        reason = (isinstance(cause, OSError) and cause.strerror) or first_line(cause)
        raise GraphcloneError(f"cannot write {path}: {reason}; nothing was left behind") from error
    ranks.gathered(None)


def _cause(error: BaseException) -> BaseException:
    """What went wrong in a process: torch wraps it, interrupts too, up with the number of the process."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _partial(path: Path) -> Path:
    """Where a checkpoint is written before it has its name."""
    return path.with_name(f"{path.name}.partial")


def _digest(state: State) -> str:
    """Of all that decides what is written; what lies in files is the same for all."""
    digest = hashlib.sha256()
    for initializer in state.graph.initializers:
        recipe = state.recipes[initializer.value]
        how = (
            recipe.axes,
            recipe.contracted,
            recipe.strategy.name,
            recipe.strategy.snr_db,
            recipe.strategy.spread,
            recipe.seed,
        )
        digest.update(repr((recipe.name, *how, recipe.scale, recipe.shift)).encode())
        if isinstance(initializer.tensor, Tensor):
            flat = initializer.tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_target(path: Path, *, force: bool, sources: Iterable[Path] = ()) -> None:
    """Refuse a folder that cannot be written to, before any work is done.

    Args:
        path: of the checkpoint that is to be written.
        force: replace a checkpoint that is there already.
        sources: what is read for it, which must not be replaced.

    Raises:
        GraphcloneError: the folder is in the way, or one of the sources lies there.
    """
    for source in sources:
        if source.exists() and source.resolve().is_relative_to(path.resolve()):
            raise GraphcloneError(f"{path}: is where {source} is, which is read; write elsewhere")
    if aside(path).exists():
        raise GraphcloneError(
            f"{aside(path)}: is in the way; a run that was killed left there what it replaced, or move it"
        )
    if (partial := _partial(path)).exists() and not _is_unfinished(partial):
        raise GraphcloneError(f"{partial}: is in the way, and no checkpoint that is being written; move it")
    if not path.parent.is_dir():
        raise GraphcloneError(f"{path}: there is no folder {path.parent}; make it first")
    if path.exists() and not force:
        raise GraphcloneError(f"{path}: exists already", Remedy("force", "overwrites it"))
    if path.exists() and not (path / _METADATA).is_file():
        raise GraphcloneError(f"{path}: exists and is not a DCP checkpoint, so it is not overwritten; write elsewhere")


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder has nothing in it but what a run has written that was killed."""
    names = (".distcp", ".json", _METADATA, f"{_METADATA}.tmp")
    return folder.is_dir() and all(file.name.endswith(names) for file in folder.iterdir())


def _save(planner: _Planner, writer: _Writer, ranks: Ranks) -> None:
    """Let torch write, by a group of processes of its own where there are several."""
    if ranks.count == 1:
        save({}, storage_writer=writer, planner=planner, no_dist=True)
        return
    from torch.distributed.distributed_c10d import PrefixStore

    if not torch.distributed.is_initialized():
        store = PrefixStore("dcp", ranks.store)
        limit = timedelta(days=7)  # one may have much more to do than another
        torch.distributed.init_process_group(
            "gloo", store=store, rank=ranks.rank, world_size=ranks.count, timeout=limit
        )
    save({}, storage_writer=writer, planner=planner)


class _Writer(FileSystemWriter):
    """Stores a tied tensor once and lists it under all its names."""

    def __init__(self, path: Path, state: State, others: _Others) -> None:
        super().__init__(path)
        self.others = others
        self.names = {_key(i.name): [_key(name) for name in i.names[1:]] for i in state.graph.initializers}

    def finish(self, metadata: Metadata, results: Any) -> None:
        tensors: dict[str, Any] = metadata.state_dict_metadata
        for name, others in self.names.items():
            tensors.update({other: tensors[name] for other in others if name in tensors})
        aliases = [
            replace(result, index=replace(result.index, fqn=other))
            for of_one in results
            for result in of_one
            for other in self.names.get(result.index.fqn, ())
        ]
        models = {name: (PREFIX, name.removeprefix(f"{PREFIX}.")) for name in tensors}
        metadata.planner_data = {**models, **self.others.places}
        super().finish(metadata, [*results, aliases])


@dataclass(frozen=True)
class _Others:
    """What is written as it is.

    Attributes:
        values: by flat names.
        places: by the same names, the keys that lead there.
    """

    values: Mapping[str, Any]
    places: Mapping[str, tuple[str | int, ...]]

    def items(self) -> Iterator[WriteItem]:
        """What a plan says about them."""
        for name, value in self.values.items():
            if not isinstance(value, Tensor):
                yield WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO)
                continue
            whole = ChunkStorageMetadata(torch.Size([0] * value.dim()), value.size())
            data = TensorWriteData(whole, TensorProperties.create_from_tensor(value), value.size())
            yield WriteItem(MetadataIndex(name, whole.offsets), WriteItemType.TENSOR, tensor_data=data)

    def data(self, name: str) -> Tensor | io.BytesIO:
        """What is written of one."""
        value = self.values[name]
        if isinstance(value, Tensor):
            return value.detach()
        buffer = io.BytesIO()
        torch.save(value, buffer)
        buffer.seek(0)
        return buffer


@dataclass(frozen=True)
class _Part:
    """Some rows of a widened tensor."""

    initializer: Initializer
    recipe: Widening
    first: int
    end: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.end - self.first, *self.recipe.shape[1:]) if self.recipe.shape else ()

    @property
    def item(self) -> WriteItem:
        """What a plan says about it."""
        rank = len(self.recipe.shape)
        offsets = torch.Size([self.first, *[0] * (rank - 1)][:rank])
        trains = self.initializer.kind == "parameter"
        return WriteItem(
            MetadataIndex(_key(self.initializer.name), offsets),
            WriteItemType.SHARD,
            tensor_data=TensorWriteData(
                ChunkStorageMetadata(offsets, torch.Size(self.sizes)),
                TensorProperties(self.initializer.tensor.dtype, requires_grad=trains),
                torch.Size(self.recipe.shape),
            ),
        )


def _key(name: str) -> str:
    return f"{PREFIX}.{name}"


def _parts(initializer: Initializer, recipe: Widening) -> list[_Part]:
    rows = recipe.shape[0] if recipe.shape else 1
    step = max(1, PART * rows // max(1, prod(recipe.shape) * initializer.tensor.dtype.itemsize))
    return [_Part(initializer, recipe, first, min(first + step, rows)) for first in range(0, rows, step)] or [
        _Part(initializer, recipe, 0, 0)
    ]


class _Planner(SavePlanner):
    """Plans the parts of all tensors, shared out in turn, and computes each when it is written."""

    def __init__(self, state: State, ranks: Ranks, others: _Others) -> None:
        self.others = others
        saved = [i for i in state.graph.initializers if i.kind != "constant"]
        parts = [part for i in saved for part in _parts(i, state.recipes[i.value])]
        self.parts = {part.item.index: part for part in parts[ranks.rank :: ranks.count]}
        self.levels: dict[str, Sequence[float]] = {}

    def set_up_planner(self, state_dict: Any, storage_meta: Any = None, is_coordinator: bool = False) -> None:
        """Nothing is known from the state dict, which is empty."""

    def create_local_plan(self) -> SavePlan:
        return SavePlan([*(part.item for part in self.parts.values()), *self.others.items()])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        if write_item.index.fqn in self.others.values:
            return self.others.data(write_item.index.fqn)
        part = self.parts[write_item.index]
        wanted = [np.arange(size) for size in part.recipe.shape]
        wanted[:1] = [np.arange(part.first, part.end)] if wanted else []
        out = torch.empty(part.sizes, dtype=part.initializer.tensor.dtype)
        widen_block(Source(stored(part.initializer)), part.recipe, wanted, out, self._remembered(part))
        return out

    def _remembered(self, part: _Part) -> Map:
        """The level of a tensor's noise is found once, not for every part."""

        def together(function: Any, count: int) -> Sequence[float]:
            if part.recipe.name not in self.levels:
                self.levels[part.recipe.name] = [function(i) for i in range(count)]
            return self.levels[part.recipe.name]

        return together


# Reading


@torch.no_grad()
def load_dcp(module: nn.Module, path: Path) -> None:
    """Read the state dict of a module, as it is or within another one, from a DCP checkpoint.

    Raises:
        GraphcloneError: there is none, or it is of another model.
    """
    reader = Reader(path)
    found = reader.described()
    state = module.state_dict()
    prefix = _prefix(state, found, path)
    for name, tensor in state.items():
        entry = found[prefix + name]
        size = tuple(entry.size) if isinstance(entry, TensorStorageMetadata) else None
        if size != tuple(tensor.shape):
            raise GraphcloneError(f"{path}: {prefix}{name} is {size}, but the model's is {tuple(tensor.shape)}")
    reader.fill({prefix + name: tensor for name, tensor in state.items()})


def _prefix(state: Mapping[str, Tensor], found: Mapping[str, Any], path: Path) -> str:
    """What stands before the names of a state dict in a checkpoint."""
    first = next(iter(state), "")
    for prefix in sorted({name.removesuffix(first) for name in found if name.endswith(first)}, key=len):
        if all(prefix + name in found for name in state):
            return prefix
    prefixes = [prefix for prefix in ("", f"{PREFIX}.") if prefix + first in found]
    missing = next((name for name in state if (prefixes or [""])[0] + name not in found), first)
    raise GraphcloneError(f"{path}: lacks {missing}; give the checkpoint of this model")


class Reader(FileSystemReader):
    """Reads the description of a checkpoint by an unpickler that makes nothing but what they hold."""

    def described(self) -> Mapping[str, Any]:
        """The description of each entry, by its name.

        Raises:
            GraphcloneError: there is no checkpoint.
        """
        try:
            return self.read_metadata().state_dict_metadata
        except GraphcloneError:
            raise
        except Exception as error:  # whatever the unpickler stumbles over
            raise GraphcloneError(f"{self.path}: not a DCP checkpoint: {first_line(error)}") from error

    def fill(self, state: dict[str, Any], planner: LoadPlanner | None = None) -> None:
        """Read the entries of a flat state dict, in place.

        Raises:
            GraphcloneError: they cannot be read.
        """
        try:
            with quiet():
                load(state, storage_reader=self, planner=planner, no_dist=True)
        except CheckpointException as error:  # what went wrong in this process, with a traceback
            reason = first_line(_cause(error))
            raise GraphcloneError(f"{self.path}: cannot be read: {reason}") from error

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        path = Path(self.path) / _METADATA
        if not path.is_file():
            raise GraphcloneError(f"{self.path}: not a DCP checkpoint, since it has no file {_METADATA}")
        with path.open("rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata):
            raise GraphcloneError(f"{path}: describes no DCP checkpoint")
        return metadata


class _Unpickler(pickle.Unpickler):
    """Refuses to import anything that is not part of a description."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not is_dtype and (module, name) not in _PARTS:
            raise GraphcloneError(f"its {_METADATA} would import {module}.{name}, which no description needs")
        return super().find_class(module, name)


def _member(kind: Any, name: str) -> Any:
    """A member of an enumeration, as Python 3.11.0 to 3.11.3 pickle them: as an attribute. No other one is given."""
    if kind is not _MEM_FORMAT_ENCODING or name not in _MEM_FORMAT_ENCODING.__members__:
        raise GraphcloneError(f"its {_METADATA} would read the attribute {name!r}, which no description needs")
    return _MEM_FORMAT_ENCODING[name]


_PARTS = {
    *((Metadata.__module__, name) for name in (
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING",
    )),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    (FileSystemReader.__module__, "_StorageInfo"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "WindowsPath"),
}  # fmt: skip
"""What a description is made of."""
