"""Operators that show the same elements in another shape or order, or repeat them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphclone.algebra.axes import Axis
from graphclone.graph.ir import Path, Value
from graphclone.graph.operands import Size
from graphclone.rules.site import Cannot, Rule, Site, paired, says, spelled, stated


def reshape(s: Site) -> None:
    """The same elements in row-major order: axes are grouped wherever the products of sizes meet."""
    x = s.tensor("self")
    for name in ("size", "shape"):
        if s.has(name):
            follow_sizes(s, name, s.axes(s.out))
    _regrouped(s, x)


def _regrouped(s: Site, x: Value) -> None:
    regroup(s, s.axes(x), s.axes(s.out))
    s.moves(s.out, x)
    s.facts.regrouped[s.out] = x


def reshape_as(s: Site) -> None:
    """Like reshape; the other operand gives sizes, and nothing of its layout: the two must grow alike."""
    x, other = s.tensor("self"), s.tensor("other")
    s.equal_all(s.axes(other), s.axes(s.out))
    s.irrelevant(other)
    _regrouped(s, x)


def flatten(s: Site) -> None:
    s.ignores("start_dim", "end_dim")
    _regrouped(s, s.tensor("self"))


def unflatten(s: Site) -> None:
    x = s.tensor("self")
    axis = s.axis("dim", x.rank)
    follow_sizes(s, "sizes", s.axes(s.out)[axis : axis + len(s.sizes("sizes"))])
    _regrouped(s, x)


def regroup(s: Site, a: Sequence[Axis], b: Sequence[Axis]) -> None:
    """Equate two factorings of the same elements, group by group."""
    for left, right in _groups([x for x in a if x.size != 1], [x for x in b if x.size != 1]):
        s.equal(s.system.product(left), s.system.product(right))


def _groups(a: list[Axis], b: list[Axis]) -> Iterator[tuple[list[Axis], list[Axis]]]:
    """The shortest runs of two lists of axes that have equal products of sizes."""
    if any(axis.size == 0 for axis in (*a, *b)):
        raise Cannot("it has an empty axis")
    left, right = iter(a), iter(b)
    group: tuple[list[Axis], list[Axis]] = ([], [])
    sizes = [1, 1]
    for _ in range(len(a) + len(b)):
        side = 0 if sizes[0] <= sizes[1] else 1
        if sizes[0] == sizes[1] and group[0]:
            yield group
            group, sizes = ([], []), [1, 1]
        axis = next(left if side == 0 else right, None)
        if axis is None:
            raise Cannot("its sizes do not multiply to the same number")
        group[side].append(axis)
        sizes[side] *= axis.size
    if sizes[0] != sizes[1]:
        raise Cannot("its sizes do not multiply to the same number")
    if group[0]:
        yield group


def follow_sizes(s: Site, name: str, axes: Sequence[Axis]) -> None:
    """A list of literal sizes counts these axes; -1 is left to be inferred."""
    for i, (size, axis) in enumerate(paired(s.sizes(name), axes, "sizes")):
        if size != -1:
            s.follow((name, i), axis)


def permuted(s: Site, x: Value, order: Sequence[int | None]) -> None:
    """Result axis i is operand axis order[i], or new with size 1."""
    for axis, source in paired(s.axes(s.out), order):
        if source is not None:
            s.equal(axis, s.axes(x)[source])
    s.shows(s.out, x, order)
    s.same_scale(s.out, x)


def permute(s: Site) -> None:
    x = s.tensor("self")
    permuted(s, x, s.axis_list("dims", x.rank))


def transpose(s: Site) -> None:
    x = s.tensor("self")
    names = ("dim0", "dim1") if s.has("dim0") else ("axis0", "axis1")
    i, j = (s.axis(name, x.rank) for name in names)
    order: list[int | None] = list(range(x.rank))
    order[i], order[j] = order[j], order[i]
    permuted(s, x, order)


def move_axes(s: Site) -> None:
    x = s.tensor("self")
    sources, targets = s.axis_list("source", x.rank), s.axis_list("destination", x.rank)
    order = [axis for axis in range(x.rank) if axis not in sources]
    for target, source in sorted(paired(targets, sources)):
        order.insert(target, source)
    permuted(s, x, order)


def reverse_axes(s: Site) -> None:
    x = s.tensor("self")
    permuted(s, x, range(x.rank)[::-1])


def swap_last(s: Site) -> None:
    x = s.tensor("self")
    permuted(s, x, [*range(x.rank - 2), x.rank - 1, x.rank - 2] if x.rank > 1 else range(x.rank))


def unsqueeze(s: Site) -> None:
    x = s.tensor("self")
    axis = s.axis("dim", x.rank + 1)
    permuted(s, x, [*range(axis), None, *range(axis, x.rank)])


def squeeze(s: Site) -> None:
    x = s.tensor("self")
    axes = s.axis_list("dim", x.rank, range(x.rank))
    permuted(s, x, [i for i, axis in enumerate(s.axes(x)) if i not in axes or axis.size != 1])


def expand(s: Site) -> None:
    """An axis of size 1 becomes a free axis; other axes stay."""
    x = s.tensor("self")
    for name in ("size", "shape"):
        if s.has(name):
            follow_sizes(s, name, s.axes(s.out))
    s.ignores("implicit")
    s.broadcast(x)
    s.moves(s.out, x)


def expand_as(s: Site) -> None:
    """Like expand; the other operand gives the sizes, so the result grows as it does."""
    x, other = s.tensor("self"), s.tensor("other")
    s.broadcast(x, other)
    s.irrelevant(other)
    s.moves(s.out, x)


def broadcast_tensors(s: Site) -> None:
    """All results have the same axes, those of the operands, aligned from the right."""
    for x, out in paired(s.tensor_list("tensors"), s.node.outputs, "results"):
        s.broadcast(x)
        s.equal_all(s.axes(out), s.axes(s.out))
        s.moves(out, x)


def repeat(s: Site) -> None:
    """Every axis is repeated as a block: ``P(r, x)`` with r free."""
    x = s.tensor("self")
    name = "repeats" if s.has("repeats") else "dims"
    counts = s.sizes(name)
    axes = [s.system.dim(1)] * (len(counts) - x.rank) + list(s.axes(x))
    out, first = s.axes(s.out, len(axes)), len(axes) - len(counts)
    s.equal_all(axes[:first], out[:first])
    for i, count in enumerate(counts):
        _repeat_axis(s, (name, i), count, axes[first + i], out[first + i], outer=True)
    s.moves(s.out, x)


def repeat_interleave(s: Site) -> None:
    """Every index of one axis, or of all axes as one, is repeated in place: ``P(x, r)`` with r free."""
    x = s.tensor("self")
    axes = list(s.axes(x)) if s.has("dim") else [s.system.product(s.axes(x))]
    axis, out = s.axis("dim", len(axes), 0), s.axes(s.out, len(axes))
    s.equal_all([*axes[:axis], *axes[axis + 1 :]], [*out[:axis], *out[axis + 1 :]])
    _repeat_axis(s, ("repeats",), s.size("repeats"), axes[axis], out[axis], outer=False)
    if s.has("output_size"):
        s.follow(("output_size",), out[axis])
    s.moves(s.out, x)


def _repeat_axis(s: Site, path: Path, count: Size, axis: Axis, out: Axis, *, outer: bool) -> None:
    if isinstance(count, Value):
        s.pin([axis, out], "repeated a computed number of times")
        return
    times = s.system.dim(count)
    s.follow(path, times)
    s.equal(out, s.system.product([times, axis] if outer else [axis, times]))


_PARTS = "real and imaginary part"
as_complex = stated("... 2 -> ...", "self", why=_PARTS)
as_real = stated("... -> ... 2", "self", why=_PARTS)


def element(s: Site) -> None:
    """A number out of a vector of numbers."""
    s.ignores("index")
    s.pin(s.axes(s.tensor("self")), "read number by number")


def pack(s: Site) -> None:
    """A vector of numbers: literals are those of the source, whatever has grown."""
    s.ignores("items")
    s.pin(s.axes(s.out), "put together number by number")


def size(s: Site) -> None:
    x = s.tensor("self")
    s.pin(s.axes(x)[s.axis("dim", x.rank)], "its size is read as a number")
    s.any_scale()


@says("... (c !r) !y !x -> ... c !h !w")
def pixel_shuffle(s: Site, pattern: str) -> None:
    s.ignores("upscale_factor")
    s.states(pattern, "self", why=_PIXELS)


@says("... c !h !w -> ... (c !r) !y !x")
def pixel_unshuffle(s: Site, pattern: str) -> None:
    s.ignores("downscale_factor")
    s.states(pattern, "self", why=_PIXELS)


_PIXELS = "pixels are shuffled"


@says("| b (g c) ... -> b (c g) ...")
def channel_shuffle(s: Site, pattern: str) -> None:
    s.states(pattern, "self", g="groups")
    s.moves(s.out, s.tensor("self"))


def onnx_reshape(s: Site) -> None:
    """Like reshape; a 0 stands for the size that the axis at that position had."""
    x, zero_copies = s.tensor("data"), not s.flag("allowzero")
    for i, size in enumerate(s.sizes("shape")):
        if size == 0 and zero_copies:
            s.equal(s.axes(x)[i], s.axes(s.out)[i])
        elif size not in (0, -1):
            s.follow(("shape", i), s.axes(s.out)[i])
    _regrouped(s, x)


@says("| a.. b.. -> (a..) (b..)")
def onnx_flatten(s: Site, pattern: str) -> None:
    x, cut = s.tensor("input"), s.integer("axis", 1)
    s.states(pattern, x, a=cut if cut >= 0 else cut + x.rank)
    s.moves(s.out, x)
    s.facts.regrouped[s.out] = x


def onnx_transpose(s: Site) -> None:
    x = s.tensor("data")
    permuted(s, x, s.axis_list("perm", x.rank, range(x.rank)[::-1]))


def onnx_unsqueeze(s: Site) -> None:
    x = s.tensor("data")
    rank = s.out.rank
    new, old = s.axis_list("axes", rank), iter(range(x.rank))
    permuted(s, x, [None if axis in new else next(old, None) for axis in range(rank)])


def onnx_expand(s: Site) -> None:
    """The operand and a shape are broadcast to each other: a size of 1 leaves an axis as it is."""
    x, sizes = s.tensor("input"), s.sizes("shape")
    s.broadcast(x)
    axes = s.axes(s.out)[s.out.rank - len(sizes) :]
    for i, (size, axis) in enumerate(paired(sizes, axes, "sizes")):
        at = x.rank - len(sizes) + i
        if isinstance(size, Value) and at >= 0 and s.axes(x)[at].size != 1:
            s.pin(axis, "a computed size, which may be 1")
        elif size != 1:
            s.follow(("shape", i), axis)
    s.moves(s.out, x)


def count(s: Site) -> None:
    s.pin(s.axes(s.tensor("data")), "its elements are counted")
    s.any_scale()


RULES: Mapping[str, Rule] = {
    "size.axis": size,
    "size.element": element,
    "size.pack": pack,
    **dict.fromkeys(("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default"), reshape),
    **dict.fromkeys(("aten.reshape_as.default", "aten.view_as.default"), reshape_as),
    "aten.flatten.using_ints": flatten,
    "aten.unflatten.int": unflatten,
    "aten.permute.default": permute,
    **dict.fromkeys(("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default"), transpose),
    **dict.fromkeys((f"aten.{name}.{o}" for name in ("movedim", "moveaxis") for o in ("int", "intlist")), move_axes),
    **dict.fromkeys(("aten.t.default", "aten.numpy_T.default"), reverse_axes),
    **dict.fromkeys(("aten.mT.default", "aten.mH.default", "aten.adjoint.default"), swap_last),
    "aten.unsqueeze.default": unsqueeze,
    **dict.fromkeys(("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims"), squeeze),
    "aten.expand.default": expand,
    "aten.broadcast_to.default": expand,
    "aten.expand_as.default": expand_as,
    "aten.broadcast_tensors.default": broadcast_tensors,
    "aten.repeat.default": repeat,
    "aten.tile.default": repeat,
    "aten.repeat_interleave.self_int": repeat_interleave,
    "aten.view_as_complex.default": as_complex,
    "aten.view_as_real.default": as_real,
    "aten.sym_size.int": size,
    "aten.pixel_shuffle.default": pixel_shuffle,
    "aten.pixel_unshuffle.default": pixel_unshuffle,
    "aten.channel_shuffle.default": channel_shuffle,
    "onnx.Reshape": onnx_reshape,
    "onnx.Flatten": onnx_flatten,
    "onnx.Transpose": onnx_transpose,
    "onnx.Squeeze": spelled(squeeze, self="data", dim="axes"),
    "onnx.Unsqueeze": onnx_unsqueeze,
    "onnx.Expand": onnx_expand,
    "onnx.Tile": spelled(repeat, self="input", repeats="repeats"),
    "onnx.Size": count,
}
