"""Look-ups and writes by index: the axes that are indexed keep their size, the others pass through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.axes import Axis
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def embedding(s: Site) -> None:
    """Rows of a table, looked up by number."""
    table, indices = s.tensor("weight"), s.tensor("indices")
    for name in ("padding_idx", "scale_grad_by_freq", "sparse"):
        s.get(name)
    s.pin(s.axes(table)[0], "rows looked up by number")
    s.equal_all(s.axes(s.out), [*s.axes(indices), *s.axes(table)[1:]])
    s.scale(s.out, {table: 1})


def index(s: Site) -> None:
    """``x[i, :, j]``: indexed axes are replaced by the broadcast axes of the indices."""
    x = s.tensor("self")
    region = _region(s, x, s["indices"], s.axes(s.out))
    s.equal_all(s.axes(s.out), region)
    s.same_scale(s.out, x)


def index_put(s: Site) -> None:
    """``x[i, :, j] = v``: v has the axes that ``x[i, :, j]`` would have."""
    x, values = s.tensor("self"), s.tensor("values")
    s.get("accumulate")
    s.equal_all(s.axes(x), s.axes(s.out))
    if not any(isinstance(i, Value) and i.dtype == "bool" for i in s["indices"]):
        region = _region(s, x, s["indices"], None)
        s.broadcast(values, out=region)
    else:
        s.pin(s.axes(values), "written where a mask says")
        s.pin(s.axes(x), "written where a mask says")
    s.same_scale(s.out, x, values)


def _region(s: Site, x: Value, indices: Sequence[Value | None], out: Sequence[Axis] | None) -> list[Axis]:
    """The axes of ``x[indices]``, those of the broadcast indices pinned."""
    indexed: list[int] = []
    position = 0
    rank = 0
    for item in indices:
        taken = 1 if item is None else item.rank if item.dtype == "bool" else 1
        if item is not None:
            indexed += range(position, position + taken)
            rank = max(rank, 1 if item.dtype == "bool" else item.rank)
        position += taken
    s.pin([s.axes(x)[axis] for axis in indexed], "indexed by position")
    for item in indices:
        if item is not None:
            s.pin(s.axes(item), "an index")
    start = indexed[0] if indexed == list(range(indexed[0], indexed[0] + len(indexed))) else 0
    kept = [axis for i, axis in enumerate(s.axes(x)) if i not in indexed]
    if out is not None:
        broadcast = list(out[start : start + rank])
        s.pin(broadcast, "an index")
    else:
        broadcast = [s.system.dim(size, s.why("an index")) for size in _broadcast_shape(indices)]
    return [*kept[:start], *broadcast, *kept[start:]]


def _broadcast_shape(indices: Sequence[Value | None]) -> list[int]:
    shapes = [list(item.shape or ()) for item in indices if item is not None]
    rank = max(map(len, shapes))
    padded = [[1] * (rank - len(shape)) + shape for shape in shapes]
    return [max(sizes) for sizes in zip(*padded, strict=True)]


def index_select(s: Site) -> None:
    """Positions of one axis."""
    x, indices = s.tensor("self"), s.tensor("index")
    axis = s.axis("dim", x.rank)
    axes = list(s.axes(x))
    s.pin([axes[axis], *s.axes(indices)], "indexed by position")
    axes[axis] = s.system.dim(s.axes(s.out)[axis].size, s.why("indexed by position"))
    s.equal_all(s.axes(s.out), axes)
    s.same_scale(s.out, x)


def gather(s: Site) -> None:
    """The result has the axes of the index; off the indexed axis they are also those of the operand."""
    x, indices = s.tensor("self"), s.tensor("index")
    s.get("sparse_grad")
    _along(s, x, indices, s.axis("dim", x.rank))
    s.equal_all(s.axes(indices), s.axes(s.out))
    s.same_scale(s.out, x)


def scatter(s: Site) -> None:
    """The result is the operand with values of the index's shape written along one axis."""
    x, indices = s.tensor("self"), s.tensor("index")
    source = s.maybe_tensor("src")
    s.get("value"), s.get("reduce"), s.get("include_self")
    _along(s, x, indices, s.axis("dim", x.rank))
    s.equal_all(s.axes(x), s.axes(s.out))
    if source is not None:
        s.broadcast(source, out=s.axes(indices)) if source.shape == indices.shape else s.pin(s.axes(source), "an index")
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


RULES: Mapping[str, Rule] = {
    "aten.embedding.default": embedding,
    "aten.index.Tensor": index,
    "aten.index_put.default": index_put,
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
    "aten.one_hot.default": one_hot,
    "aten.bucketize.Tensor": bucketize,
}
