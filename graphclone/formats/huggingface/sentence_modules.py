"""The modules that sentence-transformers runs behind a model, which must go on from states that have become wider.

``modules.json`` lists them in order, each with its class and its folder. What they hand on are vectors by name, and of
each it is known here how it repeats what it was in the source. A dense layer gets a column for every new element, and
so ends the growth. What no rule here understands is left out, and a note says why.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from graphclone.algebra.growth import IntArray
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.weights import SINGLE, open_weights
from graphclone.graph.ir import Value
from graphclone.pipeline.state import State

MODULES = "modules.json"

_STATES, _EMBEDDING = "token_embeddings", "sentence_embedding"
_RETURNED = "last_hidden_state"


class NotCarriedError(Exception):
    """Why the modules cannot be those of the clone."""


@dataclass(frozen=True)
class Repeats:
    """The way in which a vector of the clone repeats that of the source.

    Attributes:
        size: of the vector in the source.
        index: which of its elements every element of the clone's repeats.
        scale: what the repetitions are times.
    """

    size: int
    index: IntArray
    scale: float = 1.0

    @property
    def grows(self) -> bool:
        return len(self.index) != self.size

    @classmethod
    def same(cls, size: int) -> Repeats:
        """A vector that is as in the source."""
        return cls(size, np.arange(size))

    @property
    def counts(self) -> IntArray:
        """The number of copies of each element, shape (size,)."""
        return np.bincount(self.index, minlength=self.size).astype(np.int64)

    @property
    def even(self) -> bool:
        """Whether all elements are repeated as often: angles are the same then."""
        return len(set(self.counts)) == 1

    def times(self, count: int) -> Repeats:
        """The vector several times in a row."""
        parts = [self.index + part * self.size for part in range(count)]
        return replace(self, size=count * self.size, index=np.concatenate(parts))

    def columns(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight (out, size) whose columns meet the vector, shared out evenly among the repetitions of an element."""
        shares = weight.double() / (self.scale * torch.as_tensor(self.counts))
        return shares[:, torch.as_tensor(self.index)].to(weight.dtype)


