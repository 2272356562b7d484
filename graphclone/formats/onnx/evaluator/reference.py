# ruff: noqa: PLR0913  operands and attributes are those of the operators
"""Operators as onnx's reference implementation should run them: all of them, quickly, in their operands' precision.

Some of its own loop in Python, compute in single precision, want to know the types of their operands beforehand, or
are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from graphclone.formats.onnx.evaluator.contrib import CONTRIB
from graphclone.formats.onnx.evaluator.functions import erf, gelu, group_norm, layer_normalization, rms_normalization
from graphclone.formats.onnx.evaluator.own import Array, Index, operators
from graphclone.formats.onnx.evaluator.recurrences import gru, lstm, rnn
from graphclone.formats.onnx.evaluator.windows import (
    average_pool,
    convolution,
    global_lp_pool,
    global_max_pool,
    grid_sample,
    lp_pool,
    max_pool,
    transposed_convolution,
)


def mean_variance_normalization(x: Array, *, axes: Sequence[int] = (0, 2, 3)) -> Array:
    """The operand shifted and scaled to mean 0 and variance 1 over some axes."""
    mean = x.mean(tuple(axes), keepdims=True)
    deviation = np.sqrt((x * x).mean(tuple(axes), keepdims=True) - mean * mean)
    result: Array = (x - mean) / (deviation + 1e-9)
    return result


def lp_normalization(x: Array, *, axis: int = -1, p: int = 2) -> Array:
    """``x / |x|``, 0 where x is 0."""
    norm = (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)
    return np.where(norm == 0, 0, x / norm).astype(x.dtype)


def local_response_normalization(
    x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Array:
    """Every channel divided by a power of the sum of the squares of its neighbours."""
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = np.zeros_like(x)
    for channel in range(x.shape[1]):
        neighbours = x[:, max(0, channel - before) : channel + after + 1]
        squares[:, channel] = (neighbours * neighbours).sum(axis=1)
    result: Array = x / (bias + alpha / size * squares) ** beta
    return result


def affine_grid(theta: Array, size: Array, *, align_corners: int = 0) -> Array:
    """``n i j, j ... -> n ... i``, with the homogeneous coordinates of every place."""
    sizes = [int(n) for n in size[2:]]
    axes = [np.linspace(-1, 1, n) if align_corners else (2 * np.arange(n) + 1) / n - 1 for n in sizes]
    places = np.meshgrid(*axes, indexing="ij")[::-1]
    homogeneous = np.stack([*places, np.ones(sizes)])
    grid: Array = np.moveaxis(np.tensordot(theta, homogeneous, axes=(2, 0)), 1, -1).astype(theta.dtype)
    return grid


def max_roi_pool(x: Array, rois: Array, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0) -> Array:
    """The greatest elements of a grid of bins in every region."""
    maxima = np.zeros((len(rois), x.shape[1], *pooled_shape), x.dtype)
    for number, (batch, *corners) in enumerate(rois):
        left, top, right, bottom = (int(np.round(corner * spatial_scale)) for corner in corners)
        sizes = max(bottom - top + 1, 1), max(right - left + 1, 1)
        for place in np.ndindex(*pooled_shape):
            spans = zip(place, sizes, pooled_shape, (top, left), x.shape[2:], strict=True)
            cut = tuple(_bin(at, size / bins, start, limit) for at, size, bins, start, limit in spans)
            region: Index = (int(batch), slice(None), *cut)
            seen = x[region]
            if seen.size:
                maxima[(number, slice(None), *place)] = seen.max(axis=(1, 2))
    return maxima


def _bin(at: int, step: float, start: int, limit: int) -> slice:
    ends = int(np.floor(at * step)) + start, int(np.ceil((at + 1) * step)) + start
    first, last = (min(max(end, 0), limit) for end in ends)
    return slice(first, last)


def columns_to_image(
    x: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Every block's elements added up where they lie in the image."""
    rank = len(image_shape)
    strides, dilations, pads = strides or [1] * rank, dilations or [1] * rank, pads or [0] * (2 * rank)
    padded = [int(size) + pads[i] + pads[i + rank] for i, size in enumerate(image_shape)]
    extents = [(int(k) - 1) * d + 1 for k, d in zip(block_shape, dilations, strict=True)]
    counts = [(size - extent) // stride + 1 for size, extent, stride in zip(padded, extents, strides, strict=True)]
    channels = x.shape[1] // prod(int(k) for k in block_shape)
    columns = x.reshape(x.shape[0], channels, *(int(k) for k in block_shape), *counts)
    image = np.zeros((x.shape[0], channels, *padded), x.dtype)
    for place in np.ndindex(*(int(k) for k in block_shape)):
        starts = [p * d for p, d in zip(place, dilations, strict=True)]
        cut = (
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(starts, counts, strides, strict=True)
        )
        seen: Index = (..., *cut)
        image[seen] += columns[(slice(None), slice(None), *place)]
    inside: Index = (..., *(slice(pads[i], pads[i] + int(size)) for i, size in enumerate(image_shape)))
    return image[inside]


def linear_attention(
    query: Array,
    key: Array,
    value: Array,
    past_state: Array | None = None,
    decay: Array | None = None,
    beta: Array | None = None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    update_rule: str = "gated_delta",
    chunk_size: int = 64,
) -> tuple[Array, Array]:
    """A recurrent state of outer products, in the precision of the query rather than in single precision."""
    del chunk_size, update_rule  # decay and beta say which it is
    q = _heads(query, q_num_heads)
    k, v = _heads(key, kv_num_heads), _heads(value, kv_num_heads)
    scale = scale or q.shape[-1] ** -0.5
    state = np.zeros((*k.shape[:2], k.shape[3], v.shape[3]), q.dtype) if past_state is None else past_state
    fade = None if decay is None else _heads(decay, kv_num_heads)
    rate = None if beta is None else _heads(beta, beta.shape[2])
    results = []
    for t in range(q.shape[2]):
        if fade is not None:
            state = state * np.exp(fade[:, :, t])[..., None]
        new = v[:, :, t]
        if rate is not None:
            new = rate[:, :, t] * (new - np.einsum("bhd,bhde->bhe", k[:, :, t], state))
        state = state + k[:, :, t, :, None] * new[:, :, None, :]
        seen = np.repeat(state, q_num_heads // kv_num_heads, axis=1)
        results.append(scale * np.einsum("bhd,bhde->bhe", q[:, :, t], seen))
    stacked = np.stack(results, axis=1)
    return stacked.reshape(*stacked.shape[:2], -1).astype(query.dtype), state.astype(query.dtype)


def _heads(x: Array, heads: int) -> Array:
    """``b t (h d) -> b h t d``"""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def gather_elements(data: Array, indices: Array, *, axis: int = 0) -> Array:
    """``GatherElements``, along axes of any size."""
    axis %= data.ndim
    corner = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    return np.take_along_axis(data[corner], np.where(indices < 0, indices + data.shape[axis], indices), axis)


def scatter(data: Array, indices: Array, updates: Array, *, axis: int = 0) -> Array:
    """``Scatter``, which has been called ``ScatterElements`` since opset 11."""
    result = data.copy()
    axis %= data.ndim
    places = np.where(indices < 0, indices + data.shape[axis], indices)
    corner = tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))
    np.put_along_axis(result[corner], places, updates, axis)
    return result


_STANDARD: Mapping[str, Callable[..., Any]] = {
    "Erf": erf,
    "Gelu": gelu,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "SimplifiedLayerNormalization": rms_normalization,
    "GroupNormalization": group_norm,
    "MeanVarianceNormalization": mean_variance_normalization,
    "LpNormalization": lp_normalization,
    "LRN": local_response_normalization,
    "AffineGrid": affine_grid,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "MaxRoiPool": max_roi_pool,
    "GridSample": grid_sample,
    "Col2Im": columns_to_image,
    "LinearAttention": linear_attention,
    "GatherElements": gather_elements,
    "Scatter": scatter,
    "RNN": rnn,
    "GRU": gru,
    "LSTM": lstm,
}

OPERATORS = [*operators("", _STANDARD), *CONTRIB]
"""What the evaluator is to run by our functions."""
