"""Operators that put axes side by side or cut them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isinf

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Summand
from graphclone.graph.aliases import last_writes
from graphclone.graph.ir import Path, Value
from graphclone.graph.operands import Size
from graphclone.rules.patterns import changed
from graphclone.rules.site import Cannot, Rule, Site, paired, refused, says, spelled


def cat(s: Site) -> None:
    tensors = [tensor for tensor in s.tensor_list("tensors") if tensor.shape != (0,)]
    parts, whole = _side_by_side(len(tensors))
    s.states(f"| {parts} -> {whole}", *tensors, a=s.integer("dim", 0))
    s.same_scale(s.out, *tensors)
    s.sums(s.out, *(Summand((tensor,), apart=True) for tensor in tensors))
    s.facts.joins.add(s.node)


def _side_by_side(count: int) -> tuple[str, str]:
    """So many tensors along an axis, and the one that they make up together."""
    parts = [f"p{i}" for i in range(count)]
    if not parts:
        raise Cannot("nothing is put together")
    return ", ".join(f"a.. {part} b.." for part in parts), f"a.. ({' + '.join(parts)}) b.."


@says("| a.. b.. -> a.. !n b..")
def stack(s: Site, pattern: str) -> None:
    tensors, axis = s.tensor_list("tensors"), s.axis("dim", s.out.rank, 0)
    for tensor in tensors:
        s.states(pattern, tensor, a=axis, why="stacked by position")
    s.same_scale(s.out, *tensors)
    s.sums(s.out, *(Summand((tensor,), apart=True) for tensor in tensors))
    s.facts.joins.add(s.node)


def split(s: Site) -> None:
    x = s.tensor("self")
    if s.axis("dim", x.rank, 0) in x.dynamic:
        split_dynamic(s)
        return
    for i, part in enumerate(_parts(s, x)):
        s.follow(("split_sizes", i), part)


def _parts(s: Site, x: Value) -> list[Axis]:
    """The axes of the results that a tensor is cut into."""
    parts, whole = _side_by_side(len(s.node.outputs))
    axes = s.states(f"| {whole} -> {parts}", x, a=s.integer("dim", 0))
    for out in s.node.outputs:
        s.takes(out, x)
    return [axes[f"p{i}"] for i in range(len(s.node.outputs))]


@says("| a.. !n b.., a.. !m b..")
def split_dynamic(s: Site, pattern: str) -> None:
    """Equal parts of a dynamic axis; those of a static one have been spelled as parts of stated sizes."""
    x = s.tensor("self")
    s.ignores("chunks", "split_size", "split_sizes", "indices")
    for part in s.node.outputs:
        s.states(pattern, x, part, a=s.integer("dim", 0), why="part of a dynamic axis")
        s.takes(part, x)


def split_at(s: Site) -> None:
    """Like ``split``, with the places of the cuts given, each counting the parts before it."""
    x, cuts = s.tensor("self"), s.integers("indices")
    axis = s.axis("dim", x.rank, 0)
    sizes = [s.axes(out)[axis].size for out in s.node.outputs]
    if axis in x.dynamic or sum(sizes) != s.axes(x)[axis].size or cuts != list(accumulate(sizes[:-1])):
        split_dynamic(s)
        return
    parts = _parts(s, x)
    for i in range(len(cuts)):
        s.follow(("indices", i), *parts[: i + 1])


@says("| a.. !n b..")
def unbind(s: Site, pattern: str) -> None:
    x = s.tensor("self")
    axes = s.states(pattern, x, a=s.integer("dim", 0), why="taken apart by position")
    for out in s.node.outputs:
        s.equal_all(s.axes(out), [*axes.named("a"), *axes.named("b")])
        s.takes(out, x)


@says("| a.. !n b.. -> a.. b..")
def select(s: Site, pattern: str) -> None:
    """One place of an axis, which keeps its size, unless all places hold the same."""
    x = s.tensor("self")
    s.ignores("index")
    pattern = pattern.replace("!n", "n") if _is_filled(s, x) else pattern
    s.states(pattern, x, a=s.integer("dim"), why="selected by position")
    s.takes(s.out, x)


def _is_filled(s: Site, x: Value) -> bool:
    """Whether a value has been made all the same, and nothing is written into it."""
    return x in s.facts.filled and x not in last_writes(s.facts.graph)


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
    start, end, step = (s.size(name) if s.has(name) else None for name in ("start", "end", "step"))
    _cut_axis(s, x, axis, (start, end, step), (("start",), ("end",)))


Bound = Size | None
"""Where a slice begins or ends, or how long its steps are; None where that is left out."""


def _cut_axis(s: Site, x: Value, axis: int, bounds: tuple[Bound, Bound, Bound], paths: tuple[Path, Path]) -> None:
    """``start:end:step`` of one axis; the paths are those of start and end."""
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    first, last, stride = bounds
    if axis in x.dynamic or isinstance(first, Value) or isinstance(last, Value) or isinstance(stride, Value):
        s.pin([whole, part], "part of a dynamic axis")
        return
    if stride == 0:
        raise Cannot("steps of 0")
    start, end, step = slice(first, last, stride).indices(whole.size)
    if step == 1:
        _cut_at(s, whole, part, (start, end), (first, last), paths)
    elif step > 0 and whole.size % step == 0 and 0 <= (first or 0) < step and end == whole.size:
        s.equal(whole, s.system.product([part, s.system.dim(step, s.why("taken in steps"))]))
        _follow_bound(s, paths[1], last, [whole], [])
    else:
        s.pin([whole, part], "taken in steps")


def narrow(s: Site) -> None:
    """``x[start:start + length]`` along one axis."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank)
    _equal_but(s, axis, s.axes(x), s.axes(s.out))
    s.takes(s.out, x)
    whole, part = s.axes(x)[axis], s.axes(s.out)[axis]
    first = s.size("start")
    if axis in x.dynamic or isinstance(first, Value) or isinstance(s.size("length"), Value):
        s.pin([whole, part], "part of a dynamic axis")
        return
    start = first % max(whole.size, 1)
    before, after = s.system.dim(start), s.system.dim(whole.size - start - part.size)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, ("start",), first, [before], [part, after])
    s.follow(("length",), part)


