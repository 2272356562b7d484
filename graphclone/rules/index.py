"""Look-ups and writes by index: the axes that are indexed keep their size, the others pass through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, prod
from typing import NamedTuple

from graphclone.algebra.axes import Axis
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site, refused
from graphclone.rules.view import regroup


def embedding(s: Site) -> None:
    """Rows of a table, looked up by number."""
    table, indices = s.tensor("weight"), s.tensor("indices")
    for name in ("padding_idx", "scale_grad_by_freq", "sparse"):
        s.get(name)
    s.pin(s.axes(table)[0], "rows looked up by number")
    s.equal_all(s.axes(s.out), [*s.axes(indices), *s.axes(table)[1:]])
    s.scale(s.out, {table: 1})


def embedding_bag(s: Site) -> None:
    """Rows of a table, looked up by number and gathered in bags."""
    table = s.tensor("weight")
    for name in ("padding_idx", "scale_grad_by_freq", "sparse", "mode", "include_last_offset"):
        s.get(name)
    weights = s.maybe_tensor("per_sample_weights")
    s.tensor("indices"), s.tensor("offsets")
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
    place = _place(s, x, s["indices"])
    axes = s.axes(s.out)
    count = len(axes) - len(place.kept)
    s.pin(axes[place.start : place.start + count], "an index")
    s.equal_all([*axes[: place.start], *axes[place.start + count :]], place.kept)
    s.takes(s.out, x)


def index_put(s: Site) -> None:
    """``x[i, :, j] = v``: v is broadcast to the axes that ``x[i, :, j]`` would have."""
    x, values = s.tensor("self"), s.tensor("values")
    s.get("accumulate")
    s.equal_all(s.axes(x), s.axes(s.out))
    place = _place(s, x, s["indices"])
    axes = s.axes(values)
    cut = max(len(axes) - (len(place.kept) - place.start), 0)
    middle = max(cut - place.rank, 0)
    s.align(axes[:middle], place.kept[: place.start])
    s.pin(axes[middle:cut], "an index")
    s.align(axes[cut:], place.kept[place.start :])
    s.same_scale(s.out, x, values)


class _Place(NamedTuple):
    """Where ``x[indices]`` has the axes of the indices.

    Attributes:
        kept: the axes of x that are not indexed.
        start: how many of them come before the axes of the indices.
        rank: how many axes the indices have, broadcast.
    """

    kept: list[Axis]
    start: int
    rank: int


def _place(s: Site, x: Value, indices: Sequence[Value | None]) -> _Place:
    """Pin what is indexed. A mask indexes as many axes as it has, and all the indices of a place have one axis."""
    indexed: list[int] = []
    position = 0
    for item in indices:
        taken = item.rank if item is not None and item.dtype in _MASKS else 1
        if item is not None:
            s.pin(s.axes(item), "an index")
            indexed += range(position, position + taken)
        position += taken
    if not indexed or any(item.rank == 0 for item in indices if item is not None and item.dtype in _MASKS):
        raise Cannot("it takes all or nothing")
    s.pin([s.axes(x)[axis] for axis in indexed], "indexed by position")
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    ranks = (1 if item.dtype in _MASKS else item.rank for item in indices if item is not None)
    kept = [axis for i, axis in enumerate(s.axes(x)) if i not in indexed]
    return _Place(kept, indexed[0] if together else 0, max(ranks))


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


def _repeats(s: Site, mask: Value, axis: int) -> bool:
    """Whether a mask is the same everywhere along an axis, counted from the end; one that it lacks is broadcast."""
    if -axis > mask.rank or (mask.shape or ())[axis] == 1:
        return True
    graph, node = s.facts.graph, mask.producer
    written = {value.dtype for n in graph.nodes if graph.dialect.mutates(n) for value in n.inputs if value.is_tensor}
    if node is None or mask.dtype in written:  # perhaps the mask itself, or what it shows
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


def index_select(s: Site) -> None:
    """Positions of one axis."""
    x, indices = s.tensor("self"), s.tensor("index")
    axis = s.axis("dim", x.rank)
    axes = list(s.axes(x))
    s.pin([axes[axis], *s.axes(indices)], "indexed by position")
    axes[axis] = s.system.dim(s.axes(s.out)[axis].size, s.why("indexed by position"))
    s.equal_all(s.axes(s.out), axes)
    s.takes(s.out, x)


def gather(s: Site) -> None:
    """The result has the axes of the index; off the indexed axis they are also those of the operand."""
    x, indices = s.tensor("self"), s.tensor("index")
    s.get("sparse_grad")
    _along(s, x, indices, s.axis("dim", x.rank))
    s.equal_all(s.axes(indices), s.axes(s.out))
    s.takes(s.out, x)


def scatter(s: Site) -> None:
    """The result is the operand with values of the index's shape written along one axis."""
    x, indices = s.tensor("self"), s.tensor("index")
    source = s.maybe_tensor("src")
    s.get("include_self")
    _along(s, x, indices, s.axis("dim", x.rank))
    s.equal_all(s.axes(x), s.axes(s.out))
    if source is not None:
        for a, b in zip(s.axes(source), s.axes(indices), strict=True):
            s.pin([a, b], "an index") if a.size != b.size else s.equal(a, b)
    if s.get("reduce") == "prod":
        return
    if source is not None:
        s.same_scale(s.out, x, source)
    elif not s.get("value"):
        s.same_scale(s.out, x)


def index_add(s: Site) -> None:
    """Rows added at positions of one axis."""
    x, indices, source = s.tensor("self"), s.tensor("index"), s.tensor("source")
    axis = s.axis("dim", x.rank)
    s.get("alpha")
    s.pin([s.axes(x)[axis], s.axes(source)[axis], *s.axes(indices)], "indexed by position")
    s.equal_all(s.axes(x), s.axes(s.out))
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(source), strict=True)):
        if i != axis:
            s.equal(a, b)
    s.same_scale(s.out, x, source)


