"""Convolutions, pooling and resampling: channels flow, windowed axes keep their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction
from graphclone.graph.ir import Value
from graphclone.rules.linear import product
from graphclone.rules.site import Cannot, Rule, Site, exact, refused, spelled


def convolution(s: Site) -> None:
    """``b (g i) ..., (g o) i ..., (g o)? -> b (g o) ...``"""
    x, w, b = s.tensor("input"), s.tensor("weight"), s.maybe_tensor("bias")
    rank = w.rank - 2
    batch = x.rank - rank - 1  # a single sample has no batch axis
    if batch not in (0, 1):
        raise Cannot("an input of this rank")
    _groups(s, s.axes(x)[batch], w, s.axes(s.out)[batch])
    contraction = s.contracted((w, [1]))
    _channels_and_windows(s, x, w, batch, [_is_windowed(s, w)] * rank)
    if b is not None:
        s.equal(s.axes(b)[0], s.axes(s.out)[batch])
    product(s, x, w, contraction, bias=b)


def _groups(s: Site, channel: Axis, w: Value, out: Axis) -> None:
    groups = s.integer("groups", 1)
    s.equal(out, s.axes(w)[0])
    if groups == 1:
        s.equal(channel, s.axes(w)[1])
        return
    group = s.system.dim(groups)
    s.equal(channel, s.system.product([group, s.axes(w)[1]]))
    s.equal(out, s.system.product([group, s.system.dim(out.size // groups)]))
    s.follow(("groups",), group)


def transposed_convolution(s: Site) -> None:
    """``b i ..., i o ..., o? -> b o ...``; the groups, if any, keep their number."""
    x, w, b = s.tensor("input"), s.tensor("weight"), s.maybe_tensor("bias")
    batch = x.rank - w.rank + 1
    groups = s.system.dim(s.integer("groups", 1), s.why("groups of a transposed convolution"))
    s.equal(s.axes(x)[batch], s.axes(w)[0])
    s.equal(s.axes(w)[0], s.system.product([groups, s.system.dim(s.axes(w)[0].size // groups.size)]))
    s.equal(s.axes(s.out)[batch], s.system.product([groups, s.axes(w)[1]]))
    contraction: Contraction = s.contracted((w, [0]))
    s.get("output_padding")
    _is_windowed(s, w)
    _channels_and_windows(s, x, w, batch, [True] * (w.rank - 2))
    if b is not None:
        s.equal(s.axes(b)[0], s.axes(s.out)[batch])
    product(s, x, w, contraction, bias=b)


def _channels_and_windows(s: Site, x: Value, w: Value, batch: int, windowed: Sequence[bool]) -> None:
    s.pin(s.axes(w)[2:], "a window")
    if batch:
        s.equal(s.axes(x)[0], s.axes(s.out)[0])
    _windows(s, s.axes(x)[batch + 1 :], s.axes(s.out)[batch + 1 :], windowed)


def _windows(s: Site, inner: Sequence[Axis], outer: Sequence[Axis], windowed: Sequence[bool]) -> None:
    for a, b, moves in zip(inner, outer, windowed, strict=True):
        if moves:
            s.pin([a, b], "windowed")
        else:
            s.equal(a, b)


def _is_windowed(s: Site, w: Value) -> bool:
    """Whether the kernel sees more than one place, or skips some."""
    stride, padding = _numbers(s.get("stride", 1)), s.get("padding", 0)
    s.get("dilation")
    kernel = (w.shape or ())[2:]
    no_padding = padding in ("valid", "same") or not any(_numbers(padding))
    return any(size != 1 for size in (*kernel, *stride)) or not no_padding


def pool(s: Site) -> None:
    """Windows over the last axes; mean and maximum pass the scale on."""
    x = s.tensor("self")
    for name in s.node.operands:
        s.get(name)
    windowed = _pooled_rank(s)
    s.pin([*s.axes(x)[-windowed:], *s.axes(s.out)[-windowed:]], "windowed")
    for out in s.node.outputs:
        s.equal_all(s.axes(out)[:-windowed], s.axes(x)[:-windowed])
        s.pin(s.axes(out)[-windowed:], "windowed")
    s.same_scale(s.out, x)


def resample(s: Site) -> None:
    """Interpolation over all axes but batch and channels."""
    x = s.tensors[0]
    for name in s.node.operands:
        s.get(name)
    s.pin([*s.axes(x)[2:], *s.axes(s.out)[2:]], "resampled")
    s.equal_all(s.axes(x)[:2], s.axes(s.out)[:2])
    s.same_scale(s.out, x)


def grid_sample(s: Site) -> None:
    """Values of the first operand at the places of the second."""
    x, grid = s.tensor("input"), s.tensor("grid")
    for name in s.node.operands:
        s.get(name)
    s.pin([*s.axes(x)[2:], *s.axes(s.out)[2:], *s.axes(grid)[1:]], "sampled by place")
    s.equal_all(s.axes(x)[:2], s.axes(s.out)[:2])
    s.equal(s.axes(x)[0], s.axes(grid)[0])
    s.require({grid: 1})
    s.scale(s.out, {x: 1})


def image_to_columns(s: Site) -> None:
    """``b c h w -> b (c k) l``"""
    x = s.tensor("self")
    for name in s.node.operands:
        s.get(name)
    _columns(s, s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x)


def columns_to_image(s: Site) -> None:
    """``b (c k) l -> b c h w``"""
    x = s.tensor("self")
    for name in s.node.operands:
        s.get(name)
    _columns(s, s.axes(s.out), s.axes(x))
    s.same_scale(s.out, x)


def _columns(s: Site, image: tuple[Axis, ...], columns: tuple[Axis, ...], rank: int = 2) -> None:
    *batch, channel = image[:-rank]
    s.pin([*image[-rank:], columns[-1]], "windowed")
    s.equal_all(batch, columns[:-2])
    window = s.system.dim(columns[-2].size // channel.size, s.why("a window"))
    s.equal(columns[-2], s.system.product([channel, window]))


def onnx_convolution(s: Site, *, channels_last: bool = False) -> None:
    """``b (g i) ..., (g o) i ..., (g o)? -> b (g o) ...``; axes on which the window stands still pass."""
    x, w, b = s.tensor("X"), s.tensor("W"), s.maybe_tensor("B")
    contraction = _onnx_convolved(s, x, w, channels_last=channels_last)
    if b is not None:
        s.equal(s.axes(b)[0], s.axes(w)[0])
    product(s, x, w, contraction, bias=b)


def _onnx_convolved(s: Site, x: Value, w: Value, *, channels_last: bool) -> Contraction:
    batch, channel, *inner = _channels_second(s.axes(x), channels_last=channels_last)
    kept, made, *outer = _channels_second(s.axes(s.out), channels_last=channels_last)
    _groups(s.renamed({"groups": "group"}), channel, w, made)
    s.pin(s.axes(w)[2:], "a window")
    s.equal(batch, kept)
    _windows(s, inner, outer, _moving(s, (w.shape or ())[2:]))
    return s.contracted((w, [1]))


def _channels_second(axes: Sequence[Axis], *, channels_last: bool) -> Sequence[Axis]:
    """``b c ...``, if need be out of ``b ... c``"""
    return [axes[0], axes[-1], *axes[1:-1]] if channels_last else axes


def _moving(s: Site, kernel: Sequence[int]) -> list[bool]:
    """For each axis whether the window sees more than one place, or skips some."""
    for name in ("kernel_shape", "dilations", "auto_pad", "ceil_mode", "count_include_pad"):
        s.get(name)
    n = len(kernel)
    strides, pads = s.get("strides", [1] * n), s.get("pads", [0] * 2 * n)
    return [place != (1, 1, 0, 0) for place in zip(kernel, strides, pads[:n], pads[n:], strict=True)]


def quantized_convolution(s: Site) -> None:
    """A convolution of integers. What it sums over keeps its size; groups and channels of the result pass."""
    x, w = s.tensor("x"), s.tensor("w")
    convolved = _onnx_convolved(s, x, w, channels_last=bool(s.get("channels_last")))
    s.pin(convolved.axes, "summed over integers")
    for name in s.node.operands:
        value = s.maybe_tensor(name)
        if value is not None and value not in (x, w):  # a number, or one for each channel of the result
            s.align(s.axes(value), s.axes(w)[:1])


def onnx_transposed_convolution(s: Site) -> None:
    """``b i ..., i o ..., o? -> b o ...``; the groups, if any, keep their number."""
    for name in ("strides", "pads", "dilations", "kernel_shape", "auto_pad", "output_shape"):
        s.get(name)
    transposed_convolution(s.renamed({"input": "X", "weight": "W", "bias": "B", "groups": "group"}))


def deformable_convolution(s: Site) -> None:
    """A convolution that takes its samples at given offsets, each perhaps with a weight."""
    x, offset, mask = s.tensor("X"), s.tensor("offset"), s.maybe_tensor("mask")
    onnx_convolution(s)
    s.pin([*s.axes(x)[2:], *s.axes(s.out)[2:]], "sampled by place")
    for value in (offset, mask):
        if value is not None:
            s.pin(s.axes(value)[1:], "sampled by place")
            s.equal(s.axes(value)[0], s.axes(x)[0])
            s.require({value: 1})
    groups = s.system.dim(s.integer("offset_group", 1), s.why("groups of offsets"))
    channel = s.axes(x)[1]
    s.equal(channel, s.system.product([groups, s.system.dim(channel.size // groups.size)]))


def onnx_pool(s: Site, *, channels_last: bool = False) -> None:
    """Windows over all axes but batch and channels; mean, norm and maximum pass the scale on."""
    x = s.tensor("X")
    if len(s.node.outputs) > 1:
        raise Cannot("positions counted over all axes")
    s.get("p"), s.get("storage_order")
    inner, outer = (_channels_second(s.axes(value), channels_last=channels_last) for value in (x, s.out))
    s.equal_all(inner[:2], outer[:2])
    _windows(s, inner[2:], outer[2:], _moving(s, s["kernel_shape"]))
    s.same_scale(s.out, x)


def global_pool(s: Site) -> None:
    """One number per channel: mean, maximum or p-norm."""
    x = s.tensor("X")
    s.equal_all(s.axes(x)[:2], s.axes(s.out)[:2])
    places, power = s.axes(x)[2:], None
    if s.node.op == "onnx.GlobalLpPool":
        power = exact(1 / s.number("p", 2))
        if power is None:
            raise Cannot("a norm of this order")
    if s.node.op != "onnx.GlobalMaxPool":
        for axis in places:
            s.uniform(axis, "pooled")
    s.scale(s.out, {x: 1}, logs=dict.fromkeys(places, power) if power else None)


def region_pool(s: Site) -> None:
    """Regions of an image, given by their corners: ``b c h w, r 4, r? -> r c y x``"""
    x, regions, batch = s.tensor("X"), s.tensor("rois"), s.maybe_tensor("batch_indices")
    _read_all(s, x, regions, *([] if batch is None else [batch]))
    s.pin([s.axes(x)[0], *s.axes(x)[2:], *s.axes(s.out)[2:], s.axes(regions)[1]], "sampled by place")
    for axis in (s.axes(s.out)[0], *([] if batch is None else s.axes(batch))):
        s.equal(s.axes(regions)[0], axis)
    s.equal(s.axes(x)[1], s.axes(s.out)[1])
    s.require({regions: 1})
    s.scale(s.out, {x: 1})


def onnx_columns_to_image(s: Site) -> None:
    """``b (c k) l -> b c ...``"""
    x = s.tensor("input")
    _read_all(s, x)
    _columns(s, s.axes(s.out), s.axes(x), s.out.rank - 2)
    s.same_scale(s.out, x)


def depth_to_space(s: Site) -> None:
    """``b (r r c) h w -> b c (h r) (w r)``, or ``b (c r r) h w`` in mode CRD"""
    _move_blocks(s, s.axes(s.tensor("input")), s.axes(s.out))


def space_to_depth(s: Site) -> None:
    """``b c (h r) (w r) -> b (r r c) h w``, or ``b (c r r) h w`` in mode CRD"""
    _move_blocks(s, s.axes(s.out), s.axes(s.tensor("input")))


def _move_blocks(s: Site, deep: Sequence[Axis], wide: Sequence[Axis]) -> None:
    ratio = s.integer("blocksize")
    s.pin([*deep[2:], *wide[2:]], "blocks of pixels are moved")
    s.equal(deep[0], wide[0])
    block = s.system.dim(ratio * ratio, s.why("blocks of pixels are moved"))
    s.equal(deep[1], s.system.product([wide[1], block] if s.get("mode", "DCR") == "CRD" else [block, wide[1]]))
    s.same_scale(s.out, s.tensor("input"))


def resize(s: Site) -> None:
    """Interpolation; axes that keep their size pass."""
    x = s.tensor("X")
    _read_all(s, x)
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(s.out), strict=True)):
        if _keeps(s, x, i):
            s.equal(a, b)
        else:
            s.pin([a, b], "resampled")
    beyond = s.get("extrapolation_value", 0)
    s.same_scale(s.out, x, *([s.literal("extrapolation_value", beyond)] if beyond else []))


def _keeps(s: Site, x: Value, axis: int) -> bool:
    """Whether an axis is not resampled. A size that says so is that of the axis, whatever it becomes."""
    if "tf_crop_and_resize" in (s.get("coordinate_transformation_mode"), s.get("mode")):
        return False
    axes = s.axis_list("axes", x.rank)
    if axis not in axes:
        return True
    at, sizes, scales = axes.index(axis), s.get("sizes"), s.get("scales")
    if isinstance(scales, list) and scales:
        return bool(scales[at] == 1)
    if not isinstance(sizes, list) or s.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    if isinstance(sizes[at], Value) or sizes[at] != s.axes(x)[axis].size or axis in x.dynamic:
        return False
    s.follow(("sizes", at), s.axes(s.out)[axis])
    return True


def affine_grid(s: Site) -> None:
    """Places in an image, linear in the matrices: ``b n m, sizes -> b ... n``"""
    theta, size = s.tensor("theta"), s["size"]
    _read_all(s, theta)
    s.pin([*s.axes(theta)[1:], *s.axes(s.out)[1:]], "places in an image")
    s.equal(s.axes(theta)[0], s.axes(s.out)[0])
    if isinstance(size, list):
        s.follow(("size", 0), s.axes(s.out)[0])
    else:
        s.pin(s.axes(s.out)[0], "a computed size")
    s.same_scale(s.out, theta)


def center_crop_or_pad(s: Site) -> None:
    """Some axes cut or padded with zeros on both sides to sizes; those that have them already pass."""
    x, shape = s.tensor("input_data"), s["shape"]
    _read_all(s, x)
    axes = s.axis_list("axes", x.rank)
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(s.out), strict=True)):
        if i not in axes:
            s.equal(a, b)
        elif isinstance(shape, list) and shape[axes.index(i)] == a.size:
            s.equal(a, b)
            s.follow(("shape", axes.index(i)), b)
        else:
            s.pin([a, b], "cut or padded")
    s.same_scale(s.out, x)


def _read_all(s: Site, *known: Value) -> None:
    """All operands are options but these; tensors among them are sizes or places."""
    for name in s.node.operands:
        s.get(name)
    for value in s.tensors:
        if value not in known:
            s.pin(s.axes(value), "sizes or places")
            s.require({value: 1})


def _pooled_rank(s: Site) -> int:
    """The number in the name of the op: avg_pool2d works on the last two axes."""
    return next(int(char) for char in s.node.op if char.isdigit())


def _numbers(operand: object) -> list[int]:
    return list(operand) if isinstance(operand, list | tuple) else [operand]  # type: ignore[list-item]


_RESAMPLERS = """
    upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""

