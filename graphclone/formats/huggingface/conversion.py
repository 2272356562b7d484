"""Tensors that a class has in another form than its checkpoints: experts in one, projections joined or apart.

transformers lists such conversions with its classes; ``from_pretrained`` makes them, ``save_pretrained`` undoes them.
Both ways are its own code here too, so a clone is stored as the source was.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from graphclone.errors import GraphcloneError, first_line
from graphclone.formats.huggingface.weights import PickledTensor, StoredTensor

DiskTensor = StoredTensor | PickledTensor


@dataclass(frozen=True, eq=False)
class Conversion:
    """An operation that makes some tensors of a model from others on disk.

    Attributes:
        module: the model, without weights.
        converter: of transformers, with nothing in it.
        target: what it is asked to make; the others that it makes follow from that.
        parts: the tensors on disk, each with the pattern that found it.
    """

    module: Any
    converter: Any
    target: str
    parts: Sequence[tuple[DiskTensor, str]]

    def __call__(self, tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of the model by name, from those on disk."""
        converter = copy.deepcopy(self.converter)
        for (part, pattern), tensor in zip(self.parts, tensors, strict=True):
            converter.add_tensor(self.target, part.name, pattern, tensor)
        return _tensors(converter.convert(self.target, model=self.module, config=self.module.config))

    def outputs(self) -> list[ConvertedTensor]:
        """The tensors of the model, none of which is read.

        Raises:
            GraphcloneError: transformers refuses the shapes.
        """
        on_meta = (torch.empty(part.shape, dtype=part.dtype, device="meta") for part, _ in self.parts)
        try:
            tensors = self(on_meta)
        except Exception as error:  # whatever the conversion raises
            first = self.parts[0][0]
            raise GraphcloneError(
                f"{first.file}: {first.name} and others do not make {self.target}: {first_line(error)}"
            ) from error
        return [ConvertedTensor(name, self, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()]


@dataclass(frozen=True, eq=False)
class ConvertedTensor:
    """A tensor of the model that is made anew from the disk whenever it is read.

    Attributes:
        name: in the model.
        conversion: that makes it, and others perhaps.
        shape: of the tensor.
        dtype: of the tensor.
    """

    name: str
    conversion: Conversion
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def parts(self) -> tuple[DiskTensor, ...]:
        """The tensors on disk that it is made of."""
        return tuple(part for part, _ in self.conversion.parts)

    @property
    def file(self) -> Any:
        """One that holds part of it."""
        return self.parts[0].file

    def read(self) -> torch.Tensor:
        """The tensor, in memory of its own."""
        return self.conversion(part.read() for part in self.parts)[self.name]


ModelTensor = DiskTensor | ConvertedTensor


def loaded(module: Any, disk: Mapping[str, DiskTensor]) -> dict[str, ModelTensor]:
    """The tensors that ``from_pretrained`` fills a model from, by the names they have in the model.

    Args:
        module: the model, without weights.
        disk: the tensors on disk by name.

    Raises:
        GraphcloneError: a conversion fails.
    """
    from transformers import conversion_mapping, core_model_loading

    state, prefix = module.state_dict(), module.base_model_prefix
    # the table of conversions, which is slow to make, says nothing about names that the model has
    transforms = conversion_mapping.get_model_conversion_mapping(module) if set(disk) - set(state) else []
    renamings = [item for item in transforms if isinstance(item, core_model_loading.WeightRenaming)]
    converters = [item for item in transforms if isinstance(item, core_model_loading.WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    tensors: dict[str, ModelTensor] = {}
    parts: dict[str, list[tuple[DiskTensor, str]]] = {}
    for name in sorted(disk, key=core_model_loading.dot_natural_key):  # experts are stacked in this order
        if name in state:
            tensors.setdefault(name, disk[name])
            continue
        target, pattern = core_model_loading.rename_source_key(name, renamings, converters, prefix, state)
        if pattern is None:
            tensors.setdefault(target, disk[name])
        else:
            parts.setdefault(target, []).append((disk[name], pattern))
    for target, items in parts.items():
        for tensor in Conversion(module, by_pattern[items[0][1]], target, items).outputs():
            tensors.setdefault(tensor.name, tensor)
    return tensors


def stored_parts(source: Any) -> tuple[DiskTensor, ...]:
    """The tensors on disk that a tensor of the model is made from."""
    assert isinstance(source, StoredTensor | PickledTensor | ConvertedTensor)
    return source.parts


def unloaded(module: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that ``save_pretrained`` would write for tensors of a model, by their names on disk."""
    from transformers import core_model_loading

    return _tensors(core_model_loading.revert_weight_conversion(module, dict(tensors)))


def _tensors(items: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: item[0] if isinstance(item, list) else item for name, item in items.items()}
