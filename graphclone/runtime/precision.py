"""Precision: the size of a tensor's numbers, how finely its dtype tells them apart, and how float32 is multiplied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_PART = 1 << 14
"""Elements squared and summed at once: a norm in float64 copies what it is given to float64 first."""

_BACKENDS: Any = torch.backends
_MULTIPLIERS = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
)

_FULL = ("ieee", "none")


@contextmanager
def all_digits() -> Iterator[None]:
    """Multiply float32 with all its digits in a ``with`` block, or in a function that this decorates.

    Convolutions on a GPU keep ten bits of a product (TF32) unless they are told otherwise, and matrix products do where
    the user has asked for it: see torch.backends. What is rounded so, hides errors of a thousand times float32's own.
    """
    before, switches = _precisions(), _switches()
    try:
        # torch has older switches and newer ones, and reads the older, which it refuses where the newer disagree.
        _set_switches("highest", tf32=False)
        for backend, precision in zip(_MULTIPLIERS, _precisions(), strict=True):
            if precision not in _FULL:
                backend.fp32_precision = "ieee"
        yield
    finally:
        if switches is not None:
            _set_switches(*switches)
        for backend, wanted, precision in zip(_MULTIPLIERS, before, _precisions(), strict=True):
            if precision != wanted:
                backend.fp32_precision = wanted


def _precisions() -> list[str]:
    return [backend.fp32_precision for backend in _MULTIPLIERS]


def _switches() -> tuple[str, bool] | None:
    """The older switches; None where they do not say what the newer ones do."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _set_switches(matmul: str, tf32: bool) -> None:
    torch.set_float32_matmul_precision(matmul)
    torch._C._set_cudnn_allow_tf32(tf32)  # what cudnn.allow_tf32 calls, unless torch.testing has frozen it


def power(tensor: Tensor) -> float:
    """The sum of the squares, in float64, added up in an order that no thread count changes."""
    parts = torch.split(tensor.reshape(-1), _PART)
    return sum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts)


def root_mean_square(parts: Sequence[Tensor]) -> float:
    """The root mean square of the numbers of all parts; 0 where there are none."""
    return math.sqrt(sum(map(power, parts)) / max(1, sum(part.numel() for part in parts)))


def units(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """A unit in the last place of float32 numbers, were they of a dtype."""
    info = torch.finfo(dtype)
    exponents = torch.frexp(largest).exponent - 1
    return torch.ldexp(torch.full_like(largest, info.eps), exponents).clamp_(min=info.smallest_normal * info.eps)