@dataclass
class Chain:
    """The modules one after the other.

    Attributes:
        source: the folder of the source.
        vectors: what is there by now, by name.
        configs: the configurations that change, by folder.
        weights: the weights that change, by folder.
    """

    source: Path
    vectors: dict[str, Repeats]
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    weights: dict[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    def taken(self, name: str, size: object, path: str) -> Repeats:
        """A vector that a module takes, which must have the size that it says."""
        vector = self.vectors.get(name)
        if vector is None or vector.size != size:
            raise NotCarriedError(f"{path} takes a {name} of {size}, and it is not known where that comes from")
        return vector


def module_folders(source: Path) -> set[str]:
    """The folders of the modules that are listed; none where none are."""
    try:
        return {path for _, path in _listed(source) if path}
    except NotCarriedError:
        return set()


def write_modules(source: Path, folder: Path, state: State) -> list[str]:
    """Write the modules of a clone; returns what was left out, and why.

    Args:
        source: folder of the source.
        folder: of the clone.
        state: of the clone.
    """
    if not (source / MODULES).is_file():
        return []
    try:
        modules = _listed(source)
        if absent := [path for _, path in modules if not (source / path).is_dir()]:
            raise NotCarriedError(f"there is no {absent[0]}")
        chain = _grown(source, modules, state)
    except (NotCarriedError, GraphcloneError) as reason:
        return [f"not copied: {', '.join(sorted({MODULES, *module_folders(source)}))}: {reason}"]
    shutil.copyfile(source / MODULES, folder / MODULES)
    for _, path in modules:
        if path and path not in chain.weights:
            shutil.copytree(source / path, folder / path, dirs_exist_ok=True)
    for path, tensors in chain.weights.items():
        (folder / path).mkdir(exist_ok=True)  # a run that is resumed may have got as far
        save_file(dict(tensors), folder / path / SINGLE)
    for path, config in chain.configs.items():
        (folder / path / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    return []


def _listed(source: Path) -> list[tuple[str, str]]:
    """The class of every module, and the folder in the source that it is in; that of the model is ""."""
    try:
        entries = json.loads((source / MODULES).read_bytes())
        modules = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotCarriedError(f"it is no list of modules ({type(error).__name__})") from error
    if outside := [path for _, path in modules if path == ".." or Path(path).name != path]:
        raise NotCarriedError(f"it lists {outside[0]}, which is not a folder beside it")
    return modules


def _grown(source: Path, modules: Sequence[tuple[str, str]], state: State) -> Chain:
    """What changes in the modules, so that they compute the same."""
    states = _states(state)
    if not states.grows:
        return Chain(source, {})
    chain = Chain(source, {_STATES: states})
    for kind, path in modules:
        if path:
            if kind not in _KINDS:
                raise NotCarriedError(f"{path}: nothing is known of a {kind} that takes wider states")
            try:
                _KINDS[kind](chain, path, _config(source / path))
            except (KeyError, TypeError, ValueError) as error:
                raise NotCarriedError(f"{path}/{CONFIG} is not that of a {kind}") from error
    if not chain.vectors.get(_EMBEDDING, states).even:
        raise NotCarriedError("the elements of a sentence's embedding are not all repeated as often")
    return chain


def _states(state: State) -> Repeats:
    """How the states that the model returns repeat those of the source; an output has no pads."""
    for output in state.graph.outputs:
        if output.name == _RETURNED and isinstance(output.operand, Value):
            layout = state.layout(state.facts.of[output.operand][-1])
            return Repeats(layout.size, layout.index_map)
    raise NotCarriedError(f"its class does not return the states; widen what AutoModel saves, with {_RETURNED}")


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        fields: dict[str, Any] = dict(json.loads(path.read_bytes())) if path.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise NotCarriedError(f"{folder.name}/{CONFIG} cannot be read") from error
    return fields


# How the modules of each class grow


def _pooling(chain: Chain, path: str, config: Mapping[str, Any]) -> None:
    """Every way of pooling takes elements one by one; the results of several stand in a row."""
    key = next((key for key in ("embedding_dimension", "word_embedding_dimension") if key in config), "")
    states = chain.taken(_STATES, config.get(key), path)
    named = config.get("pooling_mode", ())
    flags = sum(value is True for name, value in config.items() if name.startswith("pooling_mode_"))
    count = (1 if isinstance(named, str) else len(named)) or flags or 1
    chain.configs[path] = {**config, key: len(states.index)}
    chain.vectors[_EMBEDDING] = states.times(count)


def _dense(chain: Chain, path: str, config: Mapping[str, Any]) -> None:
    """Columns for what it takes; what it gives is as in the source."""
    taken = str(config.get("module_input_name") or _EMBEDDING)
    given = str(config.get("module_output_name") or taken)
    vector = chain.taken(taken, config.get("in_features"), path)
    chain.vectors[given] = Repeats.same(int(config["out_features"]))
    if not vector.grows:
        return
    tensors = {name: tensor.read() for name, tensor in open_weights(chain.source / path).items()}
    if config.get("use_residual") and "residual.weight" not in tensors:
        raise NotCarriedError(f"{path} adds what it takes, which is wider, to what it gives")
    chain.configs[path] = {**config, "in_features": len(vector.index)}
    chain.weights[path] = {name: vector.columns(t) if t.ndim == 2 else t for name, t in tensors.items()}


def _normalize(chain: Chain, path: str, config: Mapping[str, Any]) -> None:
    """A vector that is repeated is longer, so that every repetition comes out shorter."""
    taken = str(config.get("module_input_name") or _EMBEDDING)
    given = str(config.get("module_output_name") or taken)
    vector = chain.vectors.get(taken)
    if vector is None:
        return
    if not vector.even:
        raise NotCarriedError(f"{path} norms a vector whose elements are not all repeated as often")
    chain.vectors[given] = replace(vector, scale=(len(vector.index) / vector.size) ** -0.5)


def _nothing(chain: Chain, path: str, config: Mapping[str, Any]) -> None:
    """It takes elements one by one."""


_KINDS: Mapping[str, Callable[[Chain, str, Mapping[str, Any]], None]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "Normalize": _normalize,
    "Dropout": _nothing,
}
