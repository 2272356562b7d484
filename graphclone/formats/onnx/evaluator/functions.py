"""Functions that several operators share, in the precision of their operands."""

from __future__ import annotations

import numpy as np
import torch

from graphclone.formats.onnx.evaluator.own import Array


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, without overflow."""
    result: Array = 0.5 * (np.tanh(0.5 * x) + 1)
    return result


def erf(x: Array) -> Array:
    """The error function; the reference rounds it to single precision."""
    result: Array = torch.erf(torch.from_numpy(np.array(x))).numpy()
    return result


def gelu(x: Array, *, approximate: str = "none") -> Array:
    """``x`` times the normal distribution function of it, or nearly so."""
    inner = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)) if approximate == "tanh" else erf(x / np.sqrt(2))
    result: Array = (0.5 * x * (1 + inner)).astype(x.dtype)
    return result


def in_bytes(x: Array) -> tuple[Array, Array, Array]:
    """Numbers as bytes that reach from the least to the greatest and hold 0, their scale, and what stands for 0."""
    low, high = min(x.min(initial=0), 0), max(x.max(initial=0), 0)
    scale = np.array((high - low) / 255 or 1.0)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.clip(np.rint(x / scale) + zero, 0, 255), scale, zero


def unpacked(packed: Array, bits: int, count: int) -> Array:
    """Numbers of few bits along the last axis, the first in the lowest bits of a byte."""
    shifts = np.arange(0, 8, bits)
    numbers = (packed[..., None].astype(np.int64) >> shifts) & ((1 << bits) - 1)
    return numbers.reshape(*packed.shape[:-1], -1)[..., :count]


def layer_normalization(
    x: Array, scale: Array, b: Array | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array, Array]:
    """A layer norm over the last axes, its mean, and the reciprocal of its deviation."""
    del stash_type  # the operands' own precision is higher
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)
    result = (x - mean) * inverse * scale
    return result if b is None else result + b, mean, inverse


def rms_normalization(
    x: Array, scale: Array, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> tuple[Array, Array]:
    """An RMS norm over the last axes, and the reciprocal of its root."""
    del stash_type
    axes = tuple(range(axis % x.ndim, x.ndim))
    inverse = 1 / np.sqrt((x * x).mean(axes, keepdims=True) + epsilon)
    return x * inverse * scale, inverse


def group_norm(
    x: Array, scale: Array, bias: Array, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Array:
    """A norm of groups of channels; weight and bias are by channel, in opset 18 by group."""
    del stash_type
    members = x.shape[1] // num_groups
    grouped = x.reshape(x.shape[0], num_groups, members, *x.shape[2:])
    normed = _standardised(grouped, tuple(range(2, grouped.ndim)), epsilon)
    repeats = members if scale.shape[0] == num_groups != x.shape[1] else 1
    by_channel = [np.repeat(a, repeats).reshape(-1, *[1] * (x.ndim - 2)) for a in (scale, bias)]
    result: Array = normed.reshape(x.shape) * by_channel[0] + by_channel[1]
    return result


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    mean = x.mean(axes, keepdims=True)
    result: Array = (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + epsilon)
    return result
