"""Fused attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def scaled_dot_product_attention(s: Site) -> None:
    """``softmax(q k^T scale + mask) v``

    The width e of q and k is summed over, and its copies go into the scale, so that the scores are those of the source:
    q k scale n = 1. Copies of keys share the attention of one, so the length m may be repeated if it is so evenly.
    """
    q, k, v = s.tensor("query"), s.tensor("key"), s.tensor("value")
    if s.number("dropout_p", 0):
        raise Cannot("dropout in training mode")
    if s.flag("enable_gqa"):
        pattern = "... h m f | ... (h g) l e, ... h ~m e, [... (h g) l m]? -> ... (h g) l f"
    else:
        pattern = "... m f | ... l e, ... ~m e, [... l m]? -> ... l f"
    axes = s.states(pattern, v, q, k, "attn_mask", why="attended to")
    if s.flag("is_causal"):
        s.pin([axes["l"], axes["m"]], "causal order")
    s.label(axes["e"], "head_dim")
    s.label(axes["f"], "v_head_dim")
    if q.rank > 3:
        s.label(s.axes(q)[-3], "heads")
    contraction = s.contracted((q, [q.rank - 1]), (k, [k.rank - 1]))
    s.require({q: 1, k: 1, s.literal("scale", s.number("scale")): 1}, contraction=contraction)


class Heads(NamedTuple):
    """The axes of queries, keys or values, whichever way they come."""

    batch: Axis
    heads: Axis
    length: Axis
    width: Axis


def onnx_attention(s: Site) -> None:
    """``softmax(q k^T scale + mask) v``, with heads on an axis of their own, or all in one with their width.

    A cache is put before the keys and values, and both are returned with it.
    """
    s.ignores("softcap", "softmax_precision")
    q, k, v = (_split_heads(s, s.tensor(name), f"{'kv' if name != 'Q' else 'q'}_num_heads") for name in "QKV")
    out = _split_heads(s, s.out, "q_num_heads")
    s.equal_all([k.batch, v.batch, *out], [q.batch, q.batch, *q[:3], v.width])
    s.equal_all(k[1:3], v[1:3])
    s.equal(k.width, q.width)
    s.equal(q.heads, s.system.product([k.heads, s.system.dim(q.heads.size // k.heads.size)]))
    for axis, name in ((q.width, "head_dim"), (v.width, "v_head_dim"), (q.heads, "heads")):
        s.label(axis, name)
    results = s.results()
    total = _cached(s, s.tensor("K"), "past_key", k, results.get(1))
    s.equal(total, _cached(s, s.tensor("V"), "past_value", v, results.get(2)))
    s.uniform(total, "attended to")
    _mask(s, [q.batch, q.heads, q.length, total])
    if (scores := results.get(3)) is not None:
        s.equal_all(s.axes(scores), [q.batch, q.heads, q.length, total])
        s.scale(scores, {})
        if s.integer("qk_matmul_output_mode", 0) == 3:
            s.pin(total, "its shares are returned")
    contraction = Contraction(s.node, (), (q.width,))
    s.facts.contractions.append(contraction)
    s.scale(s.out, {s.tensor("V"): 1})
    factor = s.literal("scale", s.number("scale"))
    s.require({s.tensor("Q"): 1, s.tensor("K"): 1, factor: 1}, contraction=contraction)


def _split_heads(s: Site, value: Value, count: str) -> Heads:
    if value.rank == 4:
        axes = s.states("| b h l d", value)
        if s.integer(count, 0):
            s.follow((count,), axes["h"])
    else:
        axes = s.states("| b l (h d)", value, h=count)
    return Heads(axes["b"], axes["h"], axes["l"], axes["d"])


def _cached(s: Site, value: Value, past: str, axes: Heads, present: Value | None) -> Axis:
    """The length of a cache with new keys or values behind it."""
    cache, length = s.maybe_tensor(past), axes.length
    if cache is not None:
        length = s.system.concat([s.axes(cache)[2], axes.length])
        s.equal_all(s.axes(cache), [axes.batch, axes.heads, s.axes(cache)[2], axes.width])
        s.require({cache: 1, value: -1})
    if present is not None:
        s.equal_all(s.axes(present), [axes.batch, axes.heads, length, axes.width])
        s.scale(present, {value: 1})
    return length


def _mask(s: Site, scores: list[Axis]) -> None:
    """What hides keys: order, lengths, a window, or a mask, which may leave out the last keys."""
    mask, lengths = s.maybe_tensor("attn_mask"), s.maybe_tensor("nonpad_kv_seqlen")
    windows = [s.integer(name, -1) for name in ("left_window_size", "right_window_size")]
    if s.flag("is_causal") or lengths is not None or windows != [-1, -1]:
        s.pin(scores[2:], "keys are hidden by place")
    if lengths is not None:
        s.equal(s.axes(lengths)[0], scores[0])
    if mask is not None:
        if s.axes(mask)[-1].size not in (1, scores[-1].size):
            s.pin([s.axes(mask)[-1], scores[-1]], "keys are hidden by place")
        s.align(s.axes(mask), scores)
        s.require({mask: 1})


def rotary_embedding(s: Site) -> None:
    """Pairs of numbers turned by angles: ``b h l (r + rest)``, the pairs in ``r`` half by half, or neighbours."""
    x, cos, sin, places = s.tensor("X"), s.tensor("cos_cache"), s.tensor("sin_cache"), s.maybe_tensor("position_ids")
    split = _split_heads(s, x, "num_heads")
    count = s.integer("rotary_embedding_dim", 0) or split.width.size
    half = s.system.dim(count // 2)
    pairs = [half, s.system.dim(2, s.why("pairs"))]
    part = s.system.product(pairs) if s.flag("interleaved") else s.system.concat([half, half])
    s.equal(split.width, s.system.concat([part, s.system.dim(split.width.size - count)]))
    if s.integer("rotary_embedding_dim", 0):
        s.follow(("rotary_embedding_dim",), part)
    for table in (cos, sin):
        s.equal(s.axes(table)[-1], half)
        if places is None:
            s.align(s.axes(table)[:-1], [split.batch, split.length])
        else:
            s.pin(s.axes(table)[:-1], "looked up by number")
        s.require({table: 1})
    if places is not None:
        s.align(s.axes(places), [split.batch, split.length])
    s.equal_all(s.axes(x), s.axes(s.out))
    s.scale(s.out, {x: 1})


RULES: Mapping[str, Rule] = {
    "aten.scaled_dot_product_attention.default": scaled_dot_product_attention,
    "onnx.Attention": onnx_attention,
    "onnx.RotaryEmbedding": rotary_embedding,
}
