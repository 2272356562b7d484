"""Models whose weights stay on disk: each part reads its own when it runs, and gives them up when it has run.

The code is the class's own. What is in memory at a time is the weights of one part, a linear layer or a table as a
rule, so that a model can be run that nothing could hold. Where a part computes with the weights of another one, as
``torch.nn.MultiheadAttention`` does with those of its last layer, they are read for each operator that takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.conversion import ModelTensor, stored_parts
from graphclone.formats.huggingface.reader import Checkpoint, quiet_transformers, uncached
from graphclone.formats.torch.weightless import fill_tables

Change = Callable[[torch.Tensor, str], torch.Tensor]
"""Makes another weight of one that has been read and its name."""


def _unchanged(tensor: torch.Tensor, _: str) -> torch.Tensor:
    return tensor


def streamed(
    checkpoint: Checkpoint, change: Change = _unchanged, *, precise: torch.dtype | None = None, eager: bool = False
) -> Any:
    """The model of a checkpoint, in eval mode, which reads its weights while it runs.

    Args:
        checkpoint: on disk.
        change: applied to every weight and table.
        precise: that floats are computed in, if not in the checkpoint's own dtype.
        eager: whether experts are computed by the implementation that knows every precision.

    Raises:
        GraphcloneError: the files lack a tensor of the model, or hold one that is none of it.
    """
    with quiet_transformers():
        model = uncached(checkpoint.blank_with(checkpoint.fields))
        fill_tables(model)
        if eager:
            model.set_experts_implementation("eager")
    names = _names(model, checkpoint)
    for name, table in model.named_buffers():
        if not table.is_meta:
            table.copy_(change(table, name))
    if precise is not None:
        model.to(precise)
    absent: dict[int, Callable[[], torch.Tensor]] = {}
    for module in model.modules():
        empty = {
            leaf: tensor
            for table in (module._parameters, module._buffers)
            for leaf, tensor in table.items()
            if tensor is not None and tensor.is_meta
        }
        if empty:
            part = _Part(module, empty, {leaf: names[module, leaf] for leaf in empty}, checkpoint.tensors, change)
            module.register_forward_pre_hook(part.read)
            module.register_forward_hook(part.give_up, always_call=True)
            absent |= {id(tensor): partial(part.weight, leaf) for leaf, tensor in empty.items()}
    model.forward = _reading(model.forward, absent)
    return model


def _reading(forward: Callable[..., Any], absent: Mapping[int, Callable[[], torch.Tensor]]) -> Callable[..., Any]:
    @wraps(forward)
    def reading(*args: Any, **kwargs: Any) -> Any:
        with _ReadOnUse(absent):
            return forward(*args, **kwargs)

    return reading


class _ReadOnUse(TorchFunctionMode):
    """Gives an operator the weights of a part that is not running; by identity of what stands for them."""

    def __init__(self, absent: Mapping[int, Callable[[], torch.Tensor]]) -> None:
        super().__init__()
        self.absent = absent

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == _DEVICE and id(args[0]) in self.absent:
            return torch.device("cpu")
        if getattr(func, "__name__", "") != "__get__" or func in _VIEWS:  # to know a shape takes no weights
            args, kwargs = tree_map_only(torch.Tensor, self._read, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _read(self, tensor: torch.Tensor) -> torch.Tensor:
        read = self.absent.get(id(tensor))
        return tensor if read is None else read()


_DEVICE: Any = torch.Tensor.device.__get__
_VIEWS: Any = [getattr(torch.Tensor, name).__get__ for name in ("T", "mT", "H", "mH", "data")]


def _names(model: Any, checkpoint: Checkpoint) -> dict[tuple[torch.nn.Module, str], tuple[str, str | None]]:
    """For every tensor of a part its name in the model, and that of the tied one which is on disk, if one is."""
    alike: dict[int, list[str]] = {}
    places: dict[tuple[torch.nn.Module, str], int] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for table in (module._parameters, module._buffers):
            for leaf, tensor in table.items():
                if tensor is not None and tensor.is_meta:
                    alike.setdefault(id(tensor), []).append(f"{path}.{leaf}" if path else leaf)
                    places[module, leaf] = id(tensor)
    stored = {key: next((name for name in names if name in checkpoint.tensors), None) for key, names in alike.items()}
    known = {name for names in alike.values() for name in names}
    used = {p.name for name, tensor in checkpoint.tensors.items() if name in known for p in stored_parts(tensor)}
    if unused := sorted(set(checkpoint.weights) - used):
        raise GraphcloneError(f"{checkpoint.folder}: {unused[0]} is not part of the model")
    return {place: (alike[key][0], stored[key]) for place, key in places.items()}


@dataclass(frozen=True)
class _Part:
    """A module, and what it reads.

    Attributes:
        module: the part itself, its own parts left out.
        empty: its tensors as they are while it does not run.
        names: of each in the model, and on disk.
        tensors: where they lie.
        change: what is made of them.
    """

    module: torch.nn.Module
    empty: Mapping[str, torch.Tensor]
    names: Mapping[str, tuple[str, str | None]]
    tensors: Mapping[str, ModelTensor]
    change: Change

    def read(self, *_: Any) -> None:
        for leaf in self.empty:
            self._put(leaf, self.weight(leaf))

    def weight(self, leaf: str) -> torch.Tensor:
        """One of its tensors, as the model computes with it.

        Raises:
            GraphcloneError: it is not on disk.
        """
        name, stored = self.names[leaf]
        if stored is None:
            raise GraphcloneError(f"{name} of the model is missing")
        return self.change(self.tensors[stored].read(), name).to(self.empty[leaf].dtype)

    def give_up(self, *_: Any) -> None:
        for leaf, like in self.empty.items():
            self._put(leaf, like)

    def _put(self, leaf: str, tensor: torch.Tensor) -> None:
        if leaf in self.module._buffers:
            self.module._buffers[leaf] = tensor
        elif isinstance(tensor, torch.nn.Parameter):
            self.module._parameters[leaf] = tensor
        else:
            self.module._parameters[leaf] = torch.nn.Parameter(tensor, requires_grad=False)
