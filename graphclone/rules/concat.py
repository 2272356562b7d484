"""Operators that put axes side by side or cut them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from graphclone.axes import Axis
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def cat(s: Site) -> None:
    """The axis of the result is the concat of the operands' axes."""
    tensors = [tensor for tensor in s["tensors"] if tensor.shape != (0,)]
    axis = s.axis("dim", s.out.rank, 0)
    s.equal(s.axes(s.out)[axis], s.system.concat([s.axes(tensor)[axis] for tensor in tensors]))
    for tensor in tensors:
        _equal_but(s, axis, s.axes(tensor), s.axes(s.out))
    s.same_scale(s.out, *tensors)


def stack(s: Site) -> None:
    """A new axis, whose positions have a meaning each."""
    tensors = s["tensors"]
    axis = s.axis("dim", s.out.rank, 0)
    axes = list(s.axes(s.out))
    s.pin(axes.pop(axis), "stacked by position")
    for tensor in tensors:
        s.equal_all(s.axes(tensor), axes)
    s.same_scale(s.out, *tensors)


def split(s: Site) -> None:
    """The axis of the operand is the concat of the results' axes."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, 0)
    parts = [s.axes(out)[axis] for out in s.node.outputs]
    if axis in x.dynamic:
        s.pin([s.axes(x)[axis], *parts], "part of a dynamic axis")
    else:
        s.equal(s.axes(x)[axis], s.system.concat(parts))
    for i, (out, part) in enumerate(zip(s.node.outputs, parts, strict=True)):
        _equal_but(s, axis, s.axes(out), s.axes(x))
        s.scale(out, {x: 1})
        s.follow(("split_sizes", i), part)


def split_dynamic(s: Site) -> None:
    """Equal parts of a dynamic axis; those of a static one have been spelled as parts of stated sizes."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, 0)
    s.get("chunks"), s.get("split_size")
    s.pin(s.axes(x)[axis], "part of a dynamic axis")
    for out in s.node.outputs:
        s.pin(s.axes(out)[axis], "part of a dynamic axis")
        _equal_but(s, axis, s.axes(out), s.axes(x))
        s.scale(out, {x: 1})


def split_at(s: Site) -> None:
    """As ``split``, with the places of the cuts given, each counting the parts before it."""
    x, cuts = s.tensor("self"), s["indices"]
    axis = s.axis("dim", x.rank, 0)
    whole, parts = s.axes(x)[axis], [s.axes(out)[axis] for out in s.node.outputs]
    for out in s.node.outputs:
        _equal_but(s, axis, s.axes(out), s.axes(x))
        s.scale(out, {x: 1})
    sizes = [part.size for part in parts]
    if axis in x.dynamic or sum(sizes) != whole.size or cuts != list(accumulate(sizes[:-1])):
        s.pin([whole, *parts], "part of a dynamic axis")
        return
    s.equal(whole, s.system.concat(parts))
    for i in range(len(cuts)):
        s.follow(("indices", i), *parts[: i + 1])


def unbind(s: Site) -> None:
    """One result per position of an axis."""
    x = s.tensor("self")
    axes = list(s.axes(x))
    s.pin(axes.pop(s.axis("dim", x.rank, 0)), "taken apart by position")
    for out in s.node.outputs:
        s.equal_all(s.axes(out), axes)
        s.scale(out, {x: 1})


def select(s: Site) -> None:
    """One position of an axis."""
    x = s.tensor("self")
    axes = list(s.axes(x))
    s.pin(axes.pop(s.axis("dim", x.rank)), "selected by position")
    s.get("index")
    s.equal_all(s.axes(s.out), axes)
    s.same_scale(s.out, x)


def cut(s: Site) -> None:
    """``x[start:end:step]`` along one axis: the axis is a concat of what is before, taken, and after."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, 0)
    _equal_but(s, axis, s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x)
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    bounds = [s.get("start", 0), s.get("end", whole.size), s.get("step", 1)]
    if axis in x.dynamic or any(isinstance(bound, Value) for bound in bounds):
        s.pin([whole, part], "part of a dynamic axis")
        return
    start, end, step = slice(*bounds).indices(whole.size)
    if step == 1:
        _cut_at(s, whole, part, start, end)
    elif whole.size % step == 0 and 0 <= (bounds[0] or 0) < step and end == whole.size:
        s.equal(whole, s.system.product([part, s.system.dim(step, s.why("taken in steps"))]))
        _follow_bound(s, "end", [whole], [])
    else:
        s.pin([whole, part], "taken in steps")


def narrow(s: Site) -> None:
    """``x[start:start + length]`` along one axis."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank)
    _equal_but(s, axis, s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x)
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    if axis in x.dynamic or isinstance(s["start"], Value) or isinstance(s["length"], Value):
        s.pin([whole, part], "part of a dynamic axis")
        return
    start = s.integer("start") % max(whole.size, 1)
    before, after = s.system.dim(start), s.system.dim(whole.size - start - part.size)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, "start", [before], [part, after])
    s.follow(("length",), part)


