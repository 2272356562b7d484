"""Fresh memory for tensors, which the first write makes slow: the system hands out every page when it is touched."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

_HUGE = 2 << 20
"""Bytes of a huge page on the processors that have one size of them; where it is another, advice is just coarser."""


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor without contents, in huge pages where the system gives them to those who ask: 512 times fewer faults."""
    tensor = torch.empty(tuple(shape), dtype=dtype, device=device)
    if (
        type(tensor) is torch.Tensor
        and device.type == "cpu"
        and tensor.nbytes >= 2 * _HUGE
        and (advise := _madvise()) is not None
    ):
        first = -(-tensor.data_ptr() // _HUGE) * _HUGE
        last = (tensor.data_ptr() + tensor.nbytes) // _HUGE * _HUGE
        advise(first, last - first, mmap.MADV_HUGEPAGE)  # advice only: where it is not taken nothing is lost
    return tensor


@cache
def _madvise() -> Any:
    """The system's call; None where there is none or it knows no huge pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call
