"""Look-ups and writes by index: the axes that are indexed keep their size, the others pass through."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, prod
from typing import NamedTuple

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Summand
from graphclone.graph.aliases import sharing
from graphclone.graph.ir import Operand, Value, items_of
from graphclone.rules.site import Cannot, Rule, Site, refused, says, spelled
from graphclone.rules.view import regroup


@says("!v c.. | i.. -> i.. c..")
def embedding(s: Site, pattern: str) -> None:
    s.ignores("padding_idx", "scale_grad_by_freq", "sparse")
    s.states(pattern, "weight", "indices", why="rows looked up by number")
    s.sums(s.out, Summand((s.tensor("weight"),)))
    s.facts.tables.add(s.tensor("weight"))


def embedding_bag(s: Site) -> None:
    """Rows of a table, looked up by number and gathered in bags."""
    table = s.tensor("weight")
    s.ignores("padding_idx", "scale_grad_by_freq", "sparse", "mode", "include_last_offset")
    weights = s.maybe_tensor("per_sample_weights")
    s.ignores("indices", "offsets")
    for value in (*s.tensors, *s.node.outputs):
        s.pin(s.axes(value)[:1], "rows looked up by number")
    for out in s.node.outputs:
        s.equal_all(s.axes(out)[1:], s.axes(table)[1 : out.rank])
    if weights is not None:
        s.require({weights: 1})
    s.scale(s.out, {table: 1})


def index(s: Site) -> None:
    """``x[i, :, j]``: indexed axes are replaced by the broadcast axes of the indices."""
    x = s.tensor("self")
    place = _place(s, x)
    axes = s.axes(s.out)
    count = len(axes) - len(place.others)
    s.pin(axes[place.start : place.start + count], "an index")
    s.equal_all([*axes[: place.start], *axes[place.start + count :]], place.others)
    s.takes(s.out, x)
    if items_of(s.get("indices"))[0] is not None:
        s.facts.tables.add(x)


def index_put(s: Site) -> None:
    """``x[i, :, j] = v``: v is broadcast to the axes that ``x[i, :, j]`` would have."""
    x, values = s.tensor("self"), s.tensor("values")
    s.ignores("accumulate")
    s.equal_all(s.axes(x), s.axes(s.out))
    place = _place(s, x)
    axes = s.axes(values)
    cut = max(len(axes) - (len(place.others) - place.start), 0)
    middle = max(cut - place.rank, 0)
    s.align(axes[:middle], place.others[: place.start])
    s.pin(axes[middle:cut], "an index")
    s.align(axes[cut:], place.others[place.start :])
    s.same_scale(s.out, x, values)


class _Place(NamedTuple):
    """Where ``x[indices]`` has the axes of the indices.

    Attributes:
        others: the axes of x that are not indexed.
        start: how many of them come before the axes of the indices.
        rank: how many axes the indices have, broadcast.
    """

    others: list[Axis]
    start: int
    rank: int


def _place(s: Site, x: Value) -> _Place:
    """Pin what is indexed. A mask indexes as many axes as it has, and all the indices of a place have one axis."""
    indices = [item if isinstance(item, Value) else None for item in items_of(s.get("indices"))]
    indexed: list[int] = []
    position = 0
    for item in indices:
        count = item.rank if item is not None and item.dtype in _MASKS else 1
        if item is not None:
            s.pin(s.axes(item), "an index")
            indexed += range(position, position + count)
        position += count
    if not indexed or any(item.rank == 0 for item in indices if item is not None and item.dtype in _MASKS):
        raise Cannot("it takes all or nothing")
    s.pin([s.axes(x)[axis] for axis in indexed], "indexed by position")
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    ranks = (1 if item.dtype in _MASKS else item.rank for item in indices if item is not None)
    others = [axis for i, axis in enumerate(s.axes(x)) if i not in indexed]
    return _Place(others, indexed[0] if together else 0, max(ranks))


_MASKS = ("bool", "uint8")


def masked_scatter(s: Site) -> None:
    """``x[mask] = v``: as many elements of v as the mask has places, in order.

    Trailing axes along which the mask repeats itself are written whole, so what is written is rows of v, which grow as
    those axes do. All others say how many rows come before a place: they keep their size.
    """
    x, mask, source = s.tensor("self"), s.tensor("mask"), s.tensor("source")
    axes = s.axes(s.out)
    cut = next((i for i in reversed(range(len(axes))) if not _repeats(s, mask, i - len(axes))), -1) + 1
    elements = prod(axis.size for axis in axes[cut:])
    if elements < 2 or source.elements % elements:
        raise Cannot("its mask tells the elements of the last axis apart")
    s.pin([*axes[:cut], *s.axes(mask)[: max(mask.rank - len(axes) + cut, 0)]], "chosen by a mask")
    s.broadcast(x, mask)
    rows = s.system.dim(source.elements // elements, s.why("taken in order"))
    regroup(s, s.axes(source), [rows, *axes[cut:]])
    s.same_scale(s.out, x, source)


def _repeats(s: Site, mask: Operand, axis: int) -> bool:
    """Whether a mask is the same everywhere along an axis, counted from the end; one that it lacks is broadcast."""
    if not isinstance(mask, Value) or -axis > mask.rank or (mask.shape or ())[axis] == 1:
        return True
    node = mask.producer
    if node is None or mask in sharing(s.facts.graph):
        return False
    return any(
        node.op.startswith(f"aten.{name}.") and all(_repeats(s, node.operands[x], axis) for x in operands)
        for names, operands in _REPEATING.items()
        for name in names.split()
    )


_REPEATING = {
    "expand expand_as broadcast_to to _to_copy clone contiguous alias detach logical_not bitwise_not": ("self",),
    "logical_and logical_or bitwise_and bitwise_or __and__ __or__": ("self", "other"),
}
"""Operators whose results repeat along every axis along which these operands do."""


@says("| a.. !i b.., !j.. -> a.. !k b..")
def index_select(s: Site, pattern: str) -> None:
    x, before = s.tensor("self"), s.axis("dim", s.out.rank)
    s.states(pattern, x, "index", a=before, why=_BY_POSITION)
    s.takes(s.out, x)
    if not before:
        s.facts.tables.add(x)


_BY_POSITION = "indexed by position"


def gather(s: Site) -> None:
    """The result has the axes of the index; off the indexed axis they are also those of the operand."""
    x, indices = s.tensor("self"), s.tensor("index")
    s.ignores("sparse_grad")
    _along(s, x, indices, s.axis("dim", x.rank, 0))
    s.equal_all(s.axes(indices), s.axes(s.out))
    s.takes(s.out, x)


def scatter(s: Site) -> None:
    """The result is the operand with values of the index's shape written along one axis."""
    x, indices = s.tensor("self"), s.tensor("index")
    source = s.maybe_tensor("src")
    s.ignores("include_self")
    _along(s, x, indices, s.axis("dim", x.rank))
    s.equal_all(s.axes(x), s.axes(s.out))
    if source is not None:
        for a, b in s.pairs(source, indices):
            s.pin([a, b], "an index") if a.size != b.size else s.equal(a, b)
    if s.text("reduce") == "prod":
        return
    if source is not None:
        s.same_scale(s.out, x, source)
    elif not s.get("value"):
        s.same_scale(s.out, x)


