"""Normalisations: they average over axes, so copies change nothing, and they swallow the scale of their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Scaled
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site, exact, spelled


def layer_norm(s: Site) -> None:
    """Over the last axes; also RMS norm, which has no bias."""
    x = s.tensor("input")
    count = len(s["normalized_shape"])
    axes = s.axes(x)[x.rank - count :]
    for i, axis in enumerate(axes):
        s.follow(("normalized_shape", i), axis)
    s.equal_all(s.axes(x), s.axes(s.out))
    s.get("cudnn_enable")
    _normalise(s, x, axes, axes)


def batch_norm(s: Site) -> None:
    """With running statistics, which are those of the source, repeated; or, without any, with those of the batch."""
    x = s.tensor("input")
    s.get("momentum"), s.get("cudnn_enabled")
    channel = s.axes(x)[1]
    s.equal_all(s.axes(x), s.axes(s.out))
    if s.get("training", False):
        if s.has("running_mean") or s.has("running_var"):
            raise Cannot("a batch norm in training mode writes its running statistics")
        _normalise(s, x, [s.axes(x)[0], *s.axes(x)[2:]], [channel])
        return
    mean, var = s.tensor("running_mean"), s.tensor("running_var")
    s.equal(s.axes(mean)[0], channel)
    s.equal(s.axes(var)[0], channel)
    s.require({x: 1, mean: -1})
    s.require({x: 2, var: -1})
    _normalise(s, x, [], [channel])


def instance_norm(s: Site) -> None:
    """Over the axes after the channels, each sample for itself."""
    x = s.tensor("input")
    if not s.get("use_input_stats", True):
        raise Cannot("an instance norm with running statistics")
    if s.maybe_tensor("running_mean") or s.maybe_tensor("running_var"):
        raise Cannot("an instance norm with running statistics")
    s.get("momentum"), s.get("cudnn_enabled")
    s.equal_all(s.axes(x), s.axes(s.out))
    _normalise(s, x, s.axes(x)[2:], [s.axes(x)[1]])


def group_norm(s: Site) -> None:
    """Channels are groups times members; it averages over members and the axes after them."""
    _normalised_groups(s, s.tensor("input"))


def _normalised_groups(s: Site, x: Value, *, of_groups: bool = False) -> None:
    channel = s.axes(x)[1]
    groups = s.system.dim(s.integer("num_groups"))
    members = s.system.dim(channel.size // groups.size)
    s.equal(channel, s.system.product([groups, members]))
    s.follow(("num_groups",), groups)
    s.equal_all(s.axes(x), s.axes(s.out))
    s.get("cudnn_enabled")
    _normalise(s, x, [members, *s.axes(x)[2:]], [groups if of_groups else channel])


def weight_norm(s: Site) -> None:
    """``g v / |v|``, the norm over all axes of v but one; that |v| grows with its copies is balanced by scales."""
    v, g = s.tensor("v"), s.tensor("g")
    axis = s.integer("dim", 0)
    s.equal_all(s.axes(v), s.axes(s.out))
    over = list(s.axes(v))
    if axis != -1:  # which stands for the norm over all axes
        s.equal(s.axes(g)[axis], over.pop(axis))
    for other in over:
        s.uniform(other, "normed over")
    s.scale(s.out, {g: 1}, logs={other: Fraction(-1, 2) for other in over})


def onnx_layer_norm(s: Site) -> None:
    """Over the axes from one on; also RMS norm. Weight and bias are broadcast; mean and deviation are results, too."""
    x = s.tensor("X")
    start = s.axis("axis", x.rank, -1)
    s.get("stash_type")
    s.equal_all(s.axes(x), s.axes(s.out))
    _normalise(s.renamed({"eps": "epsilon", "bias": "B"}), x, s.axes(x)[start:], s.axes(x))
    for out, power in zip(s.node.outputs[1:], (1, -1), strict=False):
        s.equal_all(s.axes(x)[:start], s.axes(out)[:start])
        s.scale(out, {x: power})


def onnx_batch_norm(s: Site) -> None:
    """With the statistics of the source, repeated."""
    s.get("spatial"), s.get("consumed_inputs")
    trained = s.get("training_mode", 0) or not s.get("is_test", 1) or len(s.node.outputs) > 1
    if trained or s.get("spatial", 1) != 1:
        raise Cannot("a batch norm in training mode, or of single elements")
    names = {"input": "X", "weight": "scale", "bias": "B", "eps": "epsilon"}
    batch_norm(s.renamed({**names, "running_mean": _own(s, "mean"), "running_var": _own(s, "var")}))


def _own(s: Site, name: str) -> str:
    """What the node calls a statistic; ONNX has renamed them."""
    return f"input_{name}" if s.has(f"input_{name}") else name


def onnx_group_norm(s: Site) -> None:
    """Weight and bias are of channels, or up to opset 20 of groups."""
    x, weight = s.tensor("X"), s.tensor("scale")
    groups = s.integer("num_groups")
    s.get("stash_type")
    names = {"input": "X", "weight": "scale", "eps": "epsilon"}
    if weight.elements == x.shape[1]:  # type: ignore[index]
        group_norm(s.renamed(names))
        return
    if weight.elements != groups:
        raise Cannot("a group norm whose weight is of neither channels nor groups")
    _normalised_groups(s.renamed(names), x, of_groups=True)


def lp_norm(s: Site) -> None:
    """``x / |x|``, whose norm grows with its copies."""
    x = s.tensor("input")
    axis = s.axes(x)[s.axis("axis", x.rank, -1)]
    power = exact(1 / s.integer("p", 2))
    assert power is not None
    s.equal_all(s.axes(x), s.axes(s.out))
    s.uniform(axis, "normed over")
    s.scale(s.out, {}, logs={axis: -power})


def mean_variance_norm(s: Site) -> None:
    """Mean 0 and variance 1 over axes; what keeps it from dividing by 0 is fixed."""
    x = s.tensor("X")
    s.equal_all(s.axes(x), s.axes(s.out))
    for axis in s.get("axes", [0, 2, 3]):
        s.uniform(s.axes(x)[axis], "normalised over")
    s.require({x: 1})
    s.scale(s.out, {})


def local_response_norm(s: Site) -> None:
    """Over neighbouring channels."""
    x = s.tensor("X")
    for name in ("size", "alpha", "beta", "bias"):
        s.get(name)
    s.pin(s.axes(x)[1], "taken in order")
    s.equal_all(s.axes(x), s.axes(s.out))


def quantize(s: Site) -> None:
    """``x / scale``, rounded, and a zero point added: by tensor, or along an axis."""
    x, scale = s.tensor("x"), s.tensor("y_scale")
    for name in ("saturate", "output_dtype", "precision"):
        s.get(name)
    _quantized(s, x, scale, "y_zero_point")
    s.require({x: 1, scale: -1})
    s.scale(s.out, {})


def dequantize(s: Site) -> None:
    """``(x - zero point) scale``: what x is replicated by, the scale may be multiplied with."""
    x, scale = s.tensor("x"), s.tensor("x_scale")
    s.get("output_dtype")
    _quantized(s, x, scale, "x_zero_point")
    s.scale(s.out, {scale: 1})


def _quantized(s: Site, x: Value, scale: Value, zero: str) -> None:
    """The axes of all; with a block size, several neighbours along the axis share one scale."""
    s.equal_all(s.axes(x), s.axes(s.out))
    zero_point = s.maybe_tensor(zero)
    index, block = s.integer("axis", 1), s.integer("block_size", 0)
    for parameter in [scale] if zero_point is None else [scale, zero_point]:
        axes = s.axes(parameter)
        if block:
            at = index % x.rank
            s.pin([axes[at], s.axes(x)[at]], "scaled in blocks")
            s.equal_all([*axes[:at], *axes[at + 1 :]], [*s.axes(x)[:at], *s.axes(x)[at + 1 :]])
        elif parameter.elements == 1:
            s.pin(axes, "of the whole tensor")
        else:
            s.equal_all(axes, [s.axes(x)[index % x.rank]])


def dynamic_quantize(s: Site) -> None:
    """The scale is that of the greatest and least element; copies do not matter."""
    x = s.tensor("x")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.scale(s.node.outputs[1], {x: 1})


def _normalise(s: Site, x: Value, over: Sequence[Axis], affine: Sequence[Axis]) -> None:
    """What all have in common: averages over axes, then weight and bias along others."""
    weight, bias = s.maybe_tensor("weight"), s.maybe_tensor("bias")
    eps = s.get("eps")
    for axis in over:
        s.uniform(axis, "normalised over")
    for parameter in (weight, bias):
        if parameter is not None:
            s.align(s.axes(parameter), affine)
    if eps is None:  # a default that cannot be rescaled
        s.require({x: 1})
    elif eps:
        s.require({x: 2, s.literal("eps", eps): -1})
    terms: dict[Scaled, int] = {} if weight is None else {weight: 1}
    s.scale(s.out, terms)
    if bias is not None:
        s.require({s.out: 1, bias: -1})


RULES: Mapping[str, Rule] = {
    "aten.layer_norm.default": layer_norm,
    "aten.rms_norm.default": layer_norm,
    "aten.batch_norm.default": batch_norm,
    "aten.instance_norm.default": instance_norm,
    "aten.group_norm.default": group_norm,
    "aten._weight_norm.default": weight_norm,
    "onnx.LayerNormalization": spelled(onnx_layer_norm, weight="Scale"),
    "onnx.RMSNormalization": spelled(onnx_layer_norm, weight="scale"),
    "onnx.BatchNormalization": onnx_batch_norm,
    "onnx.InstanceNormalization": spelled(instance_norm, weight="scale", bias="B", eps="epsilon"),
    "onnx.GroupNormalization": onnx_group_norm,
    "onnx.LpNormalization": lp_norm,
    "onnx.MeanVarianceNormalization": mean_variance_norm,
    "onnx.LRN": local_response_norm,
    "onnx.QuantizeLinear": quantize,
    "onnx.DequantizeLinear": dequantize,
    "onnx.DynamicQuantizeLinear": dynamic_quantize,
}
