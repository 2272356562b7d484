"""Precision: the size of a tensor's numbers, and how finely its dtype tells them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_PART = 1 << 14
"""Elements squared and summed at once: a norm in float64 copies what it is given to float64 first."""


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
