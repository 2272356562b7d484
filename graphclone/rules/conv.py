"""Convolutions, pooling and resampling: channels flow, windowed axes keep their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from graphclone.analysis.facts import Summand
from graphclone.graph.ir import Value, items_of
from graphclone.rules.linear import sum_integers
from graphclone.rules.patterns import changed
from graphclone.rules.powers import root
from graphclone.rules.site import Cannot, Rule, Site, refused, says, spelled


def convolution(s: Site) -> None:
    """A single sample has no batch axis. If windows see more than one place, no axis of places passes."""
    kernel = [axis.size for axis in s.axes(s.tensor("weight"))[2:]]
    stride, by_name = s.integers("stride", ()), isinstance(s.get("padding"), str)
    s.ignores("dilation")
    borders = not by_name and any(s.integers("padding", ()))
    moving = borders or any(size != 1 for size in (*kernel, *stride))
    _convolve(s, [moving] * len(kernel))


def _convolve(s: Site, moving: Sequence[bool], *, channels_last: bool = False) -> None:
    x, y = changed(moving)
    groups = "groups" if s.has("groups") else 1
    image, result = (f"{x} (g i)", f"{y} (g o)") if channels_last else (f"(g i) {x}", f"(g o) {y}")
    pattern = f"b.. {image}, (g o) i !w.. + (g o)? -> b.. {result}"
    s.states(pattern, "input", "weight", "bias", g=groups, why="windowed")


def transposed_convolution(s: Site) -> None:
    """The groups keep their number."""
    s.ignores("stride", "padding", "output_padding", "dilation")
    x, y = changed([True] * (s.tensor("weight").rank - 2))
    pattern = f"b.. c {x}, c o !w.. + (!g o)? -> b.. (!g o) {y}"
    axes = s.states(pattern, "input", "weight", "bias", g=s.count("groups", 1), why="windowed")
    members = s.system.dim(axes["c"].size // axes["g"].size)
    s.equal(axes["c"], s.system.product([axes["g"], members]))


@says("... !x.. -> ... !y.., ... !y..?")
def pool(s: Site, pattern: str) -> None:
    """Means and maxima of windows, the latter perhaps with their places."""
    s.ignores(*s.node.operands)
    windowed = next(int(char) for char in s.node.op if char.isdigit())  # avg_pool2d works on the last two axes
    s.states(pattern, "self", x=windowed, y=windowed, why="windowed")
    if "avg" in s.node.op:
        s.sums(s.out, Summand((s.tensor("self"),)))


@says("b c !x.. -> b c !y..")
def resample(s: Site, pattern: str) -> None:
    s.ignores(*s.node.operands)
    x = s.tensor("input" if s.has("input") else "self")
    s.states(pattern, x, why="resampled")
    s.sums(s.out, Summand((x,)))


@says("b c !x.. | b !g.. -> b c !y..")
def grid_sample(s: Site, pattern: str) -> None:
    s.ignores(*s.node.operands)
    s.states(pattern, "input", "grid", why="sampled by place")


@says("b.. c !y !x -> b.. (c !k) !l")
def image_to_columns(s: Site, pattern: str) -> None:
    s.ignores(*s.node.operands)
    s.states(pattern, "self", why="windowed")


@says("b.. (c !k) !l -> b.. c !y..")
def columns_to_image(s: Site, pattern: str) -> None:
    _read_all(s, s.tensor("self"))
    s.states(pattern, "self", why="windowed")


def onnx_convolution(s: Site, *, channels_last: bool = False) -> None:
    """Like ``convolution``, but each axis of places on which windows stand still passes."""
    _convolve(s.renamed(_ONNX_NAMES), _moving(s, s.tensor("W")), channels_last=channels_last)


_ONNX_NAMES = {"input": "X", "weight": "W", "bias": "B", "groups": "group"}


def _moving(s: Site, weight: Value | None) -> list[bool]:
    """For each axis whether the window sees more than one place, or skips some; it is that of a weight, or stated."""
    kernel = s.integers("kernel_shape") if weight is None else [axis.size for axis in s.axes(weight)[2:]]
    s.ignores("kernel_shape", "dilations", "auto_pad", "ceil_mode", "count_include_pad")
    n = len(kernel)
    strides, pads = s.integers("strides", [1] * n), s.integers("pads", [0] * 2 * n)
    if len(strides) != n or len(pads) != 2 * n:
        raise Cannot("strides or borders of more or fewer axes than its window")
    return [place != (1, 1, 0, 0) for place in zip(kernel, strides, pads[:n], pads[n:], strict=True)]


def quantized_convolution(s: Site) -> None:
    """Integers may be added to the sum, and every channel may have a scale and a zero point of its own."""
    w, bias = s.tensor("w"), s.maybe_tensor("B")
    x, y = changed(_moving(s, w))
    last = s.flag("channels_last")
    image, result = (f"{x} (g i)", f"{y} (g o)") if last else (f"(g i) {x}", f"(g o) {y}")
    pattern = f"| b {image}, (g o) i !w.. -> b {result}"
    axes = s.states(pattern, "x", w, g="group" if s.has("group") else 1, why="windowed")
    for name in s.node.operands:
        value = s.maybe_tensor(name)
        if value is not None and value not in (s.tensor("x"), w):
            s.align(s.axes(value), s.axes(w)[:1])
    places = prod(axis.size for axis in s.axes(w)[2:])
    sum_integers(s, [axes["i"]], places, scales={"w_scale": 1, "x_scale": 1, "y_scale": -1}, added=bias)


def onnx_transposed_convolution(s: Site) -> None:
    s.ignores("strides", "pads", "dilations", "kernel_shape", "auto_pad", "output_shape")
    transposed_convolution(s.renamed(_ONNX_NAMES))


@says("| b (!g c) !x.., b !o.., b !m..? -> b d !y..")
def deformable_convolution(s: Site, pattern: str) -> None:
    """A convolution that takes its samples at given offsets, each perhaps with a weight."""
    onnx_convolution(s)
    groups = s.integer("offset_group", 1)
    s.states(pattern, "X", "offset", "mask", g=groups, why="sampled by place")


def onnx_pool(s: Site, *, channels_last: bool = False) -> None:
    """Means, norms and maxima of windows."""
    if len(s.node.outputs) > 1:
        raise Cannot("positions counted over all axes")
    s.ignores("p", "storage_order")
    x, y = pool_places(s)
    pattern = f"b {x} c -> b {y} c" if channels_last else f"b c {x} -> b c {y}"
    s.states(pattern, "X", why="windowed")
    if s.node.op == "onnx.AveragePool":
        s.sums(s.out, Summand((s.tensor("X"),)))


def pool_places(s: Site) -> tuple[str, str]:
    """The axes of places of an operand and of the result, in patterns, as the node states its windows."""
    return changed(_moving(s, None))


def global_pool(s: Site) -> None:
    """One number per channel: mean, maximum or p-norm."""
    mark = "" if s.node.op == "onnx.GlobalMaxPool" else "~"
    axes = s.states(f"| b c {mark}x.. -> b c y..", "X", why="pooled")
    power = root(s.number("p", 2)) if s.node.op == "onnx.GlobalLpPool" else 0
    s.scale(s.out, {s.tensor("X"): 1}, logs=dict.fromkeys(axes.named("x"), power))
    if s.node.op == "onnx.GlobalAveragePool":
        s.sums(s.out, Summand((s.tensor("X"),)))


@says("!b c !x.. | r !corners, r? -> r c !y..")
def region_pool(s: Site, pattern: str) -> None:
    """Regions of an image, given by their corners."""
    s.ignores(*s.node.operands)
    s.states(pattern, "X", "rois", "batch_indices", why="sampled by place")


def depth_to_space(s: Site) -> None:
    s.ignores("blocksize")
    s.states(f"b {_blocks(s)} !y !x -> b c !h !w", "input", why="blocks of pixels are moved")


def space_to_depth(s: Site) -> None:
    s.ignores("blocksize")
    s.states(f"b c !h !w -> b {_blocks(s)} !y !x", "input", why="blocks of pixels are moved")


def _blocks(s: Site) -> str:
    return "(c !r)" if s.text("mode", "DCR") == "CRD" else "(!r c)"


def resize(s: Site) -> None:
    """Interpolation; axes that keep their size pass."""
    x = s.tensor("X")
    _read_all(s, x)
    before, after = changed([not _keeps(s, x, axis) for axis in range(x.rank)])
    s.states(f"{before} -> {after}", x, why="resampled")
    if beyond := s.number("extrapolation_value", 0):
        s.require({x: 1, s.literal("extrapolation_value", beyond): -1})


def _keeps(s: Site, x: Value, axis: int) -> bool:
    """Whether an axis is not resampled. A size that says so is that of the axis, whatever it becomes."""
    if "tf_crop_and_resize" in (s.get("coordinate_transformation_mode"), s.get("mode")):
        return False
    axes = s.axis_list("axes", x.rank, range(x.rank))
    if axis not in axes:
        return True
    at, sizes, scales = axes.index(axis), items_of(s.get("sizes")), items_of(s.get("scales"))
    if scales:
        return at < len(scales) and scales[at] == 1
    if at >= len(sizes) or s.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False
    if sizes[at] != s.axes(x)[axis].size or axis in x.dynamic:
        return False
    s.follow(("sizes", at), s.axes(s.out)[axis])
    return True


@says("b !n.. -> b !y..")
def affine_grid(s: Site, pattern: str) -> None:
    """Places in an image, linear in the matrices."""
    _read_all(s, s.tensor("theta"))
    s.states(pattern, "theta", why="places in an image")
    if items_of(s.get("size")):
        s.follow(("size", 0), s.axes(s.out)[0])
    else:
        s.pin(s.axes(s.out)[0], "a computed size")


def center_crop_or_pad(s: Site) -> None:
    """Some axes cut or padded with zeros on both sides to sizes; those that have them already pass."""
    x, shape = s.tensor("input_data"), items_of(s.get("shape"))
    _read_all(s, x)
    axes = s.axis_list("axes", x.rank, range(x.rank))
    sizes = enumerate(zip(axes, shape, strict=False))
    places = {axis: at for at, (axis, size) in sizes if size == s.axes(x)[axis].size}
    before, after = changed([axis in axes and axis not in places for axis in range(x.rank)])
    s.states(f"{before} -> {after}", x, why="cut or padded")
    for axis, at in places.items():
        s.follow(("shape", at), s.axes(s.out)[axis])


def _read_all(s: Site, *values: Value) -> None:
    """All operands are options but these; tensors among them are sizes or places."""
    s.ignores(*s.node.operands)
    for value in s.tensors:
        if value not in values:
            s.pin(s.axes(value), "sizes or places")
            s.require({value: 1})


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
    "onnx.Col2Im": spelled(columns_to_image, self="input"),
    "onnx.DepthToSpace": depth_to_space,
    "onnx.SpaceToDepth": space_to_depth,
    **dict.fromkeys(("onnx.Resize", "onnx.Upsample"), resize),
    "onnx.GridSample": spelled(grid_sample, input="X"),
    "onnx.AffineGrid": affine_grid,
    "onnx.CenterCropPad": center_crop_or_pad,
}  # fmt: skip
