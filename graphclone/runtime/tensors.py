"""The tensors of source and clone, made when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.graph.ir import Graph, Initializer, Value
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import lifted
from graphclone.runtime.kernel import widen
from graphclone.runtime.pads import Reader
from graphclone.runtime.threads import workers


class Lazy(Mapping[Value, torch.Tensor]):
    """Tensors that are computed when they are read, and not kept."""

    def __init__(self, graph: Graph, read: Reader) -> None:
        self._initializers = graph.initializer_of()
        self._read = read

    def __getitem__(self, value: Value) -> torch.Tensor:
        return self._read(self._initializers[value])

    def __iter__(self) -> Iterator[Value]:
        return iter(self._initializers)

    def __len__(self) -> int:
        return len(self._initializers)


def data_of(initializer: Initializer) -> torch.Tensor | None:
    """The data of an initializer, not to be written into; None where the model was traced without weights."""
    tensor: torch.Tensor = initializer.read()
    return None if tensor.is_meta or isinstance(tensor, FakeTensor) else tensor.detach()


def digest(tensor: torch.Tensor) -> str:
    """A digest of a tensor's data, which tells tensors of one dtype and shape apart."""
    data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def lifted_tensor(initializer: Initializer) -> torch.Tensor:
    """An initializer of the source in float64."""
    return lifted(initializer.read())


def lazily_widened(state: State, read: Reader = lifted_tensor) -> Lazy:
    """The data of the clone's initializers, made from the source's by their recipes one at a time."""
    recipes = _recipes(state)
    return Lazy(state.graph, lambda i: widen(read(i), recipes[i.value], read=read))


def widened_tensors(state: State) -> dict[Value, torch.Tensor]:
    """The data of all the clone's initializers in their own dtype, from their recipes."""
    recipes, values = _recipes(state), [initializer.value for initializer in state.graph.initializers]
    # The largest first: whoever takes a large one last works on alone.
    by_size = sorted(state.graph.initializers, key=lambda i: -prod(recipes[i.value].shape))
    with workers() as pool:
        tensors = pool.map(lambda i: widen(i.read().detach(), recipes[i.value]), by_size)
        made = dict(zip((i.value for i in by_size), tensors, strict=True))
    return {value: made[value] for value in values}


def state_dict(state: State) -> dict[str, torch.Tensor]:
    """The clone's parameters and buffers under the source's names; tied ones share their storage."""
    tensors = widened_tensors(state)
    return {
        name: tensors[initializer.value]
        for initializer in state.graph.initializers
        if initializer.kind != "constant"
        for name in initializer.names
    }


def _recipes(state: State) -> Mapping[Value, Any]:
    return state.recipes
