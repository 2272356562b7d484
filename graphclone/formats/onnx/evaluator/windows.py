# ruff: noqa: PLR0913  operands and attributes are those of the operators
"""Convolutions and pooling, which onnx's reference implementation loops over in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from graphclone.formats.onnx.evaluator.own import Array, Index


@dataclass(frozen=True)
class Windows:
    """The places of windows along the last axes of an operand; one number per axis.

    Attributes:
        sizes: of the operand.
        kernel: positions that a window has.
        strides: between windows.
        dilations: between the positions of one window.
        before: padding at the front.
        after: padding at the end.
        counts: number of windows.
    """

    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(
        cls,
        sizes: Sequence[int],
        kernel: Sequence[int],
        *,
        auto_pad: str = "NOTSET",
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        ceil_mode: int = 0,
    ) -> Windows:
        """The windows that the attributes of a convolution or a pooling ask for."""
        rank = len(sizes)
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if auto_pad.startswith("SAME"):
            lacking = [
                max((ceil(size / stride) - 1) * stride + extent - size, 0)
                for size, stride, extent in zip(sizes, strides, extents, strict=True)
            ]
            small, large = [n // 2 for n in lacking], [n - n // 2 for n in lacking]
            before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
            ceil_mode = 0
        else:
            pads = pads if pads and auto_pad == "NOTSET" else [0] * (2 * rank)
            before, after = list(pads[:rank]), list(pads[rank:])
        counts = [
            _count(size, extent, stride, (front, back), ceil_mode)
            for size, extent, stride, front, back in zip(sizes, extents, strides, before, after, strict=True)
        ]
        lists = (sizes, kernel, strides, dilations, before, after, counts)
        return cls(*(tuple(numbers) for numbers in lists))

    def padded(self, x: Array, fill: Any, beyond: Any = None) -> Array:
        """The operand with its padding, and with what else the last windows reach into: ``beyond`` it."""
        spans = zip(self.counts, self.strides, self.kernel, self.dilations, strict=True)
        reached = [(count - 1) * stride + (k - 1) * d + 1 for count, stride, k, d in spans]
        widths = list(zip(self.before, self.after, strict=True))
        lacking = [
            (0, max(reach - size - sum(width), 0))
            for reach, size, width in zip(reached, self.sizes, widths, strict=True)
        ]
        batch = [(0, 0)] * (x.ndim - len(widths))
        x = np.pad(x, batch + widths, constant_values=fill) if any(map(any, widths)) else x
        beyond = fill if beyond is None else beyond
        return np.pad(x, batch + lacking, constant_values=beyond) if any(map(any, lacking)) else x

    def places(self, padded: Array) -> Iterator[tuple[tuple[int, ...], Array]]:
        """For every position of the window: the position, and what all windows see there."""
        for position in product(*(range(k) for k in self.kernel)):
            starts = [p * d for p, d in zip(position, self.dilations, strict=True)]
            cut = [
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, self.counts, self.strides, strict=True)
            ]
            index: Index = (..., *cut)
            yield position, padded[index]


def _count(size: int, extent: int, stride: int, pads: tuple[int, int], ceil_mode: int) -> int:
    room = size + sum(pads) - extent
    if not ceil_mode:
        return int(room / stride) + 1  # cut off towards 0, so that a window that is too large is still one
    count = ceil(room / stride) + 1
    return count - 1 if (count - 1) * stride >= size + pads[0] else count  # a window must not start beyond the end


# Pooling


def max_pool(
    x: Array, *, kernel_shape: Sequence[int], storage_order: int = 0, **attributes: Any
) -> tuple[Array, Array]:
    """The greatest element of every window over the last axes, and where it lies in the flattened operand."""
    rank = len(kernel_shape)
    windows = Windows.of(x.shape[-rank:], kernel_shape, **attributes)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = windows.padded(x, lowest)
    best = np.full(x.shape[:-rank] + windows.counts, lowest, x.dtype)
    where = np.zeros(best.shape, np.int64)
    for number, (position, seen) in enumerate(windows.places(padded)):
        better = seen > best if number else np.ones(best.shape, bool)
        best = np.where(better, seen, best)
        where = np.where(better, _flat(windows, position, best.shape, storage_order), where)
    return best, where


def _flat(windows: Windows, position: Sequence[int], shape: Sequence[int], storage_order: int) -> Array:
    """The places that all windows see at a position, as indices into the flattened operand."""
    rank = len(position)
    axes = [
        np.arange(count) * stride + p * d - front
        for p, d, count, stride, front in zip(
            *(position, windows.dilations, windows.counts, windows.strides, windows.before), strict=True
        )
    ]
    sizes = windows.sizes
    steps = [prod(sizes[:i] if storage_order else sizes[i + 1 :]) for i in range(rank)]
    inner = sum(np.ix_(*(axis * step for axis, step in zip(axes, steps, strict=True))))
    outer = np.arange(prod(shape[:-rank])).reshape(*shape[:-rank], *[1] * rank) * prod(sizes)
    flat: Array = inner + outer
    return flat


def average_pool(x: Array, *, kernel_shape: Sequence[int], count_include_pad: int = 0, **attributes: Any) -> Array:
    """The mean of every window over the last axes, of what is no padding or of all."""
    rank = len(kernel_shape)
    windows = Windows.of(x.shape[-rank:], kernel_shape, **attributes)
    inside = windows.padded(np.ones(windows.sizes, x.dtype), count_include_pad, beyond=0)
    mean: Array = _summed(windows, windows.padded(x, 0)) / _summed(windows, inside)
    return mean


def _summed(windows: Windows, padded: Array) -> Array:
    places = (seen for _, seen in windows.places(padded))
    total = next(places).copy()
    for seen in places:
        total += seen
    return total


def lp_pool(x: Array, *, kernel_shape: Sequence[int], p: int = 2, **attributes: Any) -> Array:
    """The p-norm of every window over the last axes."""
    windows = Windows.of(x.shape[-len(kernel_shape) :], kernel_shape, **attributes)
    norm: Array = _summed(windows, windows.padded(np.abs(x) ** p, 0)) ** (1 / p)
    return norm


def global_lp_pool(x: Array, *, p: int = 2) -> Array:
    """The p-norm over all axes but batch and channels."""
    norm: Array = (np.abs(x) ** p).sum(axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)
    return norm


def global_max_pool(x: Array) -> Array:
    """The greatest element over all axes but batch and channels."""
    maxima: Array = x.max(axis=tuple(range(2, x.ndim)), keepdims=True)
    return maxima


# Convolutions

_CONVOLUTIONS: Sequence[Callable[..., torch.Tensor]] = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED: Sequence[Callable[..., torch.Tensor]] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def convolution(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    **attributes: Any,
) -> Array:
    """``Conv`` by torch: ``x`` is ``batch (group in) spatial..``, ``w`` is ``(group out) in kernel..``."""
    windows = Windows.of(x.shape[2:], kernel_shape or w.shape[2:], **attributes)
    weights = [None if a is None else _tensor(a) for a in (w, b)]
    function = _CONVOLUTIONS[x.ndim - 3]
    many = max(1, _COLUMNS // max(1, prod(w.shape[1:]) * group * prod(windows.counts)))
    parts = [
        function(part, *weights, stride=windows.strides, dilation=windows.dilations, groups=group)
        for part in _tensor(windows.padded(x, 0)).split(many)
    ]
    return _array(torch.cat(parts) if len(parts) > 1 else parts[0])


_COLUMNS = 1 << 27
"""Elements that torch may lay out for one product of matrices: what all windows see, of so many samples at a time."""


def transposed_convolution(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """``ConvTranspose``, by torch: all it can reach, then cut to what is asked for."""
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extra = list(output_padding or [0] * rank)
    del kernel_shape  # that of the weight
    full = _TRANSPOSED[rank - 1](_tensor(x), _tensor(w), stride=strides, dilation=dilations, groups=group)
    reach = [size + more for size, more in zip(full.shape[2:], extra, strict=True)]
    if output_shape is None and auto_pad.startswith("SAME"):
        output_shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if output_shape is not None:
        lacking = [size - target for size, target in zip(reach, output_shape[-rank:], strict=True)]
        small, large = [n // 2 for n in lacking], [n - n // 2 for n in lacking]
        before, after = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
    else:
        pads = pads if pads and auto_pad == "NOTSET" else [0] * (2 * rank)
        before, after = list(pads[:rank]), list(pads[rank:])
    margins = [(-front, more - back) for front, back, more in zip(before, after, extra, strict=True)]
    cut = functional.pad(full, [margin for pair in reversed(margins) for margin in pair])
    return _array(cut if b is None else cut + _tensor(b).reshape(-1, *[1] * rank))


def grid_sample(
    x: Array, grid: Array, *, align_corners: int = 0, mode: str = "linear", padding_mode: str = "zeros"
) -> Array:
    """``GridSample``, by torch, whose words for modes are those of opset 16."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    sampled = functional.grid_sample(
        _tensor(x), _tensor(grid), mode=mode, padding_mode=padding_mode, align_corners=bool(align_corners)
    )
    return _array(sampled)


def _tensor(array: Array) -> torch.Tensor:
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.numpy()
    return array