@says("a.. !i b.. + a.. !j b.. | !j -> a.. i b..")
def index_add(s: Site, pattern: str) -> None:
    s.ignores("alpha")
    before = s.axis("dim", s.out.rank)
    s.states(pattern, "self", "source", "index", a=before, why=_BY_POSITION)


def index_reduce(s: Site) -> None:
    """The operand with rows of another one multiplied in, averaged in, or compared with it, at places along an axis."""
    x, source, index = s.tensor("self"), s.tensor("source"), s.tensor("index")
    axis = s.axis("dim", x.rank)
    s.ignores("include_self")
    s.pin([*s.axes(x)[axis : axis + 1], *s.axes(source)[axis : axis + 1], *s.axes(index)], _BY_POSITION)
    for i, (a, b) in enumerate(s.pairs(x, source)):
        if i != axis:
            s.equal(a, b)
    s.equal_all(s.axes(x), s.axes(s.out))
    if s.text("reduce") != "prod":
        s.same_scale(s.out, x, source)


def _along(s: Site, x: Value, indices: Value, axis: int) -> None:
    if x.rank != indices.rank:
        raise Cannot("an index of another rank")
    for i, (a, b) in enumerate(s.pairs(x, indices)):
        if i == axis or a.size != b.size:
            s.pin([a, b], "indexed by position")
        else:
            s.equal(a, b)


@says("| a.. !i b.., !j -> a.. i b..")
def index_fill(s: Site, pattern: str) -> None:
    """A value other than 0 has no scale."""
    before = s.axis("dim", s.out.rank)
    s.states(pattern, "self", "index", a=before, why=_BY_POSITION)
    if s.get("value") == 0:
        s.same_scale(s.out, s.tensor("self"))


