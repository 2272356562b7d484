"""Operators that put axes side by side or cut them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isinf

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Summand
from graphclone.graph.ir import Operand, Path, Value
from graphclone.rules.site import Cannot, Rule, Site, refused, spelled
from graphclone.rules.view import constants, literals


def cat(s: Site) -> None:
    tensors = [tensor for tensor in s["tensors"] if tensor.shape != (0,)]
    axis = s.axis("dim", s.out.rank, 0)
    s.equal(s.axes(s.out)[axis], s.system.concat([s.axes(tensor)[axis] for tensor in tensors]))
    for tensor in tensors:
        _equal_but(s, axis, s.axes(tensor), s.axes(s.out))
    s.same_scale(s.out, *tensors)
    s.sums(s.out, *(Summand((tensor,), apart=True) for tensor in tensors))


def stack(s: Site) -> None:
    tensors, axis = s["tensors"], s.axis("dim", s.out.rank, 0)
    for tensor in tensors:
        s.states("| a.. b.. -> a.. !n b..", tensor, a=axis, why="stacked by position")
    s.same_scale(s.out, *tensors)
    s.sums(s.out, *(Summand((tensor,), apart=True) for tensor in tensors))


def split(s: Site) -> None:
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, 0)
    parts = [s.axes(out)[axis] for out in s.node.outputs]
    if axis in x.dynamic:
        s.pin([s.axes(x)[axis], *parts], "part of a dynamic axis")
    else:
        s.equal(s.axes(x)[axis], s.system.concat(parts))
    for i, (out, part) in enumerate(zip(s.node.outputs, parts, strict=True)):
        _equal_but(s, axis, s.axes(out), s.axes(x))
        s.takes(out, x)
        s.follow(("split_sizes", i), part)


def split_dynamic(s: Site) -> None:
    """Equal parts of a dynamic axis; those of a static one have been spelled as parts of stated sizes."""
    x = s.tensor("self")
    s.ignores("chunks", "split_size")
    for part in s.node.outputs:
        s.states("| a.. !n b.., a.. !m b..", x, part, a=s.integer("dim", 0), why="part of a dynamic axis")
        s.takes(part, x)


def split_at(s: Site) -> None:
    """As ``split``, with the places of the cuts given, each counting the parts before it."""
    x, cuts = s.tensor("self"), s["indices"]
    axis = s.axis("dim", x.rank, 0)
    whole, parts = s.axes(x)[axis], [s.axes(out)[axis] for out in s.node.outputs]
    for out in s.node.outputs:
        _equal_but(s, axis, s.axes(out), s.axes(x))
        s.takes(out, x)
    sizes = [part.size for part in parts]
    if axis in x.dynamic or sum(sizes) != whole.size or cuts != list(accumulate(sizes[:-1])):
        s.pin([whole, *parts], "part of a dynamic axis")
        return
    s.equal(whole, s.system.concat(parts))
    for i in range(len(cuts)):
        s.follow(("indices", i), *parts[: i + 1])


def unbind(s: Site) -> None:
    x = s.tensor("self")
    axes = s.states("| a.. !n b..", x, a=s.integer("dim", 0), why="taken apart by position")
    for out in s.node.outputs:
        s.equal_all(s.axes(out), [*axes.named("a"), *axes.named("b")])
        s.takes(out, x)


def select(s: Site) -> None:
    s.ignores("index")
    s.states("| a.. !n b.. -> a.. b..", "self", a=s.integer("dim"), why="selected by position")
    s.takes(s.out, s.tensor("self"))


def diagonal(s: Site) -> None:
    """The elements whose places along two axes go together, along a new last axis."""
    x = s.tensor("self")
    s.ignores("offset")
    pair = {s.axis("dim1", x.rank, 0), s.axis("dim2", x.rank, 1)}
    s.pin([*(s.axes(x)[axis] for axis in pair), s.axes(s.out)[-1]], "a diagonal")
    s.equal_all(s.axes(s.out)[:-1], [axis for i, axis in enumerate(s.axes(x)) if i not in pair])
    s.takes(s.out, x)


def cut(s: Site) -> None:
    """``x[start:end:step]`` along one axis: the axis is a concat of what is before, taken, and after."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, 0)
    _equal_but(s, axis, s.axes(x), s.axes(s.out))
    s.takes(s.out, x)
    bounds = [s.get("start", 0), s.get("end"), s.get("step", 1)]
    _cut_axis(s, x, axis, bounds, (("start",), ("end",)))


