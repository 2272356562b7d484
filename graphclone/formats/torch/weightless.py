"""Modules without weights, which can be traced all the same."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def weightless(module: torch.nn.Module, mode: FakeTensorMode | None = None) -> torch.nn.Module:
    """A copy of a module on the meta device that can be traced with inputs on the CPU: its weights are fake there.

    Args:
        module: to be copied.
        mode: of its fake weights.
    """
    duplicate = copy.deepcopy(module)
    fill_tables(duplicate)
    swap: dict[int, torch.Tensor] = {}
    with mode or FakeTensorMode():
        for owner in duplicate.modules():
            for table in (owner._parameters, owner._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor.is_meta:
                        table[name] = swap.setdefault(id(tensor), _fake(tensor))  # type: ignore[assignment]
    return duplicate


def fill_tables(module: Any) -> None:
    """Let a module of transformers fill the buffers that are not saved, as it does when it is loaded.

    They are part of what it computes, as rotary frequencies are, and on the meta device they hold nothing.
    """
    listing = getattr(module, "named_non_persistent_buffers", None)
    empty = [(name, table) for name, table in listing() if table.is_meta] if listing else []
    if not empty:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        tensor._is_hf_initialized = True  # so that nothing but the tables is filled
    for name, table in empty:
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner)._buffers[leaf] = torch.empty(table.shape, dtype=table.dtype, device="cpu")
    module.initialize_weights()


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    data = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    return torch.nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else data
