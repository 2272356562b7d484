"""The weights of a clone: where their data lies in the source, and in what form they are written.

Nothing is read here but what is stored more than once and must be the same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Container, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch

from graphclone.algebra.strategies import Strategy
from graphclone.errors import GraphcloneError, some
from graphclone.formats.huggingface.config_solver import Config
from graphclone.formats.huggingface.conversion import ConvertedTensor, ModelTensor, stored_parts, unloaded
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.reader import Checkpoint
from graphclone.formats.huggingface.weights import PICKLE_NOTE, PickledTensor, StoredTensor
from graphclone.graph.ir import Graph, Initializer
from graphclone.pipeline.state import State
from graphclone.runtime.new_tensors import made, original
from graphclone.runtime.shards import Bundle, Entry, Shard, Slot
from graphclone.version import __version__

TIE = "tie_word_embeddings"

ELSEWHERE = "an output of .onnx or .pt2 can hold it, since its code is written anew"


def attach(graph: Graph, checkpoint: Checkpoint, left_out: Container[str] = ()) -> list[str]:
    """Give every weight of a graph its data on disk; returns what the user should know about that.

    Args:
        graph: of the model.
        checkpoint: where it lies.
        left_out: names of weights that the graph does not have, as everybody knows.

    Raises:
        GraphcloneError: a tensor is missing, or has another shape or kind of numbers than the model.
    """
    tensors = checkpoint.tensors
    used = {part.name for name, tensor in tensors.items() if name in left_out for part in tensor.parts}
    for initializer in graph.initializers:
        if initializer.kind != "constant":
            sources = [tensors[name] for name in initializer.names if name in tensors]
            if not sources:
                way = _way_left(initializer, checkpoint)
                raise GraphcloneError(f"{checkpoint.name}: {initializer.name} is missing; {way}")
            initializer.tensor = _checked(sources[0], initializer, checkpoint)
            _check_equal(sources, checkpoint)
            used.update(part.name for tensor in sources for part in tensor.parts)
    unused = [name for name in checkpoint.weights if name not in used]
    pickled = any(isinstance(tensor, PickledTensor) for tensor in checkpoint.weights.values())
    notes = [f"not part of the model and left out: {some(unused)}"] if unused else []
    return [*notes, PICKLE_NOTE] if pickled else notes


def _way_left(initializer: Initializer, checkpoint: Checkpoint) -> str:
    """What to do about a weight that is not stored. A class that makes it from its sizes makes another if they grow."""
    computed = getattr(checkpoint.cls, "_keys_to_ignore_on_load_missing", None) or ()
    if not any(re.search(pattern, name) for pattern in computed for name in initializer.names):
        return "complete the checkpoint"
    name = checkpoint.cls.__name__
    return f"{name} computes it anew, for any width; load the model, and clone it as a module: gc.clone(model, ..)"


def _checked(tensor: ModelTensor, initializer: Initializer, checkpoint: Checkpoint) -> ModelTensor:
    shape = initializer.value.shape
    if tensor.shape != shape:
        raise GraphcloneError(
            f"{tensor.file}: {tensor.name} is {tensor.shape}, but the model of {CONFIG} has {shape}; "
            "the two do not belong together"
        )
    expected = getattr(torch, initializer.value.dtype)
    if tensor.dtype.is_floating_point != expected.is_floating_point:
        raise GraphcloneError(f"{tensor.file}: {tensor.name} is {tensor.dtype}, but {checkpoint.name} needs {expected}")
    return tensor


def _check_equal(tensors: Sequence[ModelTensor], checkpoint: Checkpoint) -> None:
    """Weights that the model ties, and that are stored more than once, must be the same."""
    for other in tensors[1:]:
        if not torch.equal(tensors[0].read(), other.read()):
            raise GraphcloneError(
                f"{checkpoint.name}: {tensors[0].name} and {other.name} are tied in the model but differ on disk; "
                f"set {TIE} to false in {CONFIG}"
            )


# What is written


class Entries:
    """The tensors of a clone in the form that the source has them in."""

    def __init__(self, checkpoint: Checkpoint, fields: Config) -> None:
        self.checkpoint = checkpoint
        self.fields = fields

    def of(self, state: State) -> list[Entry | Bundle]:
        """One entry per tensor of the model, and a bundle where several of them are stored together.

        Raises:
            GraphcloneError: the form of the source cannot be restored.
        """
        together: dict[Any, list[Entry]] = {}  # what one conversion makes, for one block
        for i in state.graph.initializers:
            if i.kind != "constant":
                stored = original(i.tensor)
                converted = isinstance(stored, ConvertedTensor)
                key = (id(stored.conversion), *_shifted(stored.name, i.name).items()) if converted else i
                together.setdefault(key, []).append(Entry(self._name(i), i.tensor, state.recipes[i.value]))
        return [
            self._bundled(e) if isinstance(original(e[0].source), ConvertedTensor) else e[0] for e in together.values()
        ]

    def _name(self, initializer: Initializer) -> str:
        """What a tensor is called on disk; in a block that the source does not have, as in one that it has."""
        tensors = self.checkpoint.tensors
        known = (tensors[name].name for name in initializer.names if name in tensors)
        if (name := next(known, None)) is not None:
            return name
        alike = next((name for name in tensors if _starred(name) == _starred(initializer.name)), None)
        if alike is None:
            return initializer.name
        return _renumbered(tensors[alike].name, _shifted(alike, initializer.name))

    @cached_property
    def _wide(self) -> Any:
        """The wider model, without weights."""
        return self.checkpoint.blank_with(self.fields)

    def _bundled(self, entries: Sequence[Entry]) -> Bundle:
        """Tensors that the source has in another form, in that form."""
        restored = partial(unloaded, self._wide)
        shapes = {e.name: torch.empty(e.recipe.shape, dtype=e.source.dtype, device="meta") for e in entries}
        slots = [Slot(name, tuple(tensor.shape), tensor.dtype) for name, tensor in restored(shapes).items()]
        first = original(entries[0].source)
        assert isinstance(first, ConvertedTensor)
        shift = _shifted(first.name, entries[0].name)
        parts = [_renumbered(part.name, shift) for part in first.parts]
        if {slot.name for slot in slots} != set(parts):
            raise GraphcloneError(
                f"{self.checkpoint.name}: {parts[0]} and others become {entries[0].name} while loading, and "
                f"transformers makes {slots[0].name} of that, so it cannot be stored as it was; {ELSEWHERE}"
            )
        return Bundle(tuple(entries), tuple(slots), restored)


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def _starred(name: str) -> str:
    return _NUMBER.sub("*", name)


def _shifted(old: str, new: str) -> dict[int, str]:
    """The numbers in a name that are others than in another one, by their order."""
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=False)
    return {place: b for place, (a, b) in enumerate(pairs) if a != b}


def _renumbered(name: str, numbers: Mapping[int, str]) -> str:
    """A name with other numbers at some places."""
    places = itertools.count()
    return _NUMBER.sub(lambda match: numbers.get(next(places), match[0]), name)


def fingerprint(shards: Sequence[Shard], config: Config, strategy: Strategy) -> str:
    """A digest of all that decides what is in the shards: the plan, and the state of the source's files."""
    settings = {"config": config, "strategy": _described(strategy)}
    digest = hashlib.sha256(json.dumps([__version__, settings], sort_keys=True).encode())
    for shard in shards:
        digest.update(f"\0{shard.file_name}".encode() + shard.header)
        for entry in (entry for item in shard.entries for entry in item.entries):
            recipe = (entry.recipe.contracted, entry.recipe.scale, entry.recipe.shift, entry.recipe.seed)
            digest.update(repr((entry.name, recipe)).encode())
            digest.update(repr(made(entry.source)).encode())
            for part in stored_parts(original(entry.source)):
                status = part.file.stat()
                place = part.offset if isinstance(part, StoredTensor) else 0
                source = (str(part.file.resolve()), status.st_size, status.st_mtime_ns, place, part.shape)
                digest.update(repr(source).encode())
    return digest.hexdigest()


def _described(strategy: Strategy) -> list[Any]:
    """What tells strategies apart from one run to the next; a user's function by its name."""
    return [strategy.name, strategy.snr_db, strategy.spread, strategy.rank, getattr(strategy.rule, "rows", None)]