def _cut_axis(s: Site, x: Value, axis: int, bounds: Sequence[Operand], paths: tuple[Path, Path]) -> None:
    """``start:end:step`` of one axis; the paths are those of start and end."""
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    if axis in x.dynamic or any(isinstance(bound, Value) for bound in bounds):
        s.pin([whole, part], "part of a dynamic axis")
        return
    start, end, step = slice(*bounds).indices(whole.size)
    if step == 1:
        _cut_at(s, whole, part, (start, end), (bounds[0], bounds[1]), paths)
    elif step > 0 and whole.size % step == 0 and 0 <= (bounds[0] or 0) < step and end == whole.size:
        s.equal(whole, s.system.product([part, s.system.dim(step, s.why("taken in steps"))]))
        _follow_bound(s, paths[1], bounds[1], [whole], [])
    else:
        s.pin([whole, part], "taken in steps")


def narrow(s: Site) -> None:
    """``x[start:start + length]`` along one axis."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank)
    _equal_but(s, axis, s.axes(x), s.axes(s.out))
    s.takes(s.out, x)
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    if axis in x.dynamic or isinstance(s["start"], Value) or isinstance(s["length"], Value):
        s.pin([whole, part], "part of a dynamic axis")
        return
    start = s.integer("start") % max(whole.size, 1)
    before, after = s.system.dim(start), s.system.dim(whole.size - start - part.size)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, ("start",), s["start"], [before], [part, after])
    s.follow(("length",), part)


def pad(s: Site) -> None:
    """Constant borders: a concat with new axes, which grow as they like."""
    x, padding = s.tensor("self"), s["pad"]
    constant, value = s.get("mode", "constant") == "constant", s.get("value", 0)
    axes, out = list(s.axes(x)), list(s.axes(s.out))
    for i in range(0, len(padding), 2):
        axis = x.rank - 1 - i // 2
        _pad_axis(s, (("pad", i), ("pad", i + 1)), (axes.pop(axis), out.pop(axis)), constant=constant)
    s.equal_all(axes, out)
    if constant and isinstance(value, int | float) and value:
        s.same_scale(s.out, x, s.literal("value", float(value)))
    elif not isinstance(value, Value):
        s.same_scale(s.out, x)


def _pad_axis(s: Site, paths: tuple[Path, Path], axes: tuple[Axis, Axis], *, constant: bool) -> None:
    before, after = (s.operand(path) for path in paths)
    if before == 0 and after == 0:
        s.equal(*axes)
    elif not constant or isinstance(before, Value) or isinstance(after, Value) or min(before, after) < 0:
        s.pin(axes, "padded")
    else:
        borders = s.system.dim(before), s.system.dim(after)
        s.equal(axes[1], s.system.concat([borders[0], axes[0], borders[1]]))
        for path, border in zip(paths, borders, strict=True):
            s.follow(path, border)


def shift(s: Site) -> None:
    x = s.tensor("self")
    s.ignores("shifts")
    moved = s.axis_list("dims", x.rank)
    s.pin([s.axes(x)[axis] for axis in moved], "reordered")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.takes(s.out, x)


def _cut_at(
    s: Site, whole: Axis, part: Axis, place: tuple[int, int], bounds: tuple[Operand, Operand], paths: tuple[Path, Path]
) -> None:
    start, end = place
    if part.size == 0 or end <= start:
        s.pin([whole, part], "nothing is taken")
        return
    before, after = s.system.dim(start), s.system.dim(whole.size - end)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, paths[0], bounds[0], [before], [part, after])
    _follow_bound(s, paths[1], bounds[1], [before, part], [after])


def _follow_bound(s: Site, path: Path, bound: Operand, before: Sequence[Axis], after: Sequence[Axis]) -> None:
    """A literal bound counts what is before it, or what is after it where it is negative.

    One beyond either end is cut off there, and would not be once the axis has grown; only the bounds that mean
    the end itself, missing or as great as can be, are left as they are.
    """
    if bound in (None, 0, _END):
        return
    if bound > 0:
        s.follow(path, *before)
    else:
        s.follow(path, *after, sign=-1)


_END = 2**63 - 1
"""What an end that was left out is traced as."""


def _equal_but(s: Site, axis: int, a: Sequence[Axis], b: Sequence[Axis]) -> None:
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        if i != axis:
            s.equal(x, y)


def unfold(s: Site) -> None:
    """Windows along one axis, as a new last axis."""
    s.ignores("size", "step")
    s.states("| a.. !n b.. -> a.. !m b.. !w", "self", a=s.integer("dimension"), why="windowed")
    s.takes(s.out, s.tensor("self"))


def meshgrid(s: Site) -> None:
    """One grid per operand; the grids share their axes."""
    tensors = s["tensors"]
    if s.get("indexing", "ij") != "ij" or any(tensor.rank != 1 for tensor in tensors):
        raise Cannot("only ij indexing of vectors is known")
    for i, (tensor, out) in enumerate(zip(tensors, s.node.outputs, strict=True)):
        s.equal(s.axes(out)[i], s.axes(tensor)[0])
        s.equal_all(s.axes(out), s.axes(s.out))
        s.takes(out, tensor)


def onnx_split(s: Site) -> None:
    """Parts of stated sizes; equal parts of a static axis have been spelled so."""
    s.ignores("num_outputs")
    rule = split if isinstance(s.get("split"), list) else split_dynamic
    if (sizes := s.maybe_tensor("split")) is not None:
        s.pin(s.axes(sizes), "sizes")
    rule(s.renamed({"self": "input", "dim": "axis", "split_sizes": "split"}))


def onnx_slice(s: Site) -> None:
    """``x[start:end:step]`` along several axes."""
    x = s.tensor("data")
    starts, ends = literals(s, "starts"), literals(s, "ends")
    axes = [axis % x.rank for axis in (constants(s, "axes") if s.has("axes") else range(len(starts)))]
    steps = literals(s, "steps") if s.has("steps") else [1] * len(starts)
    for axis, (a, b) in enumerate(zip(s.axes(x), s.axes(s.out), strict=True)):
        if axis not in axes:
            s.equal(a, b)
    for i, axis in enumerate(axes):
        _cut_axis(s, x, axis, (starts[i], ends[i], steps[i]), (("starts", i), ("ends", i)))
    s.takes(s.out, x)


def onnx_pad(s: Site) -> None:
    """Borders: all those before the axes, then all those after. Constant ones grow as they like."""
    x, pads = s.tensor("data"), literals(s, "pads")
    axes = [axis % x.rank for axis in (constants(s, "axes") if s.has("axes") else range(x.rank))]
    constant = s.get("mode", "constant") == "constant"
    for axis, pair in enumerate(zip(s.axes(x), s.axes(s.out), strict=True)):
        if axis in axes:
            at = axes.index(axis)
            _pad_axis(s, (("pads", at), ("pads", at + len(pads) // 2)), pair, constant=constant)
        else:
            s.equal(*pair)
    _scale_of_padded(s, x, "constant_value" if s.has("constant_value") else "value", constant=constant)


def _scale_of_padded(s: Site, x: Value, name: str, *, constant: bool) -> None:
    value = s.get(name, 0)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, Value):
        if value.is_tensor:
            s.pin(s.axes(value), "a number")
            s.same_scale(s.out, x, value)
    elif constant and value and not isinf(value):
        s.same_scale(s.out, x, s.literal(name, float(value)))
    else:
        s.same_scale(s.out, x)


def reverse_sequence(s: Site) -> None:
    """The first so many places of one axis in reverse, as many for each index of another axis as a vector says."""
    x, lengths = s.tensor("input"), s.tensor("sequence_lens")
    time, batch = s.axis("time_axis", x.rank, 0), s.axis("batch_axis", x.rank, 1)
    s.pin(s.axes(x)[time], "reordered")
    s.equal(s.axes(lengths)[0], s.axes(x)[batch])
    s.equal_all(s.axes(x), s.axes(s.out))
    s.takes(s.out, x)


def compress(s: Site) -> None:
    """Those places of an axis, or of all axes as one, that a condition marks."""
    x, condition = s.tensor("input"), s.tensor("condition")
    if s.get("axis") is None:
        s.states("| !x.., !n -> !y", x, condition, why="chosen by place")
    else:
        s.states("| a.. !n b.., !c -> a.. !m b..", x, condition, a=s.integer("axis"), why="chosen by place")
    s.takes(s.out, x)


_OF_SEQUENCES = """
    SplitToSequence SequenceAt SequenceConstruct SequenceInsert SequenceErase SequenceLength SequenceEmpty SequenceMap
    ConcatFromSequence
