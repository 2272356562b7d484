"""Normalisations: they average over axes, so copies change nothing, and they swallow the scale of their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from graphclone.axes import Axis
from graphclone.facts import Scaled
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


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
    """With running statistics, which are those of the source, repeated."""
    x = s.tensor("input")
    if s.get("training", False):
        raise Cannot("a batch norm in training mode")
    mean, var = s.tensor("running_mean"), s.tensor("running_var")
    s.get("momentum"), s.get("cudnn_enabled")
    channel = s.axes(x)[1]
    s.equal_all(s.axes(x), s.axes(s.out))
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
    x = s.tensor("input")
    channel = s.axes(x)[1]
    groups = s.system.dim(s.integer("num_groups"))
    members = s.system.dim(channel.size // groups.size)
    s.equal(channel, s.system.product([groups, members]))
    s.follow(("num_groups",), groups)
    s.equal_all(s.axes(x), s.axes(s.out))
    s.get("cudnn_enabled")
    _normalise(s, x, [members, *s.axes(x)[2:]], [channel])


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


def _normalise(s: Site, x: Value, over: Sequence[Axis], affine: Sequence[Axis]) -> None:
    """What all have in common: averages over axes, then weight and bias along others."""
    weight, bias = s.maybe_tensor("weight"), s.maybe_tensor("bias")
    eps = s.get("eps")
    for axis in over:
        s.uniform(axis, "normalised over")
    for parameter in (weight, bias):
        if parameter is not None:
            s.equal_all(s.axes(parameter), affine)
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
}
