# ruff: noqa: PLR0913, PLR0917  operands and attributes are those of the operators
"""ONNX Runtime's attention operators, as functions for onnx's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphclone.formats.onnx.evaluator.own import Array, Function

_FILTER = -10000.0
"""What is added to the score of a masked key unless the node says otherwise."""


def softmax(x: Array) -> Array:
    """A softmax over the last axis."""
    exponents = np.exp(x - x.max(-1, keepdims=True))
    weights: Array = exponents / exponents.sum(-1, keepdims=True)
    return weights


def _split(x: Array, heads: int) -> Array:
    """``b s (h d) -> b h s d``"""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _merged(x: Array) -> Array:
    """``b h s d -> b s (h d)``"""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def _attend(
    q: Array, k: Array, v: Array, scale: float, biases: Sequence[Array | None], *, causal: bool = False
) -> tuple[Array, Array]:
    """The values ``b h q d`` each query sees, and the attention ``b h q k`` it pays; keys of the past come first."""
    scores = scale * (q @ np.swapaxes(k, -1, -2))
    for bias in biases:
        scores = scores if bias is None else scores + bias
    if causal:
        scores = np.where(_earlier(q.shape[2], k.shape[2]), scores, np.finfo(np.float32).min)
    paid = softmax(scores)
    return paid @ v, paid


def _earlier(queries: int, keys: int) -> Array:
    """Whether each query comes after each key, or with it: ``queries keys``."""
    return np.arange(keys) <= np.arange(queries)[:, None] + keys - queries


def _masked(mask: Array | None, batch: int, keys: int, fill: float) -> Array | None:
    """What a mask of any of its shapes adds to the scores ``b h q k``, in a shape that broadcasts to theirs."""
    if mask is None:
        return None
    positions = np.arange(keys)
    if mask.ndim == 1 and len(mask) in (batch, 2 * batch):
        start = mask[batch:, None] if len(mask) > batch else 0
        seen = (positions < mask[:batch, None]) & (positions >= start)
        return _additive(seen[:, None, None], fill)
    if mask.ndim == 2:
        return _additive(mask[:, None, None] > 0, fill)
    if mask.ndim == 3:
        return _additive(mask[:, None] > 0, fill)
    raise NotImplementedError(f"a mask of shape {mask.shape}")


def _additive(seen: Array, fill: float) -> Array:
    return np.where(seen, 0.0, fill)


def attention(
    x: Array,
    weights: Array,
    bias: Array | None = None,
    mask_index: Array | None = None,
    past: Array | None = None,
    attention_bias: Array | None = None,
    past_sequence_length: Array | None = None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] | None = None,
    scale: float = 0.0,
    unidirectional: int = 0,
    mask_filter_value: float = _FILTER,
    do_rotary: int = 0,
    past_present_share_buffer: int = 0,
    rotary_embedding_dim: int = 0,
) -> tuple[Array, Array]:
    """``Attention`` on ``b s d``: queries, keys and values come of one product with weights side by side."""
    if do_rotary or past_present_share_buffer or past_sequence_length is not None or rotary_embedding_dim:
        raise NotImplementedError("rotary embedding, or a cache of fixed size")
    sizes = qkv_hidden_sizes or [weights.shape[1] // 3] * 3
    projection = x @ weights if bias is None else x @ weights + bias
    q, k, v = (_split(part, num_heads) for part in np.split(projection, np.cumsum(sizes)[:2], axis=-1))
    if past is not None:
        k, v = np.concatenate([past[0], k], axis=2), np.concatenate([past[1], v], axis=2)
    mask = _masked(mask_index, len(x), k.shape[2], mask_filter_value)
    scale = scale or q.shape[-1] ** -0.5
    out, _ = _attend(q, k, v, scale, [mask, attention_bias], causal=bool(unidirectional))
    return _merged(out), np.stack([k, v]) if k.shape == v.shape else k


def multi_head_attention(
    query: Array,
    key: Array | None = None,
    value: Array | None = None,
    bias: Array | None = None,
    key_padding_mask: Array | None = None,
    attention_bias: Array | None = None,
    past_key: Array | None = None,
    past_value: Array | None = None,
    past_sequence_length: Array | None = None,
    cache_indirection: Array | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    mask_filter_value: float = _FILTER,
) -> tuple[Array, Array, Array, Array]:
    """``MultiHeadAttention``: queries, keys and values apart, or packed per head."""
    if past_sequence_length is not None or cache_indirection is not None:
        raise NotImplementedError("a cache of fixed size")
    q, k, v = _unpacked(query, key, value, num_heads)
    if bias is not None:
        sizes = [part.shape[1] * part.shape[3] for part in (q, k)]
        parts = np.split(bias, np.cumsum(sizes), axis=0)
        q, k, v = (
            part if key is not None and key.ndim == 4 and part is not q else part + _split(b[None, None], num_heads)
            for part, b in zip((q, k, v), parts, strict=True)
        )
    if past_key is not None and past_value is not None:
        k, v = np.concatenate([past_key, k], axis=2), np.concatenate([past_value, v], axis=2)
    mask = _masked(key_padding_mask, len(q), k.shape[2], mask_filter_value)
    scale = scale or q.shape[-1] ** -0.5
    out, paid = _attend(q, k, v, scale, [mask, attention_bias], causal=bool(unidirectional))
    return _merged(out), k, v, paid


def _unpacked(query: Array, key: Array | None, value: Array | None, heads: int) -> tuple[Array, Array, Array]:
    """Queries, keys and values, each as ``b h s d``."""
    if key is None:
        q, k, v = np.moveaxis(query.transpose(0, 2, 1, 3, 4), 3, 0)
        return q, k, v
    q = _split(query, heads)
    if value is None:
        k, v = np.moveaxis(key.transpose(0, 2, 1, 3, 4), 3, 0)
        return q, k, v
    return (q, key, value) if key.ndim == 4 else (q, _split(key, heads), _split(value, heads))


def group_query_attention(
    query: Array,
    key: Array | None,
    value: Array | None,
    past_key: Array | None,
    past_value: Array | None,
    seqlens_k: Array,
    total_sequence_length: Array,
    cos_cache: Array | None = None,
    sin_cache: Array | None = None,
    position_ids: Array | None = None,
    attention_bias: Array | None = None,
    head_sink: Array | None = None,
    *others: Array | None,
    num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    softcap: float = 0.0,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
    smooth_softmax: int = -1,
    causal: int = 1,
    **options: Any,
) -> tuple[Array, Array, Array]:
    """``GroupQueryAttention``: every head of keys and values serves a group of queries; keys are cached."""
    if any(other is not None for other in others) or options.get("sliding_window_cache") or options.get("qk_output"):
        raise NotImplementedError("norms of queries, quantized caches or caches of a window")
    q, k, v = _grouped(query, key, value, num_heads, kv_num_heads)
    length, total = q.shape[2], int(total_sequence_length.reshape(-1)[0])
    ends = seqlens_k.reshape(-1).astype(int) + 1
    starts = np.zeros_like(ends) if length == total else ends - length
    if do_rotary:
        assert cos_cache is not None
        assert sin_cache is not None
        places = starts[:, None] + np.arange(length) if position_ids is None else position_ids
        q, k = (_rotated(x, cos_cache[places], sin_cache[places], rotary_interleaved) for x in (q, k))
    k, v = (_cached(past, new, starts, total) for past, new in ((past_key, k), (past_value, v)))
    group = num_heads // kv_num_heads
    scores = (scale or q.shape[-1] ** -0.5) * (q @ np.swapaxes(np.repeat(k, group, 1), -1, -2))
    scores = softcap * np.tanh(scores / softcap) if softcap else scores
    if attention_bias is not None:
        missing = k.shape[2] - attention_bias.shape[-1]
        scores = scores + np.pad(attention_bias, [(0, 0)] * 3 + [(0, missing)])
    scores = _windowed(scores, starts, ends, causal, local_window_size)
    sink = np.zeros((num_heads, 1, 1)) if head_sink is None else head_sink.reshape(-1, 1, 1)
    paid = _smooth_softmax(scores, sink) if smooth_softmax == 1 or head_sink is not None else softmax(scores)
    return _merged(paid @ np.repeat(v, group, 1)), k, v


def _grouped(query: Array, key: Array | None, value: Array | None, heads: int, kv: int) -> tuple[Array, Array, Array]:
    if key is not None and value is not None:
        return _split(query, heads), _split(key, kv), _split(value, kv)
    size = query.shape[2] // (heads + 2 * kv)
    q, k, v = np.split(query, [heads * size, (heads + kv) * size], axis=2)
    return _split(q, heads), _split(k, kv), _split(v, kv)


def _cached(past: Array | None, new: Array, starts: Array, total: int) -> Array:
    """The cache with what is new at its place, which may differ between samples."""
    length = max(total, 0 if past is None else past.shape[2])
    cache = np.zeros((*new.shape[:2], length, new.shape[3]), new.dtype)
    for i, start in enumerate(starts):
        if past is not None:
            cache[i, :, :start] = past[i, :, :start]
        cache[i, :, start : start + new.shape[2]] = new[i]
    return cache


def _windowed(scores: Array, starts: Array, ends: Array, causal: int, window: int) -> Array:
    keys = np.arange(scores.shape[-1])
    places = starts[:, None] + np.arange(scores.shape[2])
    seen = keys < ends[:, None, None]
    if causal:
        seen = keys <= places[:, :, None]
    if window > 0:
        seen = seen & (keys > places[:, :, None] - window)
    return np.where(seen[:, None], scores, -np.inf)


def _smooth_softmax(scores: Array, sink: Array) -> Array:
    """A softmax with one more score, to whose attention nothing is paid out."""
    top = np.maximum(scores.max(-1, keepdims=True), sink)
    exponents = np.exp(scores - top)
    weights: Array = exponents / (exponents.sum(-1, keepdims=True) + np.exp(sink - top))
    return weights


def rotary_embedding(
    x: Array,
    position_ids: Array,
    cos_cache: Array,
    sin_cache: Array,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
) -> Array:
    """``RotaryEmbedding``: on ``b s (h d)`` or on ``b h s d``."""
    del is_packed_batching
    if scale != 1.0:
        raise NotImplementedError("a rotary embedding with a scale")
    size = x.shape[2] // num_heads if num_heads else rotary_embedding_dim or 2 * cos_cache.shape[1]
    heads = x if x.ndim == 4 else _split(x, x.shape[2] // size)
    places = position_ids
    if position_ids.size == 1:
        places = position_ids.reshape(-1)[0] + np.tile(np.arange(heads.shape[2]), (len(x), 1))
    rotated = _rotated(heads, cos_cache[places], sin_cache[places], interleaved)
    return rotated if x.ndim == 4 else _merged(rotated)


def _rotated(x: Array, cos: Array, sin: Array, interleaved: int) -> Array:
    """``b h s d``, with the cosine of every place and of every pair among the first of d."""
    count = 2 * cos.shape[-1]
    cos, sin, turned = cos[:, None], sin[:, None], x[..., :count]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else np.split(turned, 2, axis=-1)
    parts = [a * cos - b * sin, a * sin + b * cos]
    joined = np.stack(parts, -1).reshape(turned.shape) if interleaved else np.concatenate(parts, -1)
    result: Array = np.concatenate([joined, x[..., count:]], axis=-1)
    return result


ATTENTION: Mapping[str, Function] = {
    "Attention": attention,
    "MultiHeadAttention": multi_head_attention,
    "GroupQueryAttention": group_query_attention,
    "RotaryEmbedding": rotary_embedding,
}