def pad(s: Site) -> None:
    """Constant borders: a concat with new axes, which grow as they like."""
    x, padding = s.tensor("self"), s.sizes("pad")
    constant, value = s.text("mode", "constant") == "constant", s.get("value")
    pairs = s.pairs(x, s.out)
    if len(padding) not in range(0, 2 * x.rank + 1, 2):
        raise Cannot(f"{len(padding)} borders of {x.rank} axes")
    for i in range(0, len(padding), 2):
        sizes, paths = (padding[i], padding[i + 1]), (("pad", i), ("pad", i + 1))
        _pad_axis(s, sizes, paths, pairs.pop(), constant=constant)
    for a, b in pairs:
        s.equal(a, b)
    if constant and isinstance(value, int | float) and value:
        s.same_scale(s.out, x, s.literal("value", float(value)))
    elif not isinstance(value, Value):
        s.same_scale(s.out, x)


def _pad_axis(
    s: Site, sizes: tuple[Size, Size], paths: tuple[Path, Path], axes: tuple[Axis, Axis], *, constant: bool
) -> None:
    before, after = sizes
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
    along = s.axis_list("dims", x.rank, ()) or range(x.rank)
    before, after = changed([axis in along for axis in range(x.rank)])
    s.states(f"| {before} -> {after}", x, why="reordered")
    s.takes(s.out, x)


def _cut_at(
    s: Site,
    whole: Axis,
    part: Axis,
    place: tuple[int, int],
    bounds: tuple[int | None, int | None],
    paths: tuple[Path, Path],
) -> None:
    start, end = place
    if part.size == 0 or end <= start:
        s.pin([whole, part], "nothing is taken")
        return
    before, after = s.system.dim(start), s.system.dim(whole.size - end)
    s.equal(whole, s.system.concat([before, part, after]))
    _follow_bound(s, paths[0], bounds[0], [before], [part, after])
    _follow_bound(s, paths[1], bounds[1], [before, part], [after])


