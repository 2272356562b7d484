"""Convolutions, pooling and resampling: channels flow, windowed axes keep their size."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.axes import Axis
from graphclone.facts import Contraction
from graphclone.ir import Value
from graphclone.rules.linear import product
from graphclone.rules.site import Cannot, Rule, Site


def convolution(s: Site) -> None:
    """``b (g i) ..., (g o) i ..., (g o)? -> b (g o) ...``"""
    x, w, b = s.tensor("input"), s.tensor("weight"), s.maybe_tensor("bias")
    rank = w.rank - 2
    batch = x.rank - rank - 1  # a single sample has no batch axis
    if batch not in (0, 1):
        raise Cannot("an input of this rank")
    _groups(s, s.axes(x)[batch], w, s.axes(s.out)[batch])
    contraction = s.contracted((w, [1]))
    _channels_and_windows(s, x, w, batch, windowed=_is_windowed(s, w))
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
    _channels_and_windows(s, x, w, batch, windowed=True)
    if b is not None:
        s.equal(s.axes(b)[0], s.axes(s.out)[batch])
    product(s, x, w, contraction, bias=b)


def _channels_and_windows(s: Site, x: Value, w: Value, batch: int, *, windowed: bool) -> None:
    s.pin(s.axes(w)[2:], "a window")
    if batch:
        s.equal(s.axes(x)[0], s.axes(s.out)[0])
    inner, outer = s.axes(x)[batch + 1 :], s.axes(s.out)[batch + 1 :]
    if windowed:
        s.pin((*inner, *outer), "windowed")
    else:
        s.equal_all(inner, outer)


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


def _columns(s: Site, image: tuple[Axis, ...], columns: tuple[Axis, ...]) -> None:
    s.pin([*image[-2:], columns[-1]], "windowed")
    s.equal_all(image[:-3], columns[:-2])
    window = s.system.dim(columns[-2].size // image[-3].size, s.why("a window"))
    s.equal(columns[-2], s.system.product([image[-3], window]))


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
}  # fmt: skip