RULES: Mapping[str, Rule] = {
    **{f"aten.conv{n}d.{overload}": convolution for n in (1, 2, 3) for overload in ("default", "padding")},
    "aten.conv_transpose1d.default": transposed_convolution,
    "aten.conv_transpose2d.input": transposed_convolution,
    "aten.conv_transpose3d.input": transposed_convolution,
    **{f"aten.{name}{n}d.default": pool
       for name in ("avg_pool", "adaptive_avg_pool", "max_pool", "adaptive_max_pool") for n in (1, 2, 3)},
    **{f"aten.max_pool{n}d_with_indices.default": pool for n in (1, 2, 3)},
    **{f"aten.{name}.{overload}": resample for name in _RESAMPLERS.split() for overload in ("vec", "default")},
    "aten.grid_sampler.default": grid_sample,
    "aten.im2col.default": image_to_columns,
    "aten.col2im.default": columns_to_image,
    "onnx.Conv": onnx_convolution,
    "onnx.ConvTranspose": onnx_transposed_convolution,
    **dict.fromkeys(("onnx.ConvInteger", "onnx.QLinearConv"), quantized_convolution),
    "onnx.DeformConv": deformable_convolution,
    **dict.fromkeys((f"onnx.{kind}Pool" for kind in ("Max", "Average", "Lp")), onnx_pool),
    **dict.fromkeys((f"onnx.Global{kind}Pool" for kind in ("Max", "Average", "Lp")), global_pool),
    **dict.fromkeys(("onnx.MaxRoiPool", "onnx.RoiAlign"), region_pool),
    "onnx.MaxUnpool": refused("positions counted over all axes"),
    "onnx.Col2Im": onnx_columns_to_image,
    "onnx.DepthToSpace": depth_to_space,
    "onnx.SpaceToDepth": space_to_depth,
    **dict.fromkeys(("onnx.Resize", "onnx.Upsample"), resize),
    "onnx.GridSample": spelled(grid_sample, input="X"),
    "onnx.AffineGrid": affine_grid,
    "onnx.CenterCropPad": center_crop_or_pad,
}  # fmt: skip
