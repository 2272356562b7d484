"""ONNX Runtime's own operators, except attention: fused, normalising and quantized ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import partial

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction, Scaled, Summand
from graphclone.graph.ir import Value
from graphclone.rules.concat import cat
from graphclone.rules.conv import onnx_convolution, onnx_pool, pool_places, quantized_convolution
from graphclone.rules.linear import general_product
from graphclone.rules.norm import gather, onnx_layer_norm, rescale
from graphclone.rules.patterns import changed
from graphclone.rules.pointwise import elementwise
from graphclone.rules.site import Cannot, Rule, Site, refused, says, spelled, stated

_HOMOGENEOUS = ("", "Relu", "LeakyRelu")
"""Activations that pass the scale on."""

# Products


def fused_product(s: Site) -> None:
    """``alpha a b``, either transposed, or with its rows in front of the batch axes; perhaps an activation."""
    a, b = s.tensor("A"), s.tensor("B")
    rows, columns = "i" if a.rank > 1 else "", "j" if b.rank > 1 else ""
    s.states(f"{_matrices(s, 'A', rows, 'k')}, {_matrices(s, 'B', 'k', columns)} -> ... {rows} {columns}", a, b)
    alpha = s.number("alpha", 1.0)
    _reactivate(s, [], [a, b, *([s.literal("alpha", alpha)] if alpha not in (0, 1) else [])])


def _matrices(s: Site, side: str, rows: str, columns: str) -> str:
    """The axes of a stack of matrices in the order in which they lie."""
    turned, first = s.flag(f"trans{side}"), s.flag(f"transBatch{side}")
    if not rows or not columns:
        return rows + columns
    outer, inner = (columns, rows) if turned else (rows, columns)
    return f"{outer} ... {inner}" if first else f"... {outer} {inner}"


def _activate(
    s: Site, terms: Mapping[Scaled, int | Fraction], contraction: Contraction, added: Sequence[Value]
) -> None:
    """A contraction, what is added to it, and an activation, which may want all scales to be 1."""
    s.ignores(*(f"activation_{name}" for name in ("alpha", "beta", "gamma", "params")))
    if s.text("activation") in _HOMOGENEOUS:
        s.scale(s.out, terms, contraction=contraction)
        for value in added:
            s.require({s.out: 1, value: -1})
        return
    if "activation_axis" in s.node.operands or s.text("activation") == "Softmax":
        s.uniform(s.axes(s.out)[s.integer("activation_axis", -1)], "softmax")
        raise Cannot("a softmax in a product")
    s.require(terms, contraction=contraction)
    for value in added:
        s.require({value: 1})


def fused_general_product(s: Site) -> None:
    """``Gemm`` and an activation."""
    general_product(s)
    _reactivate(s, [s.maybe_tensor("C")], [s.tensor("A"), s.tensor("B")])


def fused_convolution(s: Site, *, channels_last: bool = False) -> None:
    """``Conv``, something added to it, and an activation."""
    z = s.maybe_tensor("Z")
    onnx_convolution(s, channels_last=channels_last)
    if z is not None:
        s.equal_all(s.axes(z), s.axes(s.out))
    _reactivate(s, [s.maybe_tensor("B"), z], [s.tensor("X"), s.tensor("W")])


def _reactivate(s: Site, added: Iterable[Value | None], factors: Iterable[Scaled]) -> None:
    """State the scales of a contraction anew, now with an activation."""
    contraction = next(c for c in s.facts.contractions if c.node is s.node)
    s.facts.balances.pop(s.node, None)
    _activate(s, _sum(factors), contraction, [value for value in added if value is not None])


@says("| ... i, i o, o? -> ... o")
def product_with_gelu(s: Site, pattern: str) -> None:
    x, w = s.tensor("X"), s.tensor("W")
    s.states(pattern, x, w, "bias")
    s.require(_sum([x, w]), contraction=s.contracted((x, [x.rank - 1]), (w, [0])))


def _sum(values: Iterable[Scaled]) -> dict[Scaled, int | Fraction]:
    terms: dict[Scaled, int | Fraction] = {}
    for value in values:
        terms[value] = terms.get(value, 0) + 1
    return terms


# Activations


split_gelu = stated("| ... (h + h), (h + h) -> ... h", "X", "bias")


added = stated("... + ... + ... -> ...", "X", "bias", "skip")


@says("| a.. !n.. -> a.. n..")
def biased_softmax(s: Site, pattern: str) -> None:
    """A softmax over the axes from one on. Copies share what one gets, so that these axes keep their size."""
    x, bias = s.tensor("data"), s.tensor("bias")
    s.ignores("is_inner_broadcast")
    s.states(pattern, x, a=s.integer("axis", 1), why="shared out")
    if bias.rank == x.rank:
        s.broadcast(bias)
    else:
        s.pin([*s.axes(bias), *s.axes(x)], "a bias of another rank")


# Norms


def rms_norm(s: Site) -> None:
    if len(s.node.outputs) > 1:
        raise Cannot("its deviation is read")
    onnx_layer_norm(s.renamed({"weight": "scale"}))


def skip_norm(s: Site) -> None:
    """A norm of a sum, which may be returned as well."""
    x = s.tensor("input")
    if any(result.shape != x.shape for result in s.node.outputs):
        raise Cannot("its mean and deviation are read")
    results = ", ".join(["... n"] * len(s.node.outputs))
    pattern = f"n + n? | ... ~n, ... n, n? -> {results}"
    axes = s.states(pattern, "gamma", "beta", x, "skip", "bias", why=_OVER)
    s.divides_by_mean([axes["n"]])
    _of_sum(s, ["input", "skip", "bias"], [axes["n"]])


def embedding_norm(s: Site) -> None:
    """A norm of the sum of what is looked up in up to three tables; how many positions count may be returned."""
    tables = [f"{name}_embedding" for name in ("word", "position", "segment")]
    numbers = ["input_ids", "position_ids", "segment_ids", "mask"]
    s.ignores("mask_index_type")
    results = ", ".join("b" if result.rank == 1 else "b l n" for result in s.node.outputs)
    pattern = f"n + n | !u ~n?, !v n?, !w n?, b l?, b l?, b l?, b l? -> {results}"
    axes = s.states(pattern, "gamma", "beta", *tables, *numbers, why="looked up by number, and normalised over")
    if not s.has("position_ids") or s.has("mask"):
        s.pin(axes["l"], "numbered by place")
    s.divides_by_mean([axes["n"]])
    _of_sum(s, tables, [axes["n"]])


def group_norm(s: Site) -> None:
    """A group norm of one operand or of a sum, perhaps with SiLU after it; channels first or last."""
    x, skip = s.tensor("X"), s.maybe_tensor("skip")
    image = "b ~x.. (g ~m)" if s.flag("channels_last", True) else "b (g ~m) ~x.."
    added = image if skip is None or skip.rank == x.rank else "b (g m)"
    results = ", ".join([image] * len(s.node.outputs))
    pattern = f"(g m) + (g m) | {image}, {added}?, (g m)? -> {results}"
    s.states(pattern, "gamma", "beta", x, skip, "bias", g="groups", why=_OVER)
    _of_sum(s, ["X", "skip", "bias"])
    if s.integer("activation"):
        s.require({s.out: 1})


_OVER = "normalised over"


def _of_sum(s: Site, summands: Iterable[str], over: Sequence[Axis] = ()) -> None:
    """A norm of a sum swallows its scale, as any norm does; all results but the first are that sum.

    Args:
        s: the norm.
        summands: the names of what is added.
        over: axes that may have pads, of which each summand holds its part.
    """
    first, *others = dict.fromkeys(tensor for name in summands if (tensor := s.maybe_tensor(name)) is not None)
    for other in others:
        s.require({first: 1, other: -1})
        gather(s, other, over)
    rescale(s.renamed({"eps": "epsilon"}), first, over)
    for result in s.node.outputs[1:]:
        if result.is_float:
            s.scale(result, {first: 1})
            s.sums(result, *(Summand((value,)) for value in (first, *others)))


# Quantized


def blockwise_product(s: Site) -> None:
    """A product with a matrix whose rows are cut into blocks of numbers, each with a scale.

    Whole blocks are repeated, and the scales take what this multiplies.
    """
    a, b, scales, zeros, bias = (s.maybe_tensor(name) for name in ("A", "B", "scales", "zero_points", "bias"))
    if a is None or b is None or scales is None or s.has("g_idx") or s.flag("weight_prepacked"):
        raise Cannot("a permuted or prepacked matrix")
    s.ignores("accuracy_level", "bits")
    count, size, outputs = s.count("K"), s.count("block_size"), s.axes(s.out)[-1]
    blocks = s.system.dim(-(-count // size), s.why("a part of a block") if count % size else None)
    whole = s.axes(a)[-1]
    if count % size:
        s.pin(whole, "a part of a block")
    else:
        s.equal(whole, s.system.product([blocks, s.system.dim(size, s.why("a block"))]))
    s.follow(("K",), whole)
    s.follow(("N",), outputs)
    s.equal_all(s.axes(a)[:-1], s.axes(s.out)[:-1])
    s.pin(s.axes(b)[2:], "packed")
    s.equal_all(s.axes(b)[:2], [outputs, blocks])
    _rows_of_blocks(s, scales, outputs, blocks)
    if zeros is not None:
        _zero_points(s, zeros, outputs, blocks)
    if bias is not None:
        s.equal(s.axes(bias)[0], outputs)
    if scales.rank == 2:
        contraction = s.contracted((scales, [1]))
    else:
        contraction = Contraction(s.node, (), (blocks,))
        s.facts.contractions.append(contraction)
    s.scale(s.out, {a: 1, scales: 1}, contraction=contraction)
    if bias is not None:
        s.require({s.out: 1, bias: -1})


def _rows_of_blocks(s: Site, value: Value, outputs: Axis, blocks: Axis) -> None:
    if value.rank == 1:
        s.equal(s.axes(value)[0], s.system.product([outputs, blocks]))
    else:
        s.equal_all(s.axes(value), [outputs, blocks])


def _zero_points(s: Site, zeros: Value, outputs: Axis, blocks: Axis) -> None:
    """One number per block, or several in every byte."""
    if zeros.elements == outputs.size * blocks.size:
        _rows_of_blocks(s, zeros, outputs, blocks)
        return
    if not outputs.size:
        raise Cannot("a matrix without columns")
    s.pin(blocks, "zero points packed in bytes")
    row = s.system.dim(zeros.elements // outputs.size, s.why("zero points packed in bytes"))
    _rows_of_blocks(s, zeros, outputs, row)


def blockwise_lookup(s: Site) -> None:
    """Rows of a table whose rows are cut into blocks of numbers, each with a scale."""
    data, indices, scales, zeros = (s.maybe_tensor(name) for name in ("data", "indices", "scales", "zero_points"))
    if data is None or indices is None or scales is None or data.rank != 2:
        raise Cannot("a table of this rank")
    if s.integer("gather_axis", 0) % 2 or s.integer("quantize_axis", 1) % 2 != 1:
        raise Cannot("a table that is quantized along another axis")
    s.ignores("bits")
    size, width = s.count("block_size", 128), s.axes(s.out)[-1]
    rows, blocks = s.axes(scales, 2)
    s.pin([rows, s.axes(data)[0]], "looked up by number")
    if width.size != blocks.size * size or (zeros is not None and zeros.shape != scales.shape):
        s.pin([width, blocks, s.axes(data)[1]], "blocks or zero points in parts")
    else:
        for axis in (width, s.axes(data)[1]):
            s.equal(axis, s.system.product([blocks, s.system.dim(axis.size // blocks.size, s.why("a block"))]))
    if zeros is not None:
        s.pin(s.axes(zeros)[0], "looked up by number")
        s.equal(s.axes(zeros)[1], blocks) if zeros.shape == scales.shape else s.pin(s.axes(zeros), "packed")
    s.equal_all(s.axes(indices), s.axes(s.out)[:-1])
    s.scale(s.out, {scales: 1})


@says("| ... i k, ... k j -> ... i j")
def integer_product(s: Site, pattern: str) -> None:
    """A product of integers that stand for floats, and a bias; what is summed over may grow evenly."""
    a, b, bias = s.tensor("A"), s.tensor("B"), s.maybe_tensor("bias")
    s.states(pattern, a, b)
    factors = [a] if a.is_float else []
    for name in ("a_scale", "b_scale", "a_zero_point", "b_zero_point"):
        value = s.maybe_tensor(name)
        if value is None:
            continue
        if name.startswith("a") and value.elements > 1:
            raise Cannot("one number per row")
        s.align(s.axes(value), s.axes(b)[-1:])
        factors += [value] if name.endswith("scale") else []
    contraction = s.integer_sum(s.axes(a)[-1:])
    if bias is None:
        s.scale(s.out, _sum(factors), contraction=contraction)
        return
    s.broadcast(bias)
    s.scale(s.out, {bias: 1})
    s.require({**_sum(factors), bias: -1}, contraction=contraction, mendable=a.is_float)


def quantized(*operands: str) -> Rule:
    """An elementwise function of integers, each operand with one scale and one zero point."""

    def rule(s: Site) -> None:
        values = [s.tensor(name) for name in operands]
        _single(s, operands)
        s.ignores("alpha")
        s.broadcast(*values)

    return rule


def quantized_pool(s: Site) -> None:
    """Means of windows of integers, or of all places."""
    _single(s, ["X"])
    places = s.tensor("X").rank - 2
    x, y = changed([True] * places) if s.node.op.endswith("GlobalAveragePool") else pool_places(s)
    pattern = f"| b {x} c -> b {y} c" if s.flag("channels_last") else f"| b c {x} -> b c {y}"
    s.states(pattern, "X", why="windowed")


def quantized_softmax(s: Site) -> None:
    """A softmax over one axis, or, below opset 13, over all from one on, whose results are rounded to integers."""
    _single(s, ["X"])
    if not (rank := s.tensor("X").rank):
        raise Cannot("it has no axis")
    first = s.integer("axis", -1) % rank
    last = first if s.integer("opset", 13) >= 13 else rank - 1
    names = [f"!n{axis}" if first <= axis <= last else f"a{axis}" for axis in range(rank)]
    s.states(f"| {' '.join(names)} -> {' '.join(names).replace('!', '')}", "X", why="shared out")


def quantized_concat(s: Site) -> None:
    """Side by side, in one scale."""
    inputs = s.tensor_list("inputs")
    for value in (*inputs[1::3], *inputs[2::3]):
        _one_number(value)
    _single(s, ["inputs"])
    s.node.operands["inputs"] = inputs[::3]
    try:
        cat(s.renamed({"tensors": "inputs", "dim": "axis"}))
    finally:
        s.node.operands["inputs"] = inputs
    s.facts.balances.pop(s.node, None)


def _single(s: Site, operands: Iterable[str]) -> None:
    """All operands but these hold one number."""
    for name in s.node.operands:
        value = s.maybe_tensor(name)
        if name not in operands and value is not None:
            _one_number(value)


def _one_number(value: Value) -> None:
    if value.elements != 1:
        raise Cannot("more than one scale or zero point")


def cast_by_scale(s: Site) -> None:
    """To integers or back; one scale and zero point, or one for every position of an axis."""
    x = s.tensor("x")
    s.equal_all(s.axes(x), s.axes(s.out))
    axis = s.integer("axis", 1)
    for name in s.node.operands:
        value = s.maybe_tensor(name)
        if value is not None and value is not x and value.elements > 1:
            s.equal_all(s.axes(value), [s.axes(x)[axis % x.rank]])
    scale = s.maybe_tensor("x_scale")
    if scale is not None:  # to floats
        s.scale(s.out, {scale: 1})


# Plain


def new_axis(s: Site) -> None:
    """A new axis of size 1."""
    x = s.tensor("X")
    s.ignores("axis")
    sizes = iter(s.axes(x))
    pending = [axis for axis in s.axes(s.out) if axis.size != 1]
    s.equal_all([axis for axis in sizes if axis.size != 1], pending)
    s.same_scale(s.out, x)


@says("... + ... + ...? -> ...")
def biased_dropout(s: Site, pattern: str) -> None:
    """A sum, once the model is trained."""
    if s.maybe_tensor("training_mode") is not None or len(s.node.outputs) > 1:
        raise Cannot("dropout in training mode, or its mask")
    s.ignores("ratio", "seed")
    s.states(pattern, "data", "bias", "residual")


_NO_LAYOUT = "its layout is one of ONNX Runtime's own; save the model at a lower graph_optimization_level than ALL"
_NCHWC = "Conv MaxPool AveragePool GlobalMaxPool GlobalAveragePool ReorderInput ReorderOutput Upsample"
_RANDOM_OR_TEXT = "Tokenizer BitmaskDropout BitmaskBiasDropout Unique"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys((f"com.microsoft.{name}" for name in ("FusedMatMul", "TransposeMatMul")), fused_product),
    "com.microsoft.FusedMatMulActivation": fused_product,
    "com.microsoft.FusedGemm": fused_general_product,
    "com.microsoft.FusedConv": fused_convolution,
    "com.microsoft.GemmFastGelu": product_with_gelu,
    **dict.fromkeys((f"com.microsoft.{name}Gelu" for name in ("", "Bias", "Fast", "Quick")), elementwise),
    "com.microsoft.BiasSplitGelu": split_gelu,
    "com.microsoft.BiasAdd": added,
    "com.microsoft.BiasSoftmax": biased_softmax,
    "com.microsoft.BiasDropout": biased_dropout,
    "com.microsoft.ExpandDims": new_axis,
    "onnx.SimplifiedLayerNormalization": rms_norm,
    "com.microsoft.SimplifiedLayerNormalization": rms_norm,
    "com.microsoft.SkipLayerNormalization": skip_norm,
    "com.microsoft.SkipSimplifiedLayerNormalization": skip_norm,
    "com.microsoft.EmbedLayerNormalization": embedding_norm,
    "com.microsoft.GroupNorm": group_norm,
    "com.microsoft.SkipGroupNorm": group_norm,
    "com.microsoft.MatMulNBits": blockwise_product,
    "com.microsoft.GatherBlockQuantized": blockwise_lookup,
    "com.microsoft.DynamicQuantizeMatMul": integer_product,
    "com.microsoft.MatMulIntegerToFloat": integer_product,
    "com.microsoft.QLinearAdd": quantized("A", "B"),
    "com.microsoft.QLinearMul": quantized("A", "B"),
    "com.microsoft.QLinearSigmoid": quantized("X"),
    "com.microsoft.QLinearLeakyRelu": quantized("X"),
    "com.microsoft.QLinearAveragePool": quantized_pool,
    "com.microsoft.QLinearGlobalAveragePool": quantized_pool,
    "com.microsoft.QLinearSoftmax": quantized_softmax,
    "com.microsoft.QLinearConcat": quantized_concat,
    "com.microsoft.QuantizeLinear": cast_by_scale,
    "com.microsoft.DequantizeLinear": cast_by_scale,
    "com.microsoft.Inverse": refused("the inverse of a matrix with copied rows does not exist"),
    "com.microsoft.MatMulBnb4": refused("blocks of numbers that cross the rows of the matrix"),
    "com.microsoft.QAttention": refused("sums over integers"),
    "com.microsoft.NhwcConv": partial(onnx_convolution, channels_last=True),
    "com.microsoft.NhwcFusedConv": partial(fused_convolution, channels_last=True),
    "com.microsoft.NhwcMaxPool": spelled(partial(onnx_pool, channels_last=True), X="x"),
    "com.microsoft.QLinearConv": quantized_convolution,
    **dict.fromkeys((f"com.microsoft.{name}" for name in _RANDOM_OR_TEXT.split()), refused("no layout passes it")),
    **dict.fromkeys((f"com.microsoft.nchwc.{name}" for name in _NCHWC.split()), refused(_NO_LAYOUT)),
}