def pad(s: Site) -> None:
    """Constant borders: a concat with new axes, which grow as they like."""
    x, padding = s.tensor("self"), s["pad"]
    constant, value = s.get("mode", "constant") == "constant", s.get("value", 0)
    axes, out = list(s.axes(x)), list(s.axes(s.out))
    for i in range(0, len(padding), 2):
        axis = x.rank - 1 - i // 2
        _pad_axis(s, i, (axes.pop(axis), out.pop(axis)), constant=constant)
    s.equal_all(axes, out)
    if constant and isinstance(value, int | float) and value:
        s.same_scale(s.out, x, s.literal("value", float(value)))
    elif not isinstance(value, Value):
        s.same_scale(s.out, x)


def _pad_axis(s: Site, i: int, axes: tuple[Axis, Axis], *, constant: bool) -> None:
    before, after = s["pad"][i : i + 2]
    if before == 0 and after == 0:
        s.equal(*axes)
    elif not constant or isinstance(before, Value) or isinstance(after, Value) or min(before, after) < 0:
        s.pin(axes, "padded")
    else:
        borders = s.system.dim(before), s.system.dim(after)
        s.equal(axes[1], s.system.concat([borders[0], axes[0], borders[1]]))
        s.follow(("pad", i), borders[0])
        s.follow(("pad", i + 1), borders[1])


def shift(s: Site) -> None:
    """Flip and roll: the axes they act on keep their order, and so their size."""
    x = s.tensor("self")
    s.get("shifts")
    moved = s.axis_list("dims", x.rank)
    s.pin([s.axes(x)[axis] for axis in moved], "reordered")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x)


def _cut_at(s: Site, whole: Axis, part: Axis, start: int, end: int) -> None:
    if part.size == 0 or end <= start:
        s.pin([whole, part], "nothing is taken")
        return
    before, after = s.system.dim(start), s.system.dim(whole.size - end)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, "start", [before], [part, after])
    _follow_bound(s, "end", [before, part], [after])


def _follow_bound(s: Site, name: str, before: Sequence[Axis], after: Sequence[Axis]) -> None:
    """A literal bound counts what is before it, or what is after it where it is negative.

    One beyond either end is cut off there, and would not be once the axis has grown; only the bounds that mean
    the end itself, missing or as great as can be, are left as they are.
    """
    bound = s.get(name)
    if bound in (None, 0, _END):
        return
    if bound > 0:
        s.follow((name,), *before)
    else:
        s.follow((name,), *after, sign=-1)


_END = 2**63 - 1
"""What an end that was left out is traced as."""


def _equal_but(s: Site, axis: int, a: Sequence[Axis], b: Sequence[Axis]) -> None:
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if i != axis:
            s.equal(x, y)


def unfold(s: Site) -> None:
    """Windows along one axis, as a new last axis."""
    x = s.tensor("self")
    axis = s.axis("dimension", x.rank)
    s.get("size"), s.get("step")
    s.pin([s.axes(x)[axis], s.axes(s.out)[axis], s.axes(s.out)[-1]], "windowed")
    _equal_but(s, axis, s.axes(x), s.axes(s.out)[:-1])
    s.same_scale(s.out, x)


def meshgrid(s: Site) -> None:
    """One grid per operand; the grids share their axes."""
    tensors = s["tensors"]
    if s.get("indexing", "ij") != "ij" or any(tensor.rank != 1 for tensor in tensors):
        raise Cannot("only ij indexing of vectors is known")
    for i, (tensor, out) in enumerate(zip(tensors, s.node.outputs, strict=True)):
        s.equal(s.axes(out)[i], s.axes(tensor)[0])
        s.equal_all(s.axes(out), s.axes(s.out))
        s.scale(out, {tensor: 1})


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("aten.cat.default", "aten.concat.default", "aten.concatenate.default"), cat),
    "aten.stack.default": stack,
    "aten.split_with_sizes.default": split,
    "aten.chunk.default": split_dynamic,
    "aten.split.Tensor": split_dynamic,
    "aten.tensor_split.indices": split_at,
    "aten.unbind.int": unbind,
    "aten.select.int": select,
    "aten.slice.Tensor": cut,
    "aten.narrow.default": narrow,
    **dict.fromkeys(("aten.pad.default", "aten.constant_pad_nd.default"), pad),
    **dict.fromkeys(("aten.flip.default", "aten.roll.default"), shift),
    "aten.unfold.default": unfold,
    **dict.fromkeys(("aten.meshgrid.default", "aten.meshgrid.indexing"), meshgrid),
}
