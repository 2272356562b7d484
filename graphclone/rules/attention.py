"""Fused attention."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.axes import Axis
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def scaled_dot_product_attention(s: Site) -> None:
    """``softmax(q k^T scale + mask) v``: q ``... l e``, k ``... m e``, v ``... m f``, result ``... l f``.

    The width e of q and k is contracted, and its copies go into the scale. The width f of v is another dim.
    Copies of keys share the attention of one, so the length m may be repeated if it is so evenly.
    """
    q, k, v, mask = s.tensor("query"), s.tensor("key"), s.tensor("value"), s.maybe_tensor("attn_mask")
    if s.get("dropout_p"):
        raise Cannot("dropout in training mode")
    grouped = s.get("enable_gqa", False)
    length, out = s.axes(q)[-2], s.axes(s.out)
    s.equal(s.axes(k)[-2], s.axes(v)[-2])
    s.uniform(s.axes(k)[-2], "attended to")
    contraction = s.contract(q, [q.rank - 1], k, [k.rank - 1])
    s.equal(out[-1], s.axes(v)[-1])
    s.equal(out[-2], length)
    if s.get("is_causal", False):
        s.pin([length, s.axes(k)[-2]], "causal order")
    _batch(s, q, k, v, grouped=grouped)
    if mask is not None:
        s.broadcast(mask, out=_scores(s, k))
        s.require({mask: 1})
    _label(s, q, v)
    scale = s.get("scale")
    if not isinstance(scale, int | float):
        raise Cannot("its scale is not a literal")
    # The scores themselves must be those of the source: q k scale n = 1.
    s.scale(s.out, {v: 1})
    s.require({q: 1, k: 1, s.literal("scale", scale): 1}, contraction=contraction)


def _batch(s: Site, q: Value, k: Value, v: Value, *, grouped: bool) -> None:
    """Batch axes are broadcast; with grouped queries the head axis of q is (heads of k) * (group)."""
    last = -3 if grouped else -2
    target = s.axes(s.out)[:last]
    for value in (q, k, v):
        s.align(s.axes(value)[:last], target)
    if grouped:
        kv, heads = s.axes(k)[-3], s.axes(q)[-3]
        group = s.system.dim(heads.size // kv.size)
        s.equal(kv, s.axes(v)[-3])
        s.equal(heads, s.system.product([kv, group]))
        s.equal(heads, s.axes(s.out)[-3])


def _scores(s: Site, k: Value) -> tuple[Axis, ...]:
    return (*s.axes(s.out)[:-1], s.axes(k)[-2])


def _label(s: Site, q: Value, v: Value) -> None:
    axes = s.axes(q)
    s.label(axes[-1], "head_dim")
    s.label(s.axes(v)[-1], "v_head_dim")
    if len(axes) > 3:
        s.label(axes[-3], "heads")


RULES: Mapping[str, Rule] = {
    "aten.scaled_dot_product_attention.default": scaled_dot_product_attention,
}
