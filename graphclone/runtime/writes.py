"""Writes a multiple of a tensor into another one, or adds it.

A GPU is as quick as its loads are wide: it copies words of 16 bytes, whatever numbers they hold. A CPU takes numbers
one by one where each is written several times in turn. It is quicker where it makes two copies at once, as one complex
number or one integer of twice the bytes, or writes short numbers copy by copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = torch.complex128
"""The largest elements that torch copies as they are."""

_AT_ONCE = 64 << 20
"""Bytes of source whose copies a GPU writes together: it reads them from its cache, not from memory."""

_MOST_TURNS = 8
"""Copies that a CPU writes one after the other."""

_PARTS = {4: torch.float32, 8: torch.float64}
"""What complex numbers consist of, by bytes."""

_DOUBLED = {1: (torch.uint8, torch.int16), 2: (torch.uint16, torch.int32)}
"""Integers of as many bytes, and those of twice as many, for numbers that no complex ones consist of."""


def write(out: Tensor, source: Tensor, factor: float) -> None:
    """Write a multiple of the source.

    Args:
        out: of any strides; on the device of the source.
        source: of as many axes as ``out``, each of its size or of size 1, which is repeated.
        factor: a whole number if the dtype holds no others.
    """
    factor = factor if out.is_floating_point() else int(factor)
    if factor == 0:  # not multiplied: no -0, and no NaN from an infinity
        (out.view(_WORD) if out.is_cuda and _has_words(out) else out).zero_()
    elif out.is_cuda and _has_words(out) and _has_words(source):
        _write_in_words(out, source, factor)
    elif out.is_cpu and _are_pairs(out, source):
        _write_pairs(out, _times(source, factor)[..., 0])
    elif out.is_cpu and _is_interleaved(out, source):
        product = _times(source, factor)[..., 0]
        for copy in out.unbind(-1):
            copy.copy_(product)
    elif factor == 1:
        out.copy_(source)
    else:
        torch.mul(source.expand(out.shape), factor, out=out)


def add(out: Tensor, source: Tensor, factor: float) -> None:
    """Add a multiple of the source.

    ``add_`` would round the factor to a dtype of few digits, and in others it rounds once or twice as strides have it.
    """
    out.addcmul_(source, source.new_ones(()), value=factor)


def _write_in_words(out: Tensor, source: Tensor, factor: float) -> None:
    axis = next((a for a in range(out.dim()) if source.shape[a] == out.shape[a] > 1), None)
    parts = [(out, source)]
    if axis is not None:
        rows = max(1, _AT_ONCE * source.shape[axis] // max(1, source.nbytes))
        parts = list(zip(out.split(rows, axis), source.split(rows, axis), strict=True))
    for part, numbers in parts:
        part.view(_WORD).copy_(_times(numbers, factor).view(_WORD))


def _write_pairs(out: Tensor, source: Tensor) -> None:
    if out.itemsize in _PARTS:
        part = _PARTS[out.itemsize]
        product = source.view(part).expand(out.shape[:-1])
        torch.complex(product, product, out=torch.view_as_complex(out.view(part)))
    else:
        single, double = _DOUBLED[out.itemsize]
        out.view(double)[..., 0].copy_(source.view(single)).mul_(1 + (1 << 8 * out.itemsize))


def _times(source: Tensor, factor: float) -> Tensor:
    return source if factor == 1 else source * factor


def _are_pairs(out: Tensor, source: Tensor) -> bool:
    """Whether each number is written twice in turn, and both lie as one number of twice the bytes does."""
    twice = source.shape[-1:] == (1,) and out.shape[-1:] == (2,)
    if not twice or out.itemsize not in (*_PARTS, *_DOUBLED) or out.is_complex():
        return False
    *strides, last = out.stride()
    return last == 1 and all(count % 2 == 0 for count in (out.storage_offset(), *strides))


def _is_interleaved(out: Tensor, source: Tensor) -> bool:
    """Whether each number of two bytes or one is written a few times in turn."""
    return out.dtype.itemsize < 4 and source.dim() > 0 and source.shape[-1] == 1 < out.shape[-1] <= _MOST_TURNS


def _has_words(tensor: Tensor) -> bool:
    """Whether the last axis is made of whole words."""
    if not tensor.dim() or tensor.stride(-1) != 1:
        return False
    *strides, _ = tensor.stride()
    counts = (tensor.shape[-1], tensor.storage_offset(), *strides)
    return all(count * tensor.itemsize % _WORD.itemsize == 0 for count in counts)
