"""The effect of rounding on a model: it is run again, several times, with weights that are a rounding off.

One run may be lucky: where values nearly cancel, as in what a mask leaves of padding, errors differ tenfold. Modules,
files and checkpoints are all measured so: what is moved, how often, and by how much is said here alone. Modules and
checkpoints are run so only where the error of their one run does not explain that of the clone.
"""

from __future__ import annotations

import zlib

import torch

SHAKES = 3
"""Runs of a source with other rounding, beside its own."""

ULPS = 1.0
"""How far a weight is moved at most, in units in the last place."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_AT_ONCE = 1 << 22
"""Elements that are looked at at a time, for memory."""

_CACHED = 1 << 16
"""Elements that are moved at a time: few enough to stay in a cache, which makes it six times as quick."""


def is_weight(tensor: torch.Tensor) -> bool:
    """Whether a stored tensor holds what rounding has touched: floats, several, and not all of them whole.

    A single number is a factor, or an exponent; whole numbers are masks, indices and the like, which are compared.
    """
    if tensor.dtype not in _FLOATS or tensor.numel() < 2:
        return False
    return any(bool((part != part.round()).any()) for part in tensor.reshape(-1).split(_AT_ONCE))


def shake(tensor: torch.Tensor, name: str, seed: int, precision: torch.dtype | None = None) -> None:
    """Move every element of a weight by up to ``ULPS`` units in its last place; what is finite stays finite.

    Args:
        tensor: changed in place; contiguous.
        name: of the weight; each is moved in a way of its own.
        seed: of the run.
        precision: that the model computes in, if not in that of its weights.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    limits = torch.finfo(tensor.dtype)
    precise = torch.float64 if limits.bits >= 32 else torch.float32
    reach = ULPS * torch.finfo(precision or tensor.dtype).eps
    for part in tensor.view(-1).split(_CACHED):
        factor = torch.rand(part.shape, generator=generator, dtype=precise).mul_(2 * reach).add_(1 - reach)
        moved = factor.to(part.device).mul_(part).clamp_(limits.min, limits.max)
        part.copy_(torch.where(part.isfinite(), moved.to(part.dtype), part))


def shaken(tensor: torch.Tensor, name: str, seed: int, precision: torch.dtype | None = None) -> torch.Tensor:
    """A copy of a stored tensor, moved if it is a weight; see ``shake``."""
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    if is_weight(copy):
        shake(copy, name, seed, precision)
    return copy
