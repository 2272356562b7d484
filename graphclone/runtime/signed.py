"""Unsigned integers of several bytes, of which torch rearranges no elements, as the signed ones with the same bytes."""

from __future__ import annotations

import torch

_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def selected(tensor: torch.Tensor, axis: int, index: torch.Tensor) -> torch.Tensor:
    """The elements of a tensor at some places of an axis, as ``index_select`` gives them, of any dtype."""
    return alike(signed(tensor).index_select(axis, index), tensor)


def signed(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in a dtype that torch rearranges; of the same shape, and on the same memory."""
    return tensor.view(_SIGNED[tensor.dtype]) if tensor.dtype in _SIGNED else tensor


def alike(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What was made of a signed tensor, in the dtype of the one that it was made from."""
    return tensor.view(other.dtype) if other.dtype in _SIGNED else tensor
