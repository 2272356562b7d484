"""ONNX Runtime's own attention operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction, Scaled
from graphclone.graph.ir import Value
from graphclone.rules.attention import Heads
from graphclone.rules.site import Cannot, Rule, Site, refused, says


@says("| b l i, i (h d + h d + h v), (h d + h d + h v)? -> b l (h v)")
def packed_attention(s: Site, pattern: str) -> None:
    """``Attention``: one weight makes queries, keys and values."""
    x, weights, bias = s.tensor("input"), s.tensor("weights"), s.maybe_tensor("bias")
    if s.flag("do_rotary") or s.flag("past_present_share_buffer") or s.has("past_sequence_length"):
        raise Cannot("rotary embedding, or a cache of fixed size")
    s.ignores("rotary_embedding_dim")
    heads, query, value = _widths(s, weights)
    axes = s.states(pattern, x, weights, bias, h=heads, d=query, v=value)
    s.scale(s.out, {x: 1, weights: 1}, contraction=s.contracted((x, [2]), (weights, [0])))
    if bias is not None:
        s.require({s.out: 1, bias: -1})
    parts = [s.system.product([heads, width]) for width in (query, query, value)]
    for i, part in enumerate(parts if s.has("qkv_hidden_sizes") else []):
        s.follow(("qkv_hidden_sizes", i), part)
    keys = _past_and_present(s, Heads(axes["b"], heads, axes["l"], query))
    _hidden_keys(s, [axes["b"], heads, axes["l"], keys])
    _scores(s, heads, query, s.out, s.out)


def _widths(s: Site, weights: Value) -> tuple[Axis, Axis, Axis]:
    """The number of heads, and how wide a head of queries and keys is, and one of values."""
    heads = s.system.dim(s.count("num_heads"))
    s.follow(("num_heads",), heads)
    sizes = s.integers("qkv_hidden_sizes", ()) or [s.axes(weights)[1].size // 3] * 3
    if len(sizes) != 3 or sizes[0] != sizes[1]:
        raise Cannot("queries and keys of different sizes")
    query = s.system.dim(sizes[0] // heads.size)
    # Without sizes, or with a cache of both, the values are as wide as the keys in the clone as well
    alike = not s.has("qkv_hidden_sizes") or s.has("past") or len(s.node.outputs) > 1
    return heads, query, query if alike else s.system.dim(sizes[2] // heads.size)


def _past_and_present(s: Site, keys: Heads) -> Axis:
    """The length of keys and values with those of the past, which come first: ``2 b h l d``"""
    past, length = s.maybe_tensor("past"), keys.length
    if past is not None:
        length = s.system.concat([s.axes(past)[3], keys.length])
        s.equal_all([s.axes(past)[i] for i in (1, 2, 4)], [keys.batch, keys.heads, keys.width])
        s.pin(s.axes(past)[0], "keys and values")
        s.require({past: 1, s.out: -1})
    for present in s.node.outputs[1:]:
        s.equal_all(s.axes(present)[1:], [keys.batch, keys.heads, length, keys.width])
        s.pin(s.axes(present)[0], "keys and values")
        s.scale(present, {s.out: 1})
    return length


def multi_head_attention(s: Site) -> None:
    """``MultiHeadAttention``: queries, keys and values apart, or packed per head; biases are side by side."""
    if s.has("past_sequence_length") or s.has("cache_indirection"):
        raise Cannot("a cache of fixed size")
    query, key, value = s.tensor("query"), s.maybe_tensor("key"), s.maybe_tensor("value")
    heads = s.system.dim(s.count("num_heads"))
    s.follow(("num_heads",), heads)
    q = _split(s, query, heads)
    k = q if key is None else _split(s, key, heads)
    v = k if value is None else _split(s, value, heads)
    s.equal_all([k.batch, k.width, v.batch, v.length], [q.batch, q.width, q.batch, k.length])
    if value is None or value.rank == 4 or s.has("past_value"):  # ONNX Runtime wants them to be of one shape
        s.equal(v.width, k.width)
    s.equal_all(s.axes(s.out), [q.batch, q.length, s.system.product([heads, v.width])])
    s.scale(s.out, {value or key or query: 1})
    _bias(s, [(query, q), (key or query, k), (value or key or query, v)])
    keys = _caches(s, k, v, key or query, value or key or query)
    _hidden_keys(s, [q.batch, heads, q.length, keys])
    _scores(s, heads, q.width, query, key or query)


def _split(s: Site, value: Value, heads: Axis) -> Heads:
    """Heads in one axis with their width, or apart, or several values packed."""
    pattern = {3: "| b l (h d)", 4: "| b h l d", 5: "| b l h !n d"}.get(value.rank)
    if pattern is None:
        raise Cannot(f"queries, keys or values with {value.rank} axes")
    axes = s.states(pattern, value, h=heads, why="queries, keys and values")
    return Heads(axes["b"], axes["h"], axes["l"], axes["d"])


def _bias(s: Site, parts: Iterable[tuple[Value, Heads]]) -> None:
    bias = s.maybe_tensor("bias")
    if bias is None:
        return
    segments = []
    for value, axes in parts:
        segments.append(s.system.product([axes.heads, axes.width]))
        s.require({value: 1, bias: -1})
    s.equal(s.axes(bias)[0], s.system.concat(segments))


def _caches(s: Site, k: Heads, v: Heads, key: Value, value: Value) -> Axis:
    """The length of keys and values with those of the past, which come first."""
    length = k.length
    results = s.results()
    for past, axes, source, present in (("past_key", k, key, 1), ("past_value", v, value, 2)):
        cache = s.maybe_tensor(past)
        if cache is not None:
            length = s.system.concat([s.axes(cache)[2], k.length]) if past == "past_key" else length
            before = s.axes(cache)[2]
            s.equal_all(s.axes(cache), [axes.batch, axes.heads, before, axes.width])
            s.equal(s.system.concat([before, k.length]), length)
            s.require({cache: 1, source: -1})
        if present in results:
            s.equal_all(s.axes(results[present]), [axes.batch, axes.heads, length, axes.width])
            s.scale(results[present], {source: 1})
    if 3 in results:
        raise Cannot("it returns its attention weights")
    return length


def _hidden_keys(s: Site, scores: list[Axis]) -> None:
    """What hides keys: their order, or a mask; a bias of the scores is broadcast."""
    batch, _, queries, keys = scores
    s.ignores("mask_filter_value")
    s.uniform(keys, "attended to")
    if s.flag("unidirectional"):
        s.pin([queries, keys], "causal order")
    for name in ("mask_index", "key_padding_mask"):
        mask = s.maybe_tensor(name)
        if mask is not None and mask.rank in (2, 3):
            s.align(s.axes(mask), [batch, queries, keys] if mask.rank == 3 else [batch, keys])
        elif mask is not None:
            s.pin(keys, "keys are hidden by place")
            _ends(s, mask, batch)
    bias = s.maybe_tensor("attention_bias")
    if bias is not None:
        s.align(s.axes(bias), scores)
        s.require({bias: 1})


def _ends(s: Site, mask: Value, batch: Axis) -> None:
    """Where keys end for every sample, and perhaps also where they start."""
    if mask.rank == 1 and mask.elements in (batch.size, 2 * batch.size):
        both = s.system.dim(mask.elements // batch.size, s.why("ends and starts"))
        s.equal(s.axes(mask)[0], s.system.product([both, batch]))
    else:
        s.pin([batch, *s.axes(mask)], "keys are hidden by place")


def _scores(s: Site, heads: Axis, width: Axis, query: Value, key: Value) -> None:
    """The scores are those of the source: the scale takes the copies of what they sum over."""
    s.label(width, "head_dim")
    s.label(heads, "heads")
    factor = s.literal("scale", s.number("scale"))
    contraction = Contraction(s.node, (), (width,))
    s.facts.contractions.append(contraction)
    terms: dict[Scaled, int | Fraction] = {query: 2, factor: 1} if query is key else {query: 1, key: 1, factor: 1}
    s.require(terms, contraction=contraction, mendable=False)


def group_query_attention(s: Site) -> None:
    """``GroupQueryAttention``: every head of keys and values serves a group of queries; keys are cached."""
    for name in ("k_scale", "v_scale", "head_sink", "q_norm_weight", "k_norm_weight"):
        if s.has(name):
            raise Cannot(f"with a {name}")
    if s.flag("sliding_window_cache") or s.flag("qk_output") or len(s.node.outputs) > 3:
        raise Cannot("a cache of a window, or its scores are read")
    s.ignores("softcap", "local_window_size", "smooth_softmax", "causal", "qk_norm_epsilon")
    s.ignores("k_quant_type", "v_quant_type", "kv_cache_bit_width", "total_sequence_length")
    query, key, value = s.tensor("query"), s.maybe_tensor("key"), s.maybe_tensor("value")
    batch, length, hidden = s.axes(query, 3)
    kv, group = _groups(s)
    width = s.system.dim(s.axes(s.out)[2].size // s.count("num_heads"))
    every, few = s.system.product([kv, group, width]), s.system.product([kv, width])
    s.equal_all(s.axes(s.out), [batch, length, every])
    if key is None or value is None:
        s.equal(hidden, s.system.concat([every, few, few]))
    else:
        s.equal(hidden, every)
        s.equal_all(s.axes(key), [batch, s.axes(key)[1], few])
        s.equal_all(s.axes(value), s.axes(key))
        s.pin(s.axes(key)[1], "cached by place")
    s.scale(s.out, {value or query: 1})
    s.pin(length, "cached by place")
    _fixed_caches(s, [batch, kv, width], key or query, value or query)
    _rotation(s, batch, width)
    _scores(s, s.system.product([kv, group]), width, query, key or query)


def _groups(s: Site) -> tuple[Axis, Axis]:
    kv = s.system.dim(s.count("kv_num_heads"))
    group = s.system.dim(s.count("num_heads") // kv.size)
    s.follow(("kv_num_heads",), kv)
    s.follow(("num_heads",), s.system.product([kv, group]))
    return kv, group


def _fixed_caches(s: Site, axes: list[Axis], key: Value, value: Value) -> None:
    """Caches before and after, of a length of their own."""
    results = s.results()
    for past, present, source in (("past_key", 1, key), ("past_value", 2, value)):
        cache, result = s.maybe_tensor(past), results.get(present)
        for state in (cache, result):
            if state is not None:
                s.equal_all([s.axes(state)[i] for i in (0, 1, 3)], axes)
                s.pin(s.axes(state)[2], "cached by place")
        if cache is not None:
            s.require({cache: 1, source: -1})
        if result is not None:
            s.scale(result, {source: 1})
    s.equal(s.axes(s.tensor("seqlens_k"))[0], axes[0])
    bias = s.maybe_tensor("attention_bias")
    if bias is not None:
        s.pin(s.axes(bias)[1:], "by head and place")
        s.align(s.axes(bias)[:1], axes[:1])
        s.require({bias: 1})
        if bias.shape is not None and bias.shape[1] > 1:
            s.pin(axes[1], "a bias by head")
            raise Cannot("a bias by head")


def _rotation(s: Site, batch: Axis, width: Axis) -> None:
    interleaved = s.flag("rotary_interleaved")
    places = s.maybe_tensor("position_ids")
    if places is not None:
        s.pin(s.axes(places)[1], "cached by place")
        s.equal(s.axes(places)[0], batch)
    tables = [table for name in ("cos_cache", "sin_cache") if (table := s.maybe_tensor(name)) is not None]
    if not s.flag("do_rotary"):
        s.pin([axis for table in tables for axis in s.axes(table)], "not used")
        return
    for table in tables:
        _turned(s, table, width, interleaved=interleaved)


def _turned(s: Site, table: Value, width: Axis, *, interleaved: bool) -> Axis:
    """``n half``, which turns the first part of the width, in halves or in neighbours; that part."""
    half = s.axes(table)[1]
    pairs = [half, s.system.dim(2, s.why("pairs"))]
    part = s.system.product(pairs) if interleaved else s.system.concat([half, half])
    s.equal(width, s.system.concat([part, s.system.dim(width.size - 2 * half.size)]))
    s.pin(s.axes(table)[0], "looked up by number")
    s.require({table: 1})
    return part


def rotary_embedding(s: Site) -> None:
    """``RotaryEmbedding``: ``b l (h d)`` or ``b h l d``, some or all of d turned."""
    x, places = s.tensor("input"), s.tensor("position_ids")
    tables = s.tensor("cos_cache"), s.tensor("sin_cache")
    if s.number("scale", 1.0) != 1 or s.flag("is_packed_batching"):
        raise Cannot("a scale, or packed batches")
    count, rotary = s.integer("num_heads", 0), s.integer("rotary_embedding_dim", 0)
    if x.rank == 4:
        axes = s.states("| b h l d", x)
    elif count:
        axes = s.states("| b l (h d)", x, h=count)
    else:
        axes = s.states("| b l (h d)", x, d=2 * s.axes(tables[0])[1].size)
    batch, heads, length, width = (axes[name] for name in "bhld")
    if count:
        s.follow(("num_heads",), heads)
    for table in tables:
        part = _turned(s, table, width, interleaved=s.flag("interleaved"))
    if rotary:
        s.follow(("rotary_embedding_dim",), part)
    s.pin(length, "numbered by place")
    if places.elements > 1:
        s.equal_all(s.axes(places), [batch, length])
    s.equal_all(s.axes(x), s.axes(s.out))
    s.scale(s.out, {x: 1})
    s.label(heads, "heads")


_REFUSED = "a decoder's cache of fixed size"
_OTHERS = "DecoderAttention DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention PagedAttention"

RULES: Mapping[str, Rule] = {
    "com.microsoft.Attention": packed_attention,
    "com.microsoft.MultiHeadAttention": multi_head_attention,
    "com.microsoft.GroupQueryAttention": group_query_attention,
    "com.microsoft.RotaryEmbedding": rotary_embedding,
    **dict.fromkeys((f"com.microsoft.{name}" for name in _OTHERS.split()), refused(_REFUSED)),
}
