# ruff: noqa: PLR0913, PLR0917  operands and attributes are those of the operators
"""ONNX Runtime's mixtures of experts, as functions for onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphclone.formats.onnx.evaluator.contrib_attention import softmax
from graphclone.formats.onnx.evaluator.functions import gelu, sigmoid, unpacked
from graphclone.formats.onnx.evaluator.own import Array, Function

Layer = tuple[Array, Array | None]
"""Weights ``e o i`` and biases ``e o`` of all experts."""

_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: gelu(x, approximate="tanh"),
    "silu": lambda x: x * sigmoid(x),
    "identity": lambda x: x,
}


def moe(
    x: Array,
    router_probs: Array,
    fc1: Array,
    fc1_bias: Array | None,
    fc2: Array,
    fc2_bias: Array | None = None,
    fc3: Array | None = None,
    fc3_bias: Array | None = None,
    *,
    k: int = 1,
    normalize_routing_weights: int = 0,
    use_sparse_mixer: int = 0,
    **activation: Any,
) -> Array:
    """``MoE``: what is chosen is weighed by a softmax over all experts."""
    if use_sparse_mixer:
        raise NotImplementedError("a sparse mixer")
    chosen = _chosen(router_probs, k)
    weights = np.take_along_axis(softmax(router_probs), chosen, -1)
    if normalize_routing_weights:
        weights = weights / weights.sum(-1, keepdims=True)
    gate = None if fc3 is None else (fc3, fc3_bias)
    return _mixed(x, chosen, weights, (fc1, fc1_bias), (fc2, fc2_bias), gate, **activation)


def quantized_moe(
    x: Array,
    router_probs: Array,
    fc1: Array,
    fc1_scales: Array,
    fc1_bias: Array | None,
    fc2: Array,
    fc2_scales: Array,
    fc2_bias: Array | None = None,
    fc3: Array | None = None,
    fc3_scales: Array | None = None,
    fc3_bias: Array | None = None,
    fc1_zeros: Array | None = None,
    fc2_zeros: Array | None = None,
    fc3_zeros: Array | None = None,
    router_weights: Array | None = None,
    *others: Array | None,
    k: int = 1,
    normalize_routing_weights: int = 0,
    use_sparse_mixer: int = 0,
    quant_type: str = "int",
    weights_prepacked: int = -1,
    accuracy_level: int = 0,
    expert_weight_bits: int = 4,
    block_size: int = 0,
    **options: Any,
) -> Array:
    """``QMoE``: what is chosen is weighed by a softmax over what is chosen, or by weights that are given."""
    del accuracy_level
    if use_sparse_mixer or quant_type != "int" or weights_prepacked > 0 or any(a is not None for a in others):
        raise NotImplementedError("a sparse mixer, prepacked weights, or weights that are no integers")
    bits = {name: options.pop(f"{name}_expert_weight_bits", expert_weight_bits) for name in ("fc1", "fc2", "fc3")}
    first = _floats(fc1, fc1_scales, fc1_zeros, bits["fc1"], block_size), fc1_bias
    second = _floats(fc2, fc2_scales, fc2_zeros, bits["fc2"], block_size), fc2_bias
    gate = None
    if fc3 is not None and fc3_scales is not None:
        gate = _floats(fc3, fc3_scales, fc3_zeros, bits["fc3"], block_size), fc3_bias
    chosen = _chosen(router_probs, k)
    if router_weights is None:
        weights = softmax(np.take_along_axis(router_probs, chosen, -1))
    else:
        weights = np.take_along_axis(router_weights, chosen, -1)
        weights = weights / weights.sum(-1, keepdims=True) if normalize_routing_weights else weights
    return _mixed(x, chosen, weights, first, second, gate, **options)


def _floats(packed: Array, scales: Array, zeros: Array | None, bits: int, block_size: int) -> Array:
    """The weights ``e o i`` that numbers of few bits stand for."""
    numbers = unpacked(packed, bits, packed.shape[-1] * 8 // bits)
    zero = np.array(1 << (bits - 1)) if zeros is None else unpacked(zeros, bits, scales.shape[-1])
    if not block_size:
        scales, zero = scales[..., None], zero[..., None]
    else:
        scales, zero = (np.repeat(a, block_size, -1) if a.ndim else a for a in (scales, zero))
    floats: Array = (numbers - zero) * scales
    return floats


def _chosen(router: Array, k: int) -> Array:
    """The experts ``token k`` of every token, the likeliest first, of equals the last."""
    return np.argsort(router, axis=-1, kind="stable")[:, ::-1][:, :k]


def _mixed(
    x: Array, chosen: Array, weights: Array, first: Layer, second: Layer, gate: Layer | None, **activation: Any
) -> Array:
    """The weighed sum, in the shape of ``x``, of what the experts ``token k`` make of every token."""
    rows = x.reshape(-1, x.shape[-1])
    mixture = np.zeros_like(rows)
    for expert in range(len(first[0])):
        tokens, places = np.nonzero(chosen == expert)
        hidden = _applied(first, expert, rows[tokens])
        inner = _activated(hidden, None if gate is None else _applied(gate, expert, rows[tokens]), **activation)
        mixture[tokens] += weights[tokens, places, None] * _applied(second, expert, inner)
    return mixture.reshape(x.shape)


def _applied(layer: Layer, expert: int, x: Array) -> Array:
    weights, bias = layer
    product: Array = x @ weights[expert].T
    return product if bias is None else product + bias[expert]


def _activated(
    x: Array,
    gate: Array | None,
    *,
    activation_type: str = "relu",
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    swiglu_limit: float = np.inf,
    swiglu_fusion: int = 0,
) -> Array:
    if activation_type != "swiglu":
        result = _FUNCTIONS[activation_type](x)
        return result if gate is None else result * gate
    if swiglu_fusion == 1:
        x, gate = x[..., ::2], x[..., 1::2]
    elif swiglu_fusion == 2:
        x, gate = np.split(x, 2, axis=-1)
    assert gate is not None
    x, gate = np.minimum(x, swiglu_limit), np.clip(gate, -swiglu_limit, swiglu_limit)
    gated: Array = x * sigmoid(activation_alpha * x) * (gate + activation_beta)
    return gated


EXPERTS: Mapping[str, Function] = {"MoE": moe, "QMoE": quantized_moe}
