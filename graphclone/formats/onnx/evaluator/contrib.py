# ruff: noqa: PLR0913, PLR0917  operands and attributes are those of the operators
"""Operators of ONNX Runtime's own domain, as functions for onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphclone.formats.onnx.evaluator.contrib_attention import ATTENTION, softmax
from graphclone.formats.onnx.evaluator.contrib_experts import EXPERTS
from graphclone.formats.onnx.evaluator.functions import (
    gelu,
    group_norm,
    in_bytes,
    layer_normalization,
    rms_normalization,
    sigmoid,
    unpacked,
)
from graphclone.formats.onnx.evaluator.own import Array, Function, operators
from graphclone.formats.onnx.evaluator.recurrences import dynamic_lstm
from graphclone.formats.onnx.evaluator.windows import average_pool, convolution, max_pool

# Products


def fused_matmul(
    a: Array,
    b: Array,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Array:
    """A scaled product of matrices that may be transposed, or have their rows in front of the batch axes."""
    product: Array = alpha * (_turned(a, transA, transBatchA) @ _turned(b, transB, transBatchB))
    return product


def _turned(x: Array, transposed: int, batched: int) -> Array:
    if batched and x.ndim > 2:
        x = np.moveaxis(x, 0, -2)
    return np.swapaxes(x, -1, -2) if transposed and x.ndim > 1 else x


def fused_matmul_activation(
    a: Array,
    b: Array,
    *,
    activation: str,
    activation_axis: int = -1,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **options: Any,
) -> Array:
    """``FusedMatMul`` and an activation."""
    del activation_gamma
    product = fused_matmul(a, b, **options)
    if activation == "Softmax":
        return np.moveaxis(softmax(np.moveaxis(product, activation_axis, -1)), -1, activation_axis)
    return activated(product, activation, [x for x in (activation_alpha, activation_beta) if x is not None])


def fused_gemm(
    a: Array,
    b: Array,
    c: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
) -> Array:
    """``Gemm`` and an activation."""
    del activation_gamma
    total = fused_matmul(a, b, alpha=alpha, transA=transA, transB=transB)
    total = total if c is None else total + beta * c
    return activated(total, activation, [x for x in (activation_alpha, activation_beta) if x is not None])


def gemm_fast_gelu(x: Array, w: Array, bias: Array | None = None) -> Array:
    """A product, perhaps a bias, and the tanh approximation of GELU."""
    return fast_gelu(x @ w, bias)


def fused_conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    z: Array | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    **options: Any,
) -> Array:
    """A convolution, perhaps something added to it, and an activation."""
    result = convolution(x, w, b, **options)
    return activated(result if z is None else result + z, activation, activation_params)


def channels_last(function: Callable[..., Any]) -> Function:
    """A function of channels along axis 1 as one of channels along the last axis."""

    def run(x: Array, *others: Array | None, **options: Any) -> Array:
        operands = [None if a is None else np.moveaxis(a, -1, 1) if i == 2 else a for i, a in enumerate(others)]
        result = function(np.moveaxis(x, -1, 1), *operands, **options)
        return np.moveaxis(result[0] if isinstance(result, tuple) else result, 1, -1)

    return run


# Activations


def activated(x: Array, activation: str, parameters: Sequence[float] = ()) -> Array:
    """An activation by its name, with the numbers that belong to it."""
    functions: Mapping[str, Callable[..., Any]] = {
        "": lambda x: x,
        "Relu": lambda x: np.maximum(x, 0),
        "Tanh": np.tanh,
        "Sigmoid": sigmoid,
        "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
        "Clip": np.clip,
        "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
        "Elu": lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(x), x),
        "Gelu": gelu,
        "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    }
    result: Array = functions[activation](x, *parameters)
    return result


def fast_gelu(x: Array, bias: Array | None = None) -> Array:
    """The tanh approximation of GELU, after a bias."""
    return gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Array, *, alpha: float = 1.702) -> Array:
    """``x sigmoid(alpha x)``"""
    return x * sigmoid(alpha * x)


def bias_gelu(a: Array, b: Array) -> Array:
    """GELU after a bias."""
    return gelu(a + b)


def bias_split_gelu(x: Array, bias: Array) -> Array:
    """One half times the GELU of the other."""
    left, right = np.split(x + bias, 2, axis=-1)
    return left * gelu(right)


def bias_softmax(data: Array, bias: Array, *, axis: int = 1, is_inner_broadcast: int) -> Array:
    """A softmax over the axes from one on, after a bias that is broadcast to the front or in between."""
    axis %= data.ndim
    if is_inner_broadcast:
        bias = bias.reshape(*bias.shape[:1], *[1] * (axis - 1), *data.shape[axis:]) if bias.ndim < data.ndim else bias
    scores = data + bias
    return softmax(scores.reshape(*data.shape[:axis], -1)).reshape(data.shape)


# Norms


def skip_layer_norm(
    x: Array,
    skip: Array,
    gamma: Array,
    beta: Array | None = None,
    bias: Array | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[Array, ...]:
    """A norm of a sum, which is a result as well."""
    total = x + skip if bias is None else x + skip + bias
    return (*layer_normalization(total, gamma, beta, epsilon=epsilon), total)


def skip_rms_norm(
    x: Array, skip: Array, gamma: Array, bias: Array | None = None, *, epsilon: float = 1e-12
) -> tuple[Array, ...]:
    """A norm of a sum, which is a result as well, without a mean."""
    total = x + skip if bias is None else x + skip + bias
    normed, inverse = rms_normalization(total, gamma, epsilon=epsilon)
    return normed, np.zeros_like(inverse), inverse, total


def embed_layer_norm(
    input_ids: Array,
    segment_ids: Array | None,
    words: Array,
    positions: Array,
    segments: Array | None,
    gamma: Array,
    beta: Array,
    mask: Array | None = None,
    position_ids: Array | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,
) -> tuple[Array, Array, Array]:
    """A norm of the sum of looked up embeddings, and how many positions of every sample count."""
    del mask_index_type
    places = np.broadcast_to(np.arange(input_ids.shape[1]), input_ids.shape) if position_ids is None else position_ids
    total = words[input_ids] + positions[places]
    if segments is not None and segment_ids is not None:
        total = total + segments[segment_ids]
    counts = np.zeros(len(input_ids), np.int32) if mask is None else mask.sum(1).astype(np.int32)
    return layer_normalization(total, gamma, beta, epsilon=epsilon)[0], counts, total


def skip_group_norm(
    x: Array, gamma: Array, beta: Array, skip: Array, bias: Array | None = None, **options: Any
) -> tuple[Array, Array]:
    """A group norm of a sum, which is a result as well."""
    skip = skip.reshape(len(skip), *[1] * (x.ndim - 2), -1) if skip.ndim == 2 else skip
    total = x + skip if bias is None else x + skip + bias
    return contrib_group_norm(total, gamma, beta, **options), total


def contrib_group_norm(
    x: Array, gamma: Array, beta: Array, *, groups: int, activation: int, channels_last: int = 1, epsilon: float = 1e-5
) -> Array:
    """A group norm, perhaps with the channels as the last axis, perhaps with SiLU after it."""
    channels_first = np.moveaxis(x, -1, 1) if channels_last else x
    result = group_norm(channels_first, gamma, beta, num_groups=groups, epsilon=epsilon)
    result = np.moveaxis(result, 1, -1) if channels_last else result
    return result * sigmoid(result) if activation else result


# Quantized


def matmul_nbits(
    a: Array,
    b: Array,
    scales: Array,
    zero_points: Array | None = None,
    g_idx: Array | None = None,
    bias: Array | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> Array:
    """A product with a matrix whose columns are quantized in blocks."""
    del accuracy_level
    if g_idx is not None or weight_prepacked:
        raise NotImplementedError("a permuted or prepacked matrix")
    blocks = -(-K // block_size)
    numbers = unpacked(b.reshape(N, blocks, -1), bits, block_size).astype(a.dtype)
    zero: Any = float(1 << (bits - 1))
    if zero_points is not None and zero_points.dtype == np.uint8:
        zero = unpacked(zero_points.reshape(N, -1), bits, blocks)[..., None]
    elif zero_points is not None:
        zero = zero_points.reshape(N, blocks, 1)
    weight = ((numbers - zero) * scales.reshape(N, blocks, 1)).reshape(N, -1)[:, :K]
    product: Array = a @ weight.T
    return product if bias is None else product + bias


def gather_block_quantized(
    data: Array,
    indices: Array,
    scales: Array,
    zero_points: Array | None = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Array:
    """Rows of a table whose rows are quantized in blocks."""
    packed = data.dtype == np.uint8
    if packed and bits < 8:
        data = unpacked(data, bits, data.shape[-1] * 8 // bits)
    blocks = scales.shape[quantize_axis]
    zero = np.array(1 << (bits - 1) if packed else 0)
    if zero_points is not None:
        zero = unpacked(zero_points, bits, blocks) if packed and bits < 8 else zero_points
        zero = np.repeat(zero, block_size, quantize_axis).take(range(data.shape[quantize_axis]), quantize_axis)
    factors = np.repeat(scales, block_size, quantize_axis).take(range(data.shape[quantize_axis]), quantize_axis)
    return np.take((data.astype(scales.dtype) - zero) * factors, indices, gather_axis)


def integer_product(
    a: Array,
    b: Array,
    a_scale: Array,
    b_scale: Array,
    a_zero: Array | None = None,
    b_zero: Array | None = None,
    bias: Array | None = None,
) -> Array:
    """A product of integers that stand for floats."""
    left, right = (_less(x, zero) for x, zero in ((a, a_zero), (b, b_zero)))
    product: Array = (left @ right) * (a_scale * b_scale)
    return product if bias is None else product + bias


def _less(x: Array, zero: Array | None) -> Array:
    return x.astype(np.float64) - (0 if zero is None else zero.astype(np.float64))


def dynamic_product(
    a: Array, b: Array, b_scale: Array, b_zero: Array | None = None, bias: Array | None = None
) -> Array:
    """A product of a matrix that is quantized first with one that is quantized already."""
    numbers, scale, zero = in_bytes(a)
    return integer_product(numbers, b, scale, b_scale, zero, b_zero, bias).astype(a.dtype)


def quantized_gemm(
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array | None = None,
    c: Array | None = None,
    y_scale: Array | None = None,
    y_zero: Array | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Array:
    """``Gemm`` of integers that stand for floats; so may those of the result."""
    left, right = _turned(_less(a, a_zero), transA, 0), _turned(b, transB, 0)
    result = left @ _less(right, b_zero) + (0 if c is None else c)
    result = result * (alpha * a_scale * b_scale)
    return result if y_scale is None else quantize(result, y_scale, y_zero)


def quantized_convolution(
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    b: Array | None = None,
    *,
    channels_last: int = 0,
    **options: Any,
) -> Array:
    """``Conv`` of integers that stand for floats, whose channels may be the last axis."""
    channels_first = np.moveaxis(x, -1, 1) if channels_last else x
    bias = None if b is None else b.astype(np.float64)
    result = convolution(_less(channels_first, x_zero), _less(w, _along(w_zero, w.ndim, 0)), bias, **options)
    result = quantize(result * x_scale * _along(w_scale, result.ndim, 1), y_scale, y_zero)
    return np.moveaxis(result, 1, -1) if channels_last else result


def dequantize(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1) -> Array:
    """Integers as the floats they stand for."""
    zeros = None if zero is None else _along(zero, x.ndim, axis)
    scale = _along(scale, x.ndim, axis)
    floats: Array = (x.astype(np.int64) - (0 if zeros is None else zeros.astype(np.int64))) * scale
    return floats


def quantize(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1) -> Array:
    """Floats as integers that stand for them."""
    kind = np.dtype(np.uint8) if zero is None else zero.dtype
    zeros = None if zero is None else _along(zero, x.ndim, axis)
    numbers = np.rint(x / _along(scale, x.ndim, axis)) + (0 if zeros is None else zeros)
    return np.clip(numbers, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)


def _along(a: Array, rank: int, axis: int) -> Array:
    return a.reshape(-1, *[1] * (rank - 1 - axis % rank)) if a.ndim == 1 and a.size > 1 else a.reshape(())


def quantized(function: Callable[..., Any], operands: int) -> Function:
    """A function on integers that stand for floats: each operand is followed by its scale and zero point."""

    def run(*arrays: Array | None, **options: Any) -> Array:
        triples = [arrays[i : i + 3] for i in range(0, 3 * operands, 3)]
        floats = [dequantize(*triple) for triple in triples]  # type: ignore[arg-type]
        scale, zero = (*arrays[3 * operands :], None)[:2]
        zero = np.zeros((), triples[0][0].dtype) if zero is None else zero  # type: ignore[union-attr]
        return quantize(function(*floats, **options), scale, zero)  # type: ignore[arg-type]

    return run


def _pooled(pool: Callable[..., Array]) -> Callable[..., Array]:
    """A pooling of channels along axis 1, or along the last axis."""
    pool_last = channels_last(pool)

    def run(x: Array, **options: Any) -> Array:
        result: Array = (pool_last if options.pop("channels_last", 0) else pool)(x, **options)
        return result

    return run


def _mean(x: Array) -> Array:
    means: Array = x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)
    return means


def _softmax_from(x: Array, *, opset: int, axis: int = -1) -> Array:
    """A softmax over one axis, or, below opset 13, over all from one on."""
    if opset >= 13:
        return np.moveaxis(softmax(np.moveaxis(x, axis, -1)), -1, axis)
    return softmax(x.reshape(*x.shape[: axis % x.ndim], -1)).reshape(x.shape)


def _qlinear_concat(y_scale: Array, y_zero: Array, *inputs: Array, axis: int) -> Array:
    triples = [inputs[i : i + 3] for i in range(0, len(inputs), 3)]
    return quantize(np.concatenate([dequantize(*triple) for triple in triples], axis), y_scale, y_zero)


# Plain


def _bias_dropout(
    data: Array, bias: Array, residual: Array | None = None, *_: Array | None, seed: int = 0
) -> tuple[Array, Array]:
    del seed
    return data + bias + (0 if residual is None else residual), np.ones(data.shape, bool)


_CONTRIB: Mapping[str, Function] = {
    **ATTENTION,
    **EXPERTS,
    "FusedMatMul": fused_matmul,
    "TransposeMatMul": fused_matmul,
    "FusedMatMulActivation": fused_matmul_activation,
    "FusedGemm": fused_gemm,
    "GemmFastGelu": gemm_fast_gelu,
    "FusedConv": fused_conv,
    "NhwcConv": channels_last(convolution),
    "NhwcFusedConv": channels_last(fused_conv),
    "NhwcMaxPool": channels_last(max_pool),
    "Gelu": gelu,
    "BiasGelu": bias_gelu,
    "FastGelu": fast_gelu,
    "QuickGelu": quick_gelu,
    "BiasSplitGelu": bias_split_gelu,
    "BiasSoftmax": bias_softmax,
    "BiasAdd": lambda x, bias, skip: x + bias + skip,
    "BiasDropout": _bias_dropout,
    "SkipLayerNormalization": skip_layer_norm,
    "SkipSimplifiedLayerNormalization": skip_rms_norm,
    "EmbedLayerNormalization": embed_layer_norm,
    "GroupNorm": contrib_group_norm,
    "SkipGroupNorm": skip_group_norm,
    "MatMulNBits": matmul_nbits,
    "GatherBlockQuantized": gather_block_quantized,
    "MatMulIntegerToFloat": integer_product,
    "DynamicQuantizeMatMul": dynamic_product,
    "QGemm": quantized_gemm,
    "QLinearConv": quantized_convolution,
    "DynamicQuantizeLSTM": dynamic_lstm,
    "DequantizeLinear": dequantize,
    "QuantizeLinear": quantize,
    "QLinearAdd": quantized(np.add, 2),
    "QLinearMul": quantized(np.multiply, 2),
    "QLinearSigmoid": quantized(sigmoid, 1),
    "QLinearLeakyRelu": quantized(lambda x, alpha=0.01: np.where(x < 0, alpha * x, x), 1),
    "QLinearAveragePool": quantized(_pooled(average_pool), 1),
    "QLinearGlobalAveragePool": quantized(_pooled(_mean), 1),
    "QLinearSoftmax": quantized(_softmax_from, 1),
    "QLinearConcat": _qlinear_concat,
    "Inverse": np.linalg.inv,
    "ExpandDims": lambda x, axis: np.expand_dims(x, int(axis.reshape(-1)[0])),
    "Trilu": lambda x, k=None, upper=1: (np.triu if upper else np.tril)(x, 0 if k is None else int(k.item())),
}

CONTRIB = operators("com.microsoft", _CONTRIB)
