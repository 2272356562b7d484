"""Fill a wide model that many processes share: each computes its own blocks from the recipes, and nothing else.

Where a tensor lies is read off the tensor: FSDP2 (``fully_shard``), tensor parallelism and their products leave a
``DTensor`` that says by which mesh and placements it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from graphclone.algebra.growth import IntArray
from graphclone.algebra.recipes import Widening
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.weightless import fill_tables
from graphclone.graph.ir import Initializer
from graphclone.runtime.blocks import Map, Source, alone, stored, widen_block


@dataclass(frozen=True)
class Loaded:
    """The bytes that this process has read and written.

    Attributes:
        read: bytes of the source's tensors; a tensor that was read twice counts twice.
        written: bytes of the model's own blocks.
    """

    read: int
    written: int


@torch.no_grad()
def load_into(big: nn.Module, clone: Clone, *, device: torch.device | str | None = None) -> Loaded:
    """Fill a model with the tensors of a clone, in every process that has a part of it.

    Tensors on the meta device are allocated: of a ``DTensor`` only the block of this process, whatever its mesh and
    placements. Tied parameters stay tied. All processes call this with equal clones. Each widens its own blocks only.

    Args:
        big: a model as wide as the clone, for example one that was sharded on the meta device.
        clone: of a module or a checkpoint. Its source is read where it lies.
        device: where tensors that are no ``DTensor`` are allocated. By default it is the device of the model's mesh, or
            the CPU.

    Returns:
        How much this process has read and written, in bytes.

    Raises:
        GraphcloneError: the model has other tensors, shapes or ties than the clone.

    Examples:
        >>> with torch.device("meta"):
        ...     big = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.ReLU(), torch.nn.Linear(12, 2))
        >>> gc.load_into(big, clone)
        Loaded(read=176, written=344)
    """
    fill_tables(big)
    slots = _slots(big)
    _check_names(slots, clone)
    place = torch.device(device) if device is not None else _device(slots)
    read = written = 0
    for slot, initializer, recipe in list(_matched(slots, clone)):
        tensor = slot.allocated(place)
        source = Source(stored(initializer))
        written += _fill(tensor, source, recipe)
        read += source.nbytes
    if empty := [slot.names[0] for slot in _slots(big) if slot.tensor.is_meta]:
        raise GraphcloneError(f"{empty[0]}: is on the meta device and not part of the clone; fill it yourself first")
    return Loaded(read, written)


@dataclass(frozen=True)
class _Slot:
    """A tensor of a module, with every place that it has.

    Attributes:
        tensor: the parameter or buffer.
        names: all that it has, the first one first.
        owners: the table of the module that holds it, by name, in the order of ``names``.
        saved: whether it is part of the state dict.
    """

    tensor: Tensor
    names: list[str]
    owners: list[dict[str, Any]]
    saved: bool

    def allocated(self, device: torch.device) -> Tensor:
        """The tensor, with memory of its own where it had none, under all its names."""
        if not self.tensor.is_meta:
            return self.tensor
        tensor = _empty(self.tensor, device)
        if isinstance(self.tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, self.tensor.requires_grad)
        tensor.__dict__.update(self.tensor.__dict__)
        for name, owner in zip(self.names, self.owners, strict=True):
            owner[name.rpartition(".")[2]] = tensor
        return tensor


def _slots(module: nn.Module) -> list[_Slot]:
    found: dict[int, _Slot] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for table in (owner._parameters, owner._buffers):
            for leaf, tensor in table.items():
                if tensor is not None:
                    saved = leaf not in owner._non_persistent_buffers_set
                    slot = found.setdefault(id(tensor), _Slot(tensor, [], [], saved))
                    slot.names.append(f"{path}.{leaf}" if path else leaf)
                    slot.owners.append(table)
    return list(found.values())


def _check_names(slots: Sequence[_Slot], clone: Clone) -> None:
    saved = {name for slot in slots if slot.saved for name in slot.names}
    known = {name for i in clone.graph.initializers if i.kind != "constant" for name in i.names}
    if odd := sorted(saved ^ known):
        lack = "the clone does not have it" if odd[0] in saved else "the model lacks it"
        raise GraphcloneError(f"{odd[0]}: {lack}; give another instance of the source's code")


def _matched(slots: Sequence[_Slot], clone: Clone) -> Iterator[tuple[_Slot, Initializer, Widening]]:
    """What is to be filled, by what, and how. Tables that the code has computed stay."""
    by_name = {name: initializer for initializer in clone.graph.initializers for name in initializer.names}
    for slot in slots:
        makers = {id(by_name[name]): by_name[name] for name in slot.names if name in by_name}
        if len(makers) > 1:
            names = " and ".join(slot.names[:2])
            raise GraphcloneError(f"{names}: are tied in the model, but not in the clone; untie them")
        if makers and (slot.saved or slot.tensor.is_meta):
            initializer = next(iter(makers.values()))
            recipe = clone.state.recipes[initializer.value]
            if tuple(slot.tensor.shape) != recipe.shape:
                shapes = f"{tuple(slot.tensor.shape)}, but the clone's is {recipe.shape}"
                raise GraphcloneError(f"{slot.names[0]}: is {shapes}; give a model as wide as the clone")
            yield slot, initializer, recipe


def _device(slots: Sequence[_Slot]) -> torch.device:
    """Where the first sharded tensor is to be, or the CPU."""
    return next((_device_of(slot.tensor) for slot in slots if _is_sharded(slot.tensor)), torch.device("cpu"))


# --- One tensor ---


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "device_mesh")


def _device_of(tensor: Any) -> torch.device:
    """The device of this process that a mesh means."""
    kind = tensor.device_mesh.device_type
    return torch.device(kind) if kind == "cpu" else torch.device(kind, torch.get_device_module(kind).current_device())


def _empty(tensor: Any, device: torch.device) -> Tensor:
    """As the tensor is, with memory: of a sharded one, for the block that this process has."""
    if not _is_sharded(tensor):
        return torch.empty_like(tensor, device=device)
    from torch.distributed.tensor import DTensor

    local = torch.empty_like(tensor.to_local(), device=_device_of(tensor))
    mesh, placements = tensor.device_mesh, tensor.placements
    result: Tensor = DTensor.from_local(
        local, mesh, placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return result


def _fill(tensor: Any, source: Source, recipe: Widening) -> int:
    """Write this process's block; how many bytes it has."""
    wanted: list[IntArray] = [np.arange(size) for size in recipe.shape]
    together: Map = alone
    block = tensor.detach()
    if _is_sharded(tensor):
        wanted, together, block = _wanted(tensor, recipe), _together(tensor), tensor.to_local().detach()
    if [*block.shape] != [*map(len, wanted)]:
        raise GraphcloneError(f"{recipe.name}: its block is {tuple(block.shape)}, which its placements do not say")
    same = block.dtype == source.stored.dtype
    part = block if same else torch.empty(block.shape, dtype=source.stored.dtype)
    widen_block(source, recipe, wanted, part, together)
    if not same:
        block.copy_(part)
    return int(block.nbytes)