def _along(s: Site, x: Value, indices: Value, axis: int) -> None:
    if x.rank != indices.rank:
        raise Cannot("an index of another rank")
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(indices), strict=True)):
        if i == axis or a.size != b.size:
            s.pin([a, b], "indexed by position")
        else:
            s.equal(a, b)


def index_fill(s: Site) -> None:
    """One value at positions of one axis; it counts as non-linear unless it is 0."""
    x, indices = s.tensor("self"), s.tensor("index")
    s.pin([s.axes(x)[s.axis("dim", x.rank)], *s.axes(indices)], "indexed by position")
    s.equal_all(s.axes(x), s.axes(s.out))
    if s.get("value") == 0:
        s.same_scale(s.out, x)


def fill_diagonal(s: Site) -> None:
    """One value, written where the places along all axes are the same."""
    x, value = s.tensor("self"), s.number("fill_value")
    s.get("wrap")
    s.pin(s.axes(x), "a diagonal")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x, *([s.literal("fill_value", value)] if value and isfinite(value) else []))


def one_hot(s: Site) -> None:
    """A new axis of classes."""
    x = s.tensor("self")
    s.get("num_classes")
    s.pin(s.axes(s.out)[-1], "classes by number")
    s.equal_all(s.axes(x), s.axes(s.out)[:-1])


def bucketize(s: Site) -> None:
    """The number of the interval each element is in."""
    x = s.tensor("self")
    s.pin(s.axes(s.tensor("boundaries")), "boundaries in order")
    s.get("out_int32"), s.get("right")
    s.equal_all(s.axes(x), s.axes(s.out))


def onnx_gather(s: Site) -> None:
    """Places of one axis, looked up by number: the axes of the indices stand where that axis was."""
    x, indices = s.tensor("data"), s.tensor("indices")
    axis = s.axis("axis", x.rank, 0)
    axes = s.axes(x)
    s.pin(axes[axis], "looked up by number")
    s.equal_all(s.axes(s.out), [*axes[:axis], *s.axes(indices), *axes[axis + 1 :]])
    s.takes(s.out, x)


def gather_elements(s: Site) -> None:
    """As ``gather``."""
    x, indices = s.tensor("data"), s.tensor("indices")
    _along(s, x, indices, s.axis("axis", x.rank, 0))
    s.equal_all(s.axes(indices), s.axes(s.out))
    s.takes(s.out, x)


def gather_nd(s: Site) -> None:
    """``x[i]`` for every i among the last axis of the indices, which count off the first axes after the batch."""
    x, indices = s.tensor("data"), s.tensor("indices")
    batch = s.integer("batch_dims", 0)
    *places, number = s.axes(indices)
    taken = batch + number.size
    s.pin([number, *s.axes(x)[batch:taken]], "looked up by number")
    s.equal_all(s.axes(x)[:batch], places[:batch])
    s.equal_all(s.axes(s.out), [*places, *s.axes(x)[taken:]])
    s.takes(s.out, x)


def scatter_elements(s: Site) -> None:
    """The operand with the updates, of the index's shape, written or reduced along one axis."""
    x, indices, updates = s.tensor("data"), s.tensor("indices"), s.tensor("updates")
    _along(s, x, indices, s.axis("axis", x.rank, 0))
    s.equal_all(s.axes(indices), s.axes(updates))
    _updated(s, x, updates)


def scatter_nd(s: Site) -> None:
    """The operand with slices of it replaced or reduced at the places that the last axis of the indices gives."""
    x, indices, updates = s.tensor("data"), s.tensor("indices"), s.tensor("updates")
    taken, places = s.axes(indices)[-1].size, indices.rank - 1
    s.pin([*s.axes(indices), *s.axes(x)[:taken], *s.axes(updates)[:places]], "written by number")
    s.equal_all(s.axes(updates)[places:], s.axes(x)[taken:])
    _updated(s, x, updates)


def _updated(s: Site, x: Value, updates: Value) -> None:
    s.equal_all(s.axes(x), s.axes(s.out))
    if s.get("reduction") != "mul":
        s.same_scale(s.out, x, updates)


def tensor_scatter(s: Site) -> None:
    """The operand with the update written along one axis, from a place on that may differ by batch."""
    x, updates, start = s.tensor("past_cache"), s.tensor("update"), s.maybe_tensor("write_indices")
    axis = s.axis("axis", x.rank, -2)
    s.get("mode")
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(updates), strict=True)):
        if i == axis:
            s.pin([a, b], "written by number")
        else:
            s.equal(a, b)
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
    **dict.fromkeys(
        (
            "aten.scatter.value",
            "aten.scatter.src",
            "aten.scatter_add.default",
            "aten.scatter_reduce.two",
        ),
        scatter,
    ),
    "aten.index_add.default": index_add,
    "aten.index_copy.default": index_add,
    "aten.index_fill.int_Scalar": index_fill,
    "aten.fill_diagonal_.default": fill_diagonal,
    "aten.one_hot.default": one_hot,
    "aten.bucketize.Tensor": bucketize,
    "onnx.Gather": onnx_gather,
    "onnx.GatherElements": gather_elements,
    "onnx.GatherND": gather_nd,
    **dict.fromkeys(("onnx.Scatter", "onnx.ScatterElements"), scatter_elements),
    "onnx.ScatterND": scatter_nd,
    "onnx.TensorScatter": tensor_scatter,
    "onnx.NonMaxSuppression": refused("boxes are compared and chosen by number"),
    "onnx.Unique": refused("elements are compared and counted"),
}
