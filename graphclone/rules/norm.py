"""Normalisations: they average over axes, so copies change nothing, and they swallow the scale of their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Fill
from graphclone.graph.ir import Value
from graphclone.rules.patterns import reduced
from graphclone.rules.powers import root
from graphclone.rules.site import Cannot, Rule, Site, says, spelled


@says("n..? + n..? | ... ~n.. -> ... n..")
def layer_norm(s: Site, pattern: str) -> None:
    """Also RMS norm, which has no bias."""
    s.ignores("cudnn_enable")
    axes = s.states(pattern, "weight", "bias", "input", n=len(s.sizes("normalized_shape")), why=_OVER)
    s.divides_by_mean(axes.named("n"))
    for i, axis in enumerate(axes.named("n")):
        s.follow(("normalized_shape", i), axis)
    rescale(s, s.tensor("input"), axes.named("n"))


def batch_norm(s: Site) -> None:
    """With running statistics, which are those of the source, repeated; or, without any, with those of the batch."""
    s.ignores("momentum", "cudnn_enabled")
    x = s.tensor("input")
    if s.flag("training"):
        if s.has("running_mean") or s.has("running_var"):
            raise Cannot("a batch norm in training mode writes its running statistics")
        s.states("c? + c? | ~b c ~x.. -> b c x..", "weight", "bias", x, why=_OVER)
    else:
        _by_running_statistics(s)
    rescale(s, x)


def _by_running_statistics(s: Site) -> None:
    x, mean, var = s.tensor("input"), s.tensor("running_mean"), s.tensor("running_var")
    s.states("c? + c? | b c x.., c, c -> b c x..", "weight", "bias", x, mean, var)
    s.require({x: 1, mean: -1})
    s.require({x: 2, var: -1})


def instance_norm(s: Site) -> None:
    """With the statistics of each sample, or with running ones, as a batch norm."""
    s.ignores("momentum", "cudnn_enabled")
    if not s.flag("use_input_stats", True):
        _by_running_statistics(s)
    elif s.has("running_mean") or s.has("running_var"):
        raise Cannot("an instance norm in training mode writes its running statistics")
    else:
        s.states("c? + c? | b c ~x.. -> b c x..", "weight", "bias", "input", why=_OVER)
    rescale(s, s.tensor("input"))


def group_norm(s: Site, affine: str = "(g m)") -> None:
    s.ignores("cudnn_enabled")
    pattern = f"{affine}? + {affine}? | b (g ~m) ~x.. -> b (g m) x.."
    s.states(pattern, "weight", "bias", "input", g="num_groups", why=_OVER)
    s.facts.summands.pop(s.out, None)  # a group of pads has no spread to be divided by
    rescale(s, s.tensor("input"))


def weight_norm(s: Site) -> None:
    """``g v / |v|``, the norm over all axes of v but one; that |v| grows with its copies is balanced by scales."""
    v, g = s.tensor("v"), s.tensor("g")
    if s.integer("dim", 0) == -1:  # which stands for all axes
        axes = s.states("| ~a.. -> a..", v, why="normed over")
        over = axes.named("a")
    else:
        axes = s.states("| ~a.. i ~b.., a.. i b.. -> a.. i b..", v, g, a=s.integer("dim", 0), why="normed over")
        over = (*axes.named("a"), *axes.named("b"))
    s.scale(s.out, {g: 1}, logs=dict.fromkeys(over, Fraction(-1, 2)))


@says("[n..]? + [n..]? | a.. ~n.. -> a.. n..")
def onnx_layer_norm(s: Site, pattern: str) -> None:
    """Also RMS norm. Weight and bias are broadcast; mean and deviation are results, too."""
    x = s.tensor("X")
    start = s.axis("axis", x.rank, -1)
    s.ignores("stash_type")
    axes = s.states(pattern, "weight", "B", x, a=start, why=_OVER)
    s.divides_by_mean(axes.named("n"))
    rescale(s.renamed({"eps": "epsilon"}), x, axes.named("n"))
    for out, power in zip(s.node.outputs[1:], (1, -1), strict=False):
        s.equal_all(axes.named("a"), s.axes(out)[:start])
        s.scale(out, {x: power}, averages=dict.fromkeys(axes.named("n"), Fraction(-1, 2)) if power < 0 else None)


def onnx_batch_norm(s: Site) -> None:
    """With the statistics of the source, repeated."""
    s.ignores("consumed_inputs")
    trained = s.flag("training_mode") or not s.flag("is_test", True) or len(s.node.outputs) > 1
    if trained or not s.flag("spatial", True):
        raise Cannot("a batch norm in training mode, or of single elements")
    names = {"input": "X", "weight": "scale", "bias": "B", "eps": "epsilon"}
    batch_norm(s.renamed({**names, "running_mean": _own(s, "mean"), "running_var": _own(s, "var")}))


def _own(s: Site, name: str) -> str:
    """What the node calls a statistic; ONNX has renamed them."""
    return f"input_{name}" if s.has(f"input_{name}") else name


def onnx_group_norm(s: Site) -> None:
    """Weight and bias are of channels, or up to opset 20 of groups."""
    s.ignores("stash_type")
    elements, channels = s.tensor("scale").elements, s.axes(s.tensor("X"))[1].size
    if elements not in (channels, s.integer("num_groups")):
        raise Cannot("a group norm whose weight is of neither channels nor groups")
    site = s.renamed({"input": "X", "weight": "scale", "eps": "epsilon"})
    group_norm(site, "(g m)" if elements == channels else "g")


@says("| a.. ~n b.. -> a.. n b..")
def lp_norm(s: Site, pattern: str) -> None:
    axes = s.states(pattern, "input", a=s.integer("axis", -1), why="normed over")
    s.scale(s.out, {}, logs={axes["n"]: -root(s.integer("p", 2))})


def mean_variance_norm(s: Site) -> None:
    """Its epsilon, which keeps it from dividing by 0, is fixed."""
    x = s.tensor("X")
    over = s.axis_list("axes", x.rank, (0, 2, 3))
    before, _ = reduced([axis in over for axis in range(x.rank)], "~")
    s.states(f"| {before} -> {before}", x, why=_OVER)
    s.require({x: 1})
    s.scale(s.out, {})


@says("| b !c x.. -> b c x..")
def local_response_norm(s: Site, pattern: str) -> None:
    s.ignores("size", "alpha", "beta", "bias")
    s.states(pattern, "X", why="taken in order")


def quantize(s: Site) -> None:
    """``x / scale``, rounded, and a zero point added: by tensor, or along an axis."""
    x, scale = s.tensor("x"), s.tensor("y_scale")
    s.ignores("saturate", "output_dtype", "precision")
    _quantized(s, x, scale, "y_zero_point")
    s.require({x: 1, scale: -1})
    s.scale(s.out, {})


def dequantize(s: Site) -> None:
    """``(x - zero point) scale``: what x is replicated by, the scale may be multiplied with."""
    x, scale = s.tensor("x"), s.tensor("x_scale")
    s.ignores("output_dtype")
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


@says("| ... -> ...")
def dynamic_quantize(s: Site, pattern: str) -> None:
    """The scale is that of the greatest and least element; copies do not matter."""
    x = s.tensor("x")
    s.states(pattern, x)
    for out in s.node.outputs[1:2]:
        s.scale(out, {x: 1})


_OVER = "normalised over"


def rescale(s: Site, x: Value, over: Sequence[Axis] = ()) -> None:
    """A norm swallows the scale of its input, if its epsilon follows.

    Args:
        s: the norm.
        x: its input.
        over: axes that may have pads: of the mean if it is taken off, else of 0.
    """
    averages = dict.fromkeys(over, 1)
    gather(s, x, over)
    if not s.has("eps"):  # a default that cannot be rescaled
        s.require({x: 2}, averages=averages)
    elif eps := s.number("eps"):
        s.require({x: 2, s.literal("eps", eps): -1}, averages=averages)


def gather(s: Site, x: Value, over: Sequence[Axis]) -> None:
    """Allow pads along these axes of a tensor that is normalised: of the mean if that is taken off, else of 0."""
    centred = not s.node.op.endswith(_WITHOUT_MEAN)
    s.gathers(over, x, Fill.MEAN if centred else Fill.ZERO, centred=centred)


_WITHOUT_MEAN = ("rms_norm.default", "RMSNormalization", "SimplifiedLayerNormalization")

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