def _wanted(tensor: Any, recipe: Widening) -> list[IntArray]:
    """The indices of every axis that this process's block has, found as torch cuts a tensor."""
    wanted = [torch.arange(size) for size in tensor.shape]
    coordinate = tensor.device_mesh.get_coordinate()
    for at, placement in enumerate(tensor.placements):
        if placement.is_partial():
            raise GraphcloneError(f"{recipe.name}: is a sum over processes ({placement}), which no block can be")
        if placement.is_replicate():
            continue
        if coordinate is None:  # this process has nothing of it
            wanted[placement.dim] = wanted[placement.dim][:0]
            continue
        sizes = [-1 if axis == placement.dim else 1 for axis in range(len(wanted))]
        parts, _ = placement._split_tensor(
            wanted[placement.dim].view(sizes), tensor.device_mesh.size(at), with_padding=False
        )
        wanted[placement.dim] = parts[coordinate[at]].reshape(-1)
    return [indices.numpy() for indices in wanted]


def _together(tensor: Any) -> Map:
    """Values shared out among the processes along the longest dim of a tensor's mesh."""
    mesh = tensor.device_mesh
    if mesh.get_coordinate() is None:
        return alone
    dim = max(range(mesh.ndim), key=mesh.size)
    device = tensor.to_local().device

    def together(function: Callable[[int], float], count: int) -> list[float]:
        values = torch.zeros(count, dtype=torch.float64)
        for i in range(mesh.get_local_rank(dim), count, mesh.size(dim)):
            values[i] = function(i)
        summed = values.to(device)
        torch.distributed.all_reduce(summed, group=mesh.get_group(dim))  # of one number and zeros: exact
        numbers: list[float] = summed.tolist()
        return numbers

    return together
