"""Calls of ONNX Runtime's own operators: operands, attributes, and which operands are weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from packaging.version import Version

from graphclone.runtime.arrays import Array


@dataclass(frozen=True, eq=False)
class Case:
    """A node.

    Attributes:
        op: its operator.
        inputs: its operands in order; None for one that is left out.
        attributes: by name.
        outputs: how many results are wanted, or which of them.
        weights: the places of operands that are initializers.
        rigid: the axes of its first result, of more than one place, that must keep their size; all others may grow.
        note: what is special, for the name of the test.
        domain: of the operator.
        kernel: whether ONNX Runtime runs it on a CPU.
    """

    op: str
    inputs: tuple[Array | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[bool, ...] = (True,)
    weights: tuple[int, ...] = ()
    rigid: tuple[int, ...] = ()
    note: str = ""
    domain: str = "com.microsoft"
    kernel: bool = True

    def __str__(self) -> str:
        return f"{self.op} {self.note}".strip()


RNG = np.random.default_rng(0)


def f(*shape: int) -> Array:
    """Random floats."""
    return RNG.standard_normal(shape).astype(np.float32)


def i(high: int, *shape: int, dtype: Any = np.int64) -> Array:
    """Random integers."""
    return RNG.integers(0, high, shape).astype(dtype)


def u8(*shape: int) -> Array:
    """Random bytes."""
    return i(256, *shape, dtype=np.uint8)


def s(value: float, dtype: Any = np.float32) -> Array:
    """A scalar."""
    return np.array(value, dtype)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from products()
    yield from activations()
    yield from norms()
    yield from attentions()
    yield from grouped()
    yield from quantized()
    yield from integer_sums()
    yield from channels_last()
    yield from recurrences()
    yield from experts()
    yield from quantized_experts()


def products() -> Iterator[Case]:
    yield Case("FusedMatMul", (f(2, 3, 4), f(4, 6)), {"alpha": 0.3}, weights=(1,))
    yield Case("FusedMatMul", (f(2, 4, 3), f(2, 6, 4)), {"transA": 1, "transB": 1}, note="transposed")
    yield Case("FusedMatMul", (f(3, 2, 4), f(4, 2, 6)), {"transBatchA": 1, "transBatchB": 1}, note="batched")
    yield Case("FusedMatMul", (f(3, 2, 5, 4), f(2, 5, 4, 6)), {"transBatchA": 1}, note="batched left")
    yield Case("FusedMatMul", (f(4, 2, 3), f(2, 4, 6)), {"transA": 1, "transBatchA": 1}, note="batched transposed")
    yield Case("FusedMatMul", (f(2, 4), f(6, 4)), {"transB": 1}, weights=(1,), note="matrices")
    yield Case("FusedGemm", (f(2, 4), f(6, 4), f(6)), {"transB": 1, "activation": "Relu"}, weights=(1, 2))
    yield Case(
        "FusedGemm", (f(4, 2), f(4, 6)), {"transA": 1, "alpha": 0.5, "activation": "Tanh"}, weights=(1,), note="tanh"
    )
    yield Case("FusedGemm", (f(2, 4), f(4, 6)), {"activation": "Sigmoid"}, note="sigmoid of activations")
    leaky = {"activation": "LeakyRelu", "activation_alpha": 0.2, "beta": 0.5}
    yield Case("FusedGemm", (f(2, 4), f(4, 6), f(6)), leaky, weights=(1, 2), note="leaky")
    yield Case(
        "FusedConv",
        (f(1, 4, 7, 7), f(6, 4, 3, 3), f(6)),
        {"activation": "Relu", "pads": [1] * 4},
        weights=(1, 2),
        rigid=(2, 3),
    )
    relu = {"activation": "Relu", "pads": [1] * 4, "strides": [2, 2], "group": 2}
    yield Case(
        "FusedConv",
        (f(1, 4, 7, 7), f(6, 2, 3, 3), f(6), f(1, 6, 4, 4)),
        relu,
        weights=(1, 2),
        note="sum groups",
        rigid=(2, 3),
    )
    clip = {"activation": "Clip", "activation_params": [-0.5, 0.7], "auto_pad": "SAME_UPPER"}
    yield Case("FusedConv", (f(1, 4, 7, 7), f(6, 4, 3, 3)), clip, weights=(1,), note="clip", rigid=(2, 3))

    yield Case("GemmFastGelu", (f(2, 3, 4), f(4, 6), f(6)), weights=(1, 2), kernel=False)
    relu = {"activation": "Relu", "alpha": 0.4, "transB": 1}
    yield Case("FusedMatMulActivation", (f(2, 4), f(6, 4)), relu, weights=(1,), kernel=False)
    tanh = {"activation": "Tanh", "alpha": 0.4}
    yield Case("FusedMatMulActivation", (f(2, 4), f(4, 6)), tanh, weights=(1,), note="tanh", kernel=False)


def activations() -> Iterator[Case]:
    yield Case("Gelu", (f(2, 6),))
    yield Case("BiasGelu", (f(2, 3, 6), f(6)), weights=(1,))
    yield Case("FastGelu", (f(2, 6),))
    yield Case("FastGelu", (f(2, 3, 6), f(6)), weights=(1,), note="bias")
    yield Case("QuickGelu", (f(2, 6),), {"alpha": 1.3})
    yield Case(
        "BiasSoftmax",
        (f(2, 3, 5, 4), f(2, 1, 1, 4)),
        {"axis": 3, "is_inner_broadcast": 1},
        note="inner",
        kernel=False,
        rigid=(3,),
    )
    yield Case(
        "BiasSoftmax",
        (f(2, 3, 5, 4), f(1, 3, 5, 4)),
        {"axis": 3, "is_inner_broadcast": 0},
        note="outer",
        kernel=False,
        rigid=(3,),
    )

    yield Case("BiasSplitGelu", (f(2, 3, 8), f(8)), weights=(1,), kernel=False)
    yield Case("BiasAdd", (f(2, 3, 6), f(6), f(2, 3, 6)), weights=(1,), kernel=False)
    yield Case("BiasDropout", (f(2, 3, 6), f(6), f(2, 3, 6)), weights=(1,), kernel=False)
    yield Case("ExpandDims", (f(2, 6), s(1, np.int32)), weights=(1,))


def norms() -> Iterator[Case]:
    yield Case(
        "SimplifiedLayerNormalization", (f(2, 3, 6), f(6)), {"axis": -1, "epsilon": 1e-3}, weights=(1,), domain=""
    )
    total = (True, False, False, True)
    skip = {"epsilon": 1e-3}
    yield Case("SkipLayerNormalization", (f(2, 3, 6), f(2, 3, 6), f(6), f(6), f(6)), skip, total, (2, 3, 4))
    yield Case("SkipLayerNormalization", (f(2, 3, 6), f(2, 3, 6), f(6)), {}, weights=(2,), note="plain")
    yield Case("SkipLayerNormalization", (f(2, 3, 6), f(3, 6), f(6), f(6)), skip, total, (1, 2, 3), note="broadcast")
    yield Case("SkipSimplifiedLayerNormalization", (f(2, 3, 6), f(2, 3, 6), f(6), f(6)), skip, total, (2, 3))
    yield Case("SkipSimplifiedLayerNormalization", (f(2, 3, 6), f(2, 3, 6), f(6)), skip, weights=(2,), note="plain")
    ids = i(9, 2, 5, dtype=np.int32), i(2, 2, 5, dtype=np.int32)
    tables = f(9, 6), f(7, 6), f(2, 6), f(6), f(6)
    embed = ("EmbedLayerNormalization", (*ids, *tables))
    yield Case(*embed, {"epsilon": 1e-3}, (True, True, True), (2, 3, 4, 5, 6), rigid=(1,))
    mask = np.ones((2, 5), np.int32)
    yield Case(embed[0], (*embed[1], mask), {}, (True, True), (2, 3, 4, 5, 6), note="mask", rigid=(1,))
    few = (ids[0], None, tables[0], tables[1], None, *tables[3:], None, i(7, 2, 5, dtype=np.int32))
    yield Case(embed[0], few, {}, (True, True), (2, 3, 5, 6), note="positions")

    image = {"groups": 2, "activation": 1, "epsilon": 1e-3}
    yield Case("GroupNorm", (f(2, 3, 5, 8), f(8), f(8)), image, weights=(1, 2), kernel=False)
    first = {"groups": 4, "activation": 0, "channels_last": 0, "epsilon": 1e-3}
    yield Case("GroupNorm", (f(2, 8, 3, 5), f(8), f(8)), first, weights=(1, 2), note="channels first", kernel=False)
    summed = (f(2, 3, 5, 8), f(8), f(8), f(2, 8), f(8))
    yield Case("SkipGroupNorm", summed, image, (True, True), (1, 2, 4), kernel=False)


def attentions() -> Iterator[Case]:
    x, w, b = f(2, 5, 6), f(6, 24), f(24)
    yield Case("Attention", (x, w, b), {"num_heads": 2}, weights=(1, 2))
    yield Case(
        "Attention", (x, w), {"num_heads": 2, "scale": 0.3}, weights=(1,), note="no bias", kernel=False
    )  # which crashes ONNX Runtime
    yield Case("Attention", (x, w, b), {"num_heads": 2, "unidirectional": 1}, weights=(1, 2), note="causal", rigid=(1,))
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    yield Case("Attention", (x, w, b, mask), {"num_heads": 2, "mask_filter_value": -50.0}, weights=(1, 2), note="mask")
    ends = np.array([3, 5], np.int32)
    yield Case("Attention", (x, w, b, ends), {"num_heads": 4}, weights=(1, 2), note="ends", rigid=(1,))
    spans = np.array([3, 5, 1, 0], np.int32)
    yield Case("Attention", (x, w, b, spans), {"num_heads": 4}, weights=(1, 2), note="spans", rigid=(1,))
    square = np.tril(np.ones((2, 5, 5), np.int32))
    bias = f(1, 2, 5, 5)
    yield Case(
        "Attention", (x, w, b, square, None, bias), {"num_heads": 2}, weights=(1, 2), note="square mask and bias"
    )
    sizes = {"num_heads": 2, "qkv_hidden_sizes": [8, 8, 12]}
    yield Case("Attention", (x, f(6, 28), f(28)), sizes, weights=(1, 2), note="sizes")
    past = (x, w, b, None, f(2, 2, 2, 3, 4))
    causal = {"num_heads": 2, "unidirectional": 1}
    yield Case("Attention", past, causal, (True, True), (1, 2), note="past", rigid=(1,))
    q, k, v, qkv = f(2, 5, 8), f(2, 7, 8), f(2, 7, 12), f(28)
    name, heads = "MultiHeadAttention", {"num_heads": 2}
    yield Case(name, (q, k, v), heads)
    yield Case(name, (q, k, v, qkv), {"num_heads": 2, "scale": 0.3}, weights=(3,), note="bias")
    padding = np.array([[1] * 5 + [0] * 2, [1] * 7], np.int32)
    yield Case(name, (q, k, v, qkv, padding, f(1, 2, 5, 7)), heads, weights=(3,), note="mask and bias")
    yield Case(name, (q, f(2, 5, 8), f(2, 5, 8)), {"num_heads": 4, "unidirectional": 1}, note="causal", rigid=(1,))
    past_kv = (q, f(2, 5, 8), f(2, 5, 8), None, None, None, f(2, 2, 3, 4), f(2, 2, 3, 4))
    yield Case(name, past_kv, heads, (True, True, True), note="past")
    yield Case(name, (q, f(2, 2, 7, 4), f(2, 2, 7, 4)), heads, note="cross")
    yield Case(name, (f(2, 5, 2, 3, 4),), heads, note="packed", kernel=False)
    yield Case(name, (q, f(2, 7, 2, 2, 4)), heads, note="packed keys", kernel=False)
    cos, sin, places = f(9, 3), f(9, 3), i(9, 2, 5)
    yield Case("RotaryEmbedding", (f(2, 5, 12), places, cos, sin), weights=(2, 3), rigid=(1,))
    yield Case(
        "RotaryEmbedding",
        (f(2, 4, 5, 6), places, cos, sin),
        {"interleaved": 1},
        weights=(2, 3),
        note="interleaved",
        rigid=(2,),
    )
    yield Case("RotaryEmbedding", (f(2, 4, 5, 6), np.array([2]), cos, sin), weights=(2, 3), note="offset", rigid=(2,))
    part = {"num_heads": 2, "rotary_embedding_dim": 6}
    yield Case("RotaryEmbedding", (f(2, 5, 16), places, cos, sin), part, weights=(2, 3), note="partial", rigid=(1,))


def grouped() -> Iterator[Case]:
    name, heads = "GroupQueryAttention", {"num_heads": 4, "kv_num_heads": 2}
    last, total = np.array([4, 4], np.int32), np.array(5, np.int32)
    q, k, v = f(2, 5, 32), f(2, 5, 16), f(2, 5, 16)
    all_three = (True, True, True)
    yield Case(name, (q, k, v, None, None, last, total), heads, all_three, rigid=(1,))
    packed = (f(2, 5, 64), None, None, None, None, last, total)
    yield Case(name, packed, {**heads, "scale": 0.3}, all_three, note="packed", rigid=(1,))
    caches = f(8, 8), f(8, 8)
    wide = (f(2, 5, 128), None, None, None, None, last, total, *caches)
    yield Case(name, wide, {**heads, "do_rotary": 1}, all_three, (7, 8), note="rotary", rigid=(1,))
    turned = {**heads, "do_rotary": 1, "rotary_interleaved": 1, "local_window_size": 3}
    apart = (f(2, 5, 64), f(2, 5, 32), f(2, 5, 32), None, None, last, total, *caches)
    yield Case(name, apart, turned, all_three, (7, 8), note="interleaved window", rigid=(1,))
    past = f(2, 2, 3, 8), f(2, 2, 3, 8)
    later = np.array([3, 3], np.int32), np.array(4, np.int32)
    step = (f(2, 1, 32), f(2, 1, 16), f(2, 1, 16), *past, *later)
    yield Case(name, step, heads, all_three, note="past")
    ahead = (f(2, 1, 64), f(2, 1, 32), f(2, 1, 32), f(2, 2, 3, 16), f(2, 2, 3, 16), *later, *caches)
    yield Case(name, ahead, {**heads, "do_rotary": 1}, all_three, (7, 8), note="past rotary")
    yield Case(
        name, (q, k, v, None, None, last, total), {**heads, "softcap": 5.0}, all_three, note="softcap", rigid=(1,)
    )


def quantized() -> Iterator[Case]:
    x = f(2, 3, 64)
    nbits = {"K": 64, "N": 6, "bits": 4, "block_size": 16}
    yield Case("MatMulNBits", (x, u8(6, 4, 8), np.abs(f(6, 4)) / 10), nbits, weights=(1, 2))
    zeros = u8(6, 2)
    full = (x, u8(6, 4, 8), np.abs(f(6, 4)) / 10, zeros, None, f(6))
    yield Case("MatMulNBits", full, nbits, weights=(1, 2, 3, 5), note="zeros and bias")
    flat = (x, u8(6, 4, 8), np.abs(f(24)) / 10, u8(12))
    yield Case("MatMulNBits", flat, nbits, weights=(1, 2, 3), note="flat scales")
    eight = {**nbits, "bits": 8}
    yield Case(
        "MatMulNBits", (x, u8(6, 4, 16), np.abs(f(6, 4)) / 100, u8(6, 4)), eight, weights=(1, 2, 3), note="8 bits"
    )
    ragged = {**nbits, "K": 56}
    yield Case("MatMulNBits", (f(2, 56), u8(6, 4, 8), np.abs(f(6, 4)) / 10), ragged, weights=(1, 2), note="ragged")
    table = {"bits": 4, "block_size": 16, "quantize_axis": 1, "gather_axis": 0}
    rows = (u8(9, 32), i(9, 2, 3), np.abs(f(9, 4)))
    yield Case("GatherBlockQuantized", rows, table, weights=(0, 2))
    yield Case("GatherBlockQuantized", (*rows, u8(9, 2)), table, weights=(0, 2, 3), note="zeros", rigid=(2,))
    b = u8(4, 6)
    yield Case("DynamicQuantizeMatMul", (f(2, 3, 4), b, s(0.02), s(120, np.uint8), f(6)), weights=(1, 2, 3, 4))
    columns = (f(2, 3, 4), b, np.abs(f(6)), u8(6))
    yield Case("DynamicQuantizeMatMul", columns, weights=(1, 2, 3), note="columns")
    ints = (u8(3, 4), b, s(0.02), s(0.03), s(100, np.uint8), s(120, np.uint8), f(6))
    yield Case("MatMulIntegerToFloat", ints, weights=(1, 3, 5, 6))
    yield Case("MatMulIntegerToFloat", ints[:4], weights=(1, 3), note="plain")
    one = (s(0.02), s(100, np.uint8))
    yield Case("QLinearAdd", (u8(2, 6), *one, u8(2, 6), *one, s(0.05), s(90, np.uint8)))
    yield Case("QLinearMul", (u8(2, 6), *one, u8(6), *one, s(0.05), s(90, np.uint8)))
    yield Case("QLinearSigmoid", (u8(2, 6), *one, s(0.004), s(0, np.uint8)))
    yield Case("QLinearLeakyRelu", (u8(2, 6), *one, s(0.05), s(90, np.uint8)), {"alpha": 0.1})
    means = (*one, s(0.013), s(90, np.uint8))
    windows = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 1]}
    for last in (0, 1):
        image, places = (u8(2, 5, 4, 6), (1, 2)) if last else (u8(2, 6, 5, 4), (2, 3))
        how = {"channels_last": last}
        note = "channels last" if last else ""
        yield Case("QLinearGlobalAveragePool", (image, *means), how, note=note)
        yield Case("QLinearAveragePool", (image, *means), {**how, **windows}, note=note, rigid=places)
    shares = (*one, s(1 / 256), s(0, np.uint8))
    yield Case("QLinearSoftmax", (u8(2, 3, 4), *shares), {"axis": 1, "opset": 13}, rigid=(1,))
    yield Case("QLinearSoftmax", (u8(2, 3, 4), *shares), {"axis": 1, "opset": 11}, note="from one on", rigid=(1, 2))
    yield Case("QLinearConcat", (s(0.05), s(90, np.uint8), u8(2, 6), *one, u8(2, 4), *one), {"axis": 1})
    yield Case("DequantizeLinear", (u8(2, 6), s(0.05), s(90, np.uint8)))
    yield Case("QuantizeLinear", (f(2, 6), s(0.05), s(90, np.uint8)))


def integer_sums() -> Iterator[Case]:
    one = (s(0.02), s(100, np.uint8))
    columns = (u8(4, 6), np.abs(f(6)), u8(6))
    yield Case("QGemm", (u8(3, 4), *one, u8(4, 6), *one), {"alpha": 0.5}, weights=(4, 5), note="to floats")
    yield Case("QGemm", (u8(4, 3), *one, *columns), {"transA": 1}, weights=(4, 5), note="columns")
    turned = (u8(3, 4), *one, u8(6, 4), np.abs(f(6)), u8(6), i(1000, 6, dtype=np.int32))
    yield Case("QGemm", turned, {"transB": 1}, weights=(3, 4, 5, 6), note="sum of integers")
    rounded = (*turned, s(0.3), s(90, np.uint8))
    yield Case("QGemm", rounded, {"transB": 1}, weights=(3, 4, 5, 6, 7, 8), note="to integers")
    kernel = (u8(6, 2, 3, 3), np.abs(f(6)) / 10, np.full(6, 120, np.uint8), s(0.3), s(90, np.uint8))
    biased = (*kernel, i(100, 6, dtype=np.int32))
    how = {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1], "channels_last": 0}
    where = tuple(range(1, 9))
    yield Case("QLinearConv", (u8(1, 4, 6, 5), *one, *biased), how, weights=where, rigid=(2, 3))
    last = {**how, "channels_last": 1}
    yield Case("QLinearConv", (u8(1, 6, 5, 4), *one, *biased), last, weights=where, note="channels last", rigid=(1, 2))
    single = (u8(1, 6, 5, 4), *one, u8(6, 4, 1, 1), *one, s(0.3), s(90, np.uint8))
    yield Case("QLinearConv", single, {"channels_last": 1}, weights=where[:-1], note="one place")


def channels_last() -> Iterator[Case]:
    x, w, b = f(1, 7, 6, 4), f(6, 2, 3, 3), f(6)
    how = {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1]}
    yield Case("NhwcConv", (x, w, b), how, weights=(1, 2), rigid=(1, 2), kernel=False)
    yield Case("NhwcConv", (x, f(6, 4, 1, 1)), weights=(1,), note="one place", kernel=False)
    relu = {**how, "activation": "Relu"}
    yield Case("NhwcFusedConv", (x, w, b, f(1, 3, 5, 6)), relu, weights=(1, 2), rigid=(1, 2), kernel=False)
    tanh = {"activation": "Tanh"}
    yield Case("NhwcFusedConv", (x, f(6, 4, 2, 1)), tanh, weights=(1,), note="tanh", rigid=(1,), kernel=False)
    pooled = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 1]}
    yield Case("NhwcMaxPool", (u8(2, 7, 6, 4),), pooled, rigid=(1, 2))


def recurrences() -> Iterator[Case]:
    def weights(directions: int, *scales: int) -> tuple[Array, ...]:
        zeros = tuple(RNG.integers(-9, 9, scales).astype(np.int8) * (len(scales) < 2) for _ in "wr")
        # Larger products than these overflow the 16 bits in which some processors add pairs of them
        w, r = (RNG.integers(-60, 60, (directions, n, 12)).astype(np.int8) for n in (4, 3))
        steps = tuple((np.abs(f(*scales)) + 1) / 200 for _ in "wr")
        return w, r, *steps, *zeros

    every = (True, True, True)
    for directions, scales, note in ((1, (1,), ""), (2, (2,), "both ways"), (1, (1, 12), "columns")):
        w, r, w_scale, r_scale, w_zero, r_zero = weights(directions, *scales)
        direction = "forward" if directions == 1 else "bidirectional"
        rest = (f(directions, 24), None, None, None, None, w_scale, w_zero, r_scale, r_zero)
        yield Case(
            "DynamicQuantizeLSTM",
            (f(5, 2, 4), w, r, *rest),
            {"hidden_size": 3, "direction": direction},
            every,
            (1, 2, 3, 8, 9, 10, 11),
            rigid=(0, 1) if directions == 2 else (0,),
            note=note,
        )
    states = (np.array([5, 5], np.int32), f(1, 2, 3), f(1, 2, 3), f(1, 9))
    w, r, w_scale, r_scale, w_zero, r_zero = weights(1, 1)
    yield Case(
        "DynamicQuantizeLSTM",
        (f(5, 2, 4), w, r, None, *states, w_scale, w_zero, r_scale, r_zero),
        {"hidden_size": 3, "input_forget": 1},
        every,
        (1, 2, 7, 8, 9, 10, 11),
        rigid=(0,),
        note="states",
    )


def experts() -> Iterator[Case]:
    x, router = f(5, 6), f(5, 4)
    two = (f(4, 8, 6), f(4, 8), f(4, 6, 8), f(4, 6))
    yield Case("MoE", (x, router, *two), {"k": 2}, weights=(2, 3, 4, 5))
    yield Case("MoE", (x, router, two[0], None, two[2]), {"activation_type": "identity"}, weights=(2, 4), note="plain")
    normed = {"k": 3, "activation_type": "gelu", "normalize_routing_weights": 1}
    yield Case("MoE", (f(2, 3, 6), f(6, 4), *two), normed, weights=(2, 3, 4, 5), note="batch")
    gated = {"k": 2, "activation_type": "swiglu"}
    limits = {"activation_alpha": 1.5, "activation_beta": 0.5, "swiglu_limit": 0.7}
    fused = (f(4, 16, 6), f(4, 16), *two[2:])
    beside = {**gated, **limits, "swiglu_fusion": 1}
    yield Case("MoE", (x, router, *fused), beside, weights=(2, 3, 4, 5), note="swiglu, interleaved")
    after = {**gated, "swiglu_fusion": 2}
    yield Case("MoE", (x, router, *fused), after, weights=(2, 3, 4, 5), note="swiglu, halves", kernel=False)
    apart = (x, router, *two, f(4, 8, 6), f(4, 8))
    yield Case("MoE", apart, gated, weights=(2, 3, 4, 5, 6, 7), note="swiglu, apart", kernel=False)


def quantized_experts() -> Iterator[Case]:
    x, router = f(5, 32), f(5, 4)
    raw = {"k": 2, "weights_prepacked": 0, "activation_type": "silu"}
    for bits in (4, 8):
        sizes = u8(4, 16, 32 * bits // 8), u8(4, 32, 16 * bits // 8)
        steps, rows = (np.abs(f(4, 16)) / 50, np.abs(f(4, 32)) / 50), (f(4, 16), f(4, 32))
        given = (x, router, sizes[0], steps[0], rows[0], sizes[1], steps[1], rows[1])
        how = {**raw, "expert_weight_bits": bits}
        weights = (2, 3, 4, 5, 6, 7)
        yield Case("QMoE", given, how, weights=weights, note=f"{bits} bits")
        zeros = (u8(4, 16 * bits // 8), u8(4, 32 * bits // 8))
        note = f"{bits} bits and zeros"
        yield Case("QMoE", (*given, None, None, None, *zeros), how, weights=(*weights, 11, 12), note=note)
        steps = (np.abs(f(4, 16, 2)) / 50, np.abs(f(4, 32, 1)) / 50)
        given = (x, router, sizes[0], steps[0], None, sizes[1], steps[1], rows[1])
        blocks = {**how, "block_size": 16}
        # With bytes ONNX Runtime rounds what it multiplies them with
        yield Case("QMoE", given, blocks, weights=(2, 3, 5, 6, 7), note=f"blocks of {bits} bits", kernel=bits == 4)
    mixing = (*given[:8], *[None] * 6, np.abs(f(5, 4)))
    yield Case("QMoE", mixing, blocks, weights=(2, 3, 5, 6, 7), note="weights of the router", kernel=False)
    if Version(onnxruntime.__version__) < Version("1.31"):  # it knows experts of one kind alone
        return
    mixed = {**raw, "fc2_expert_weight_bits": 8, "activation_type": "swiglu", "swiglu_fusion": 1}
    fused = (u8(4, 32, 16), np.abs(f(4, 32)) / 50, f(4, 32), u8(4, 32, 16), np.abs(f(4, 32)) / 50)
    yield Case("QMoE", (x, router, *fused), mixed, weights=(2, 3, 4, 5, 6), note="two kinds", kernel=False)
