"""Models whose weights stay on disk: each part reads its own when it runs, and gives them up when it has run.

The code is the class's own. What is in memory at a time is the weights of one part, a linear layer or a table as a
rule, so that a model can be run that nothing could hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

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
    return model


def _names(model: Any, checkpoint: Checkpoint) -> dict[tuple[torch.nn.Module, str], tuple[str, str]]:
    """For every tensor of a part its name in the model, and that of the tied one which is on disk."""
    alike: dict[int, list[str]] = {}
    places: dict[tuple[torch.nn.Module, str], int] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for table in (module._parameters, module._buffers):
            for leaf, tensor in table.items():
                if tensor is not None and tensor.is_meta:
                    alike.setdefault(id(tensor), []).append(f"{path}.{leaf}" if path else leaf)
                    places[module, leaf] = id(tensor)
    stored = {key: next((name for name in names if name in checkpoint.tensors), None) for key, names in alike.items()}
    for key, name in stored.items():
        if name is None:
            raise GraphcloneError(f"{checkpoint.folder}: {alike[key][0]} of the model is missing")
    known = {name for names in alike.values() for name in names}
    used = {p.name for name, tensor in checkpoint.tensors.items() if name in known for p in stored_parts(tensor)}
    if unused := sorted(set(checkpoint.weights) - used):
        raise GraphcloneError(f"{checkpoint.folder}: {unused[0]} is not part of the model")
    return {place: (alike[key][0], str(stored[key])) for place, key in places.items()}


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
    names: Mapping[str, tuple[str, str]]
    tensors: Mapping[str, ModelTensor]
    change: Change

    def read(self, *_: Any) -> None:
        for leaf, like in self.empty.items():
            name, stored = self.names[leaf]
            self._put(leaf, self.change(self.tensors[stored].read(), name).to(like.dtype))

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