"""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("aten.cat.default", "aten.concat.default", "aten.concatenate.default"), cat),
    "aten.stack.default": stack,
    "aten.split_with_sizes.default": split,
    "aten.chunk.default": split_dynamic,
    "aten.split.Tensor": split_dynamic,
    "aten.tensor_split.indices": split_at,
    "aten.unbind.int": unbind,
    "aten.select.int": select,
    "aten.diagonal.default": diagonal,
    "aten.slice.Tensor": cut,
    "aten.narrow.default": narrow,
    **dict.fromkeys(("aten.pad.default", "aten.constant_pad_nd.default"), pad),
    **dict.fromkeys(("aten.flip.default", "aten.roll.default"), shift),
    "aten.unfold.default": unfold,
    **dict.fromkeys(("aten.meshgrid.default", "aten.meshgrid.indexing"), meshgrid),
    "onnx.Concat": spelled(cat, tensors="inputs", dim="axis"),
    "onnx.Split": onnx_split,
    "onnx.Slice": onnx_slice,
    "onnx.Pad": onnx_pad,
    "onnx.ReverseSequence": reverse_sequence,
    "onnx.Compress": compress,
    **dict.fromkeys((f"onnx.{op}" for op in _OF_SEQUENCES.split()), refused("a sequence of tensors")),
}