def fill_diagonal(s: Site) -> None:
    """One value, written where the places along all axes are the same."""
    x, value = s.tensor("self"), s.number("fill_value")
    s.ignores("wrap")
    s.pin(s.axes(x), "a diagonal")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x, *([s.literal("fill_value", value)] if value and isfinite(value) else []))


@says("| ... -> ... !n")
def one_hot(s: Site, pattern: str) -> None:
    s.ignores("num_classes")
    s.states(pattern, "self", why="classes by number")


@says("| ..., !n -> ...")
def bucketize(s: Site, pattern: str) -> None:
    s.ignores("out_int32", "right", "side")
    s.states(pattern, "self", "boundaries", why="boundaries in order")


@says("| a.. !n b.., i.. -> a.. i.. b..")
def onnx_gather(s: Site, pattern: str) -> None:
    x = s.tensor("data")
    before = s.axis("axis", x.rank, 0)
    s.states(pattern, x, "indices", a=before, why="looked up by number")
    s.takes(s.out, x)
    if not before:
        s.facts.tables.add(x)


@says("| b.. !x.. y.., b.. i.. !n -> b.. i.. y..")
def gather_nd(s: Site, pattern: str) -> None:
    """The last axis of the indices counts off the first axes after the batch."""
    x, indices = s.tensor("data"), s.tensor("indices")
    runs = {"b": s.integer("batch_dims", 0), "x": s.axes(indices)[-1].size}
    s.states(pattern, x, indices, why="looked up by number", **runs)
    s.takes(s.out, x)


def scatter_elements(s: Site) -> None:
    """The operand with the updates, of the index's shape, written or reduced along one axis."""
    x, indices, updates = s.tensor("data"), s.tensor("indices"), s.tensor("updates")
    _along(s, x, indices, s.axis("axis", x.rank, 0))
    s.equal_all(s.axes(indices), s.axes(updates))
    _updated(s, x, updates)


@says("| !x.. y.., !i.. !n, !u.. y..")
def scatter_nd(s: Site, pattern: str) -> None:
    """The operand with slices of it replaced or reduced at the places that the last axis of the indices gives."""
    x, indices, updates = s.tensor("data"), s.tensor("indices"), s.tensor("updates")
    runs = {"x": s.axes(indices)[-1].size, "u": indices.rank - 1}
    s.states(pattern, x, indices, updates, why="written by number", **runs)
    _updated(s, x, updates)


def _updated(s: Site, x: Value, updates: Value) -> None:
    s.equal_all(s.axes(x), s.axes(s.out))
    if s.text("reduction") != "mul":
        s.same_scale(s.out, x, updates)


@says("| a.. !n b.., a.. !m b..")
def tensor_scatter(s: Site, pattern: str) -> None:
    """The operand with the update written along one axis, from a place on that may differ by batch."""
    x, updates, start = s.tensor("past_cache"), s.tensor("update"), s.maybe_tensor("write_indices")
    s.ignores("mode")
    s.states(pattern, x, updates, a=s.integer("axis", -2), why="written by number")
    if start is not None:
        s.equal(s.axes(start)[0], s.axes(x)[0])
    _updated(s, x, updates)


RULES: Mapping[str, Rule] = {
    "aten.embedding.default": embedding,
    "aten.embedding_bag.padding_idx": embedding_bag,
    "aten.index.Tensor": index,
    "aten.index_put.default": index_put,
    "aten.masked_scatter.default": masked_scatter,
    "aten.index_select.default": index_select,
    "aten.gather.default": gather,
    **dict.fromkeys((f"aten.scatter.{name}" for name in ("value", "src")), scatter),
    **dict.fromkeys(("aten.scatter_add.default", "aten.scatter_reduce.two"), scatter),
    "aten.index_add.default": index_add,
    "aten.index_copy.default": index_add,
    "aten.index_reduce.default": index_reduce,
    "aten.index_fill.int_Scalar": index_fill,
    "aten.fill_diagonal_.default": fill_diagonal,
    "aten.one_hot.default": one_hot,
    "aten.bucketize.Tensor": bucketize,
    "aten.searchsorted.Tensor": spelled(bucketize, boundaries="sorted_sequence"),
    "onnx.Gather": onnx_gather,
    "onnx.GatherElements": spelled(gather, self="data", index="indices", dim="axis"),
    "onnx.GatherND": gather_nd,
    **dict.fromkeys(("onnx.Scatter", "onnx.ScatterElements"), scatter_elements),
    "onnx.ScatterND": scatter_nd,
    "onnx.TensorScatter": tensor_scatter,
    "onnx.NonMaxSuppression": refused("boxes are compared and chosen by number"),
    "onnx.Unique": refused("elements are compared and counted"),
}