def _follow_bound(s: Site, path: Path, bound: int | None, before: Sequence[Axis], after: Sequence[Axis]) -> None:
    """A literal bound counts what is before it, or what is after it where it is negative.

    One beyond either end is cut off there, and would not be once the axis has grown; only the bounds that mean
    the end itself, missing or as great as can be, are left as they are.
    """
    if bound is None or bound in (0, _END):
        return
    if bound > 0:
        s.follow(path, *before)
    else:
        s.follow(path, *after, sign=-1)


_END = 2**63 - 1
"""What an end that was left out is traced as."""


def _equal_but(s: Site, axis: int, a: Sequence[Axis], b: Sequence[Axis]) -> None:
    for i, (x, y) in enumerate(paired(a, b)):
        if i != axis:
            s.equal(x, y)


@says("| a.. !n b.. -> a.. !m b.. !w")
def unfold(s: Site, pattern: str) -> None:
    """Windows along one axis, as a new last axis."""
    s.ignores("size", "step")
    s.states(pattern, "self", a=s.integer("dimension"), why="windowed")
    s.takes(s.out, s.tensor("self"))


def meshgrid(s: Site) -> None:
    """One grid per operand; the grids share their axes."""
    tensors = s.tensor_list("tensors")
    if s.text("indexing", "ij") != "ij" or not tensors:
        raise Cannot("an indexing that is not ij, or nothing to index")
    names = [f"x{i}" for i in range(len(tensors))]
    s.states(f"| {', '.join(names)} -> {', '.join([' '.join(names)] * len(names))}", *tensors)
    for tensor, out in paired(tensors, s.node.outputs, "results"):
        s.takes(out, tensor)


def onnx_split(s: Site) -> None:
    """Parts of stated sizes; equal parts of a static axis have been spelled so."""
    s.ignores("num_outputs")
    rule = split if s.has("split") and s.maybe_tensor("split") is None else split_dynamic
    if (sizes := s.maybe_tensor("split")) is not None:
        s.pin(s.axes(sizes), "sizes")
    rule(s.renamed({"self": "input", "dim": "axis", "split_sizes": "split"}))


def onnx_slice(s: Site) -> None:
    """``x[start:end:step]`` along several axes."""
    x = s.tensor("data")
    starts, ends = s.sizes("starts"), s.sizes("ends")
    axes = s.axis_list("axes", x.rank, range(len(starts)))
    steps = s.sizes("steps") if s.has("steps") else [1] * len(starts)
    for axis, (a, b) in enumerate(s.pairs(x, s.out)):
        if axis not in axes:
            s.equal(a, b)
    if not len(starts) == len(ends) == len(steps) == len(axes):
        raise Cannot("starts, ends, steps and axes that are not equally many")
    for i, axis in enumerate(axes):
        _cut_axis(s, x, axis, (starts[i], ends[i], steps[i]), (("starts", i), ("ends", i)))
    s.takes(s.out, x)


def onnx_pad(s: Site) -> None:
    """Borders: all those before the axes, then all those after. Constant ones grow as they like."""
    x, pads = s.tensor("data"), s.sizes("pads")
    axes, half = s.axis_list("axes", x.rank, range(x.rank)), len(pads) // 2
    constant = s.text("mode", "constant") == "constant"
    if len(pads) != 2 * len(axes):
        raise Cannot(f"{len(pads)} borders of {len(axes)} axes")
    for axis, pair in enumerate(s.pairs(x, s.out)):
        if axis in axes:
            i = axes.index(axis)
            sizes, paths = (pads[i], pads[i + half]), (("pads", i), ("pads", i + half))
            _pad_axis(s, sizes, paths, pair, constant=constant)
        else:
            s.equal(*pair)
    _scale_of_padded(s, x, "constant_value" if s.has("constant_value") else "value", constant=constant)


def _scale_of_padded(s: Site, x: Value, name: str, *, constant: bool) -> None:
    if (tensor := s.maybe_tensor(name)) is not None:
        s.pin(s.axes(tensor), "a number")
        s.same_scale(s.out, x, tensor)
    elif not isinstance(s.get(name), Value):
        value = s.number(name, 0)
        has_scale = constant and value and not isinf(value)
        s.same_scale(s.out, x, *([s.literal(name, value)] if has_scale else []))


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
