"""Reductions without a parameter, and operators that work along an axis in order."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from graphclone.axes import Axis
from graphclone.ir import Value
from graphclone.rules.site import Cannot, Rule, Site


def _reduced(s: Site, x: Value, out: Value | None = None) -> list[Axis]:
    """The axes reduced over; the others are those of the result."""
    out = out or s.out
    reduced = s.axis_list("dim", x.rank)
    kept = [axis for i, axis in enumerate(s.axes(x)) if i not in reduced]
    if s.get("keepdim", False):
        s.equal_all([axis for i, axis in enumerate(s.axes(out)) if i not in reduced], kept)
    else:
        s.equal_all(s.axes(out), kept)
    return [s.axes(x)[axis] for axis in reduced]


def mean(s: Site) -> None:
    x = s.tensor("self")
    s.get("dtype")
    for axis in _reduced(s, x):
        s.uniform(axis, "averaged over")
    s.same_scale(s.out, x)


def total(s: Site) -> None:
    x = s.tensor("self")
    s.get("dtype")
    axes = _reduced(s, x)
    for axis in axes:
        s.uniform(axis, "summed over")
    s.scale(s.out, {x: 1}, logs=_count(axes, 1))


def norm(s: Site) -> None:
    """The p-norm grows by the p-th root of the number of copies."""
    x, order = s.tensor("self"), s.get("ord", s.get("p", 2))
    s.get("dtype")
    axes = _reduced(s, x)
    if not isinstance(order, int | float) or order <= 0:
        raise Cannot(f"a norm of order {order}")
    power = Fraction(0) if order == float("inf") else 1 / Fraction(order).limit_denominator(1000)
    for axis in axes:
        s.uniform(axis, "normed over")
    s.scale(s.out, {x: 1}, logs=_count(axes, power))


def variance(power: Fraction) -> Rule:
    """Variance (power 1) or standard deviation (1/2); without bias it depends on the number of elements."""

    def rule(s: Site) -> None:
        x = s.tensor("self")
        correction = s.get("correction", 1 if s.get("unbiased", True) else 0)
        axes = _reduced(s, x)
        if correction not in (0, 1) or (correction and len(axes) != 1):
            raise Cannot("a variance with this correction")
        for axis in axes:
            s.uniform(axis, "averaged over")
        s.scale(s.out, {x: 2 * power}, unbiased={axis: power for axis in axes} if correction else {})

    return rule


def extreme(s: Site) -> None:
    """The greatest or least element; its position means something, so with positions the axis is pinned."""
    x = s.tensor("self")
    for axis in _reduced(s, x):
        if len(s.node.outputs) > 1:
            s.pin(axis, "searched for a position")
    for out in s.node.outputs[1:]:
        _reduced(s, x, out)
    s.scale(s.out, {x: 1})


def position(s: Site) -> None:
    """argmax and argmin; of all elements where no axis is given."""
    x = s.tensor("self")
    s.pin(_reduced(s, x), "searched for a position")


def logical(s: Site) -> None:
    """all and any: copies change nothing."""
    _reduced(s, s.tensor("self"))


def unknown_sum(s: Site) -> None:
    """Reductions that copies would change: their axes keep their size."""
    x = s.tensor("self")
    s.get("dtype"), s.get("ord"), s.get("p")
    s.pin(_reduced(s, x), "reduced over")


def softmax(s: Site) -> None:
    """n copies share what one had: the result is n times smaller."""
    x = s.tensor("self")
    axis = s.axes(x)[s.axis("dim", x.rank)]
    s.get("dtype"), s.get("half_to_float")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.uniform(axis, "softmax over")
    s.require({x: 1})
    s.scale(s.out, {}, logs={axis: -1})


def ordered(s: Site) -> None:
    """Operators along an axis whose order matters (cumsum, sort, topk): that axis keeps its size."""
    x = s.tensor("self")
    for name in ("dtype", "k", "descending", "stable", "largest", "sorted", "half_to_float", "n"):
        s.get(name)
    pinned = s.axis("dim", x.rank, -1)
    s.pin(s.axes(x)[pinned] if x.rank else [], "taken in order")
    for out in s.node.outputs:
        for i, (a, b) in enumerate(zip(s.axes(x), s.axes(out), strict=True)):
            if i == pinned:
                s.pin(b, "taken in order")
            else:
                s.equal(a, b)


def ordered_linear(s: Site) -> None:
    """As ``ordered``, and values keep their scale."""
    ordered(s)
    s.scale(s.out, {s.tensor("self"): 1})


def difference(s: Site) -> None:
    """Differences of neighbours, with something put before or after them."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, -1)
    s.get("n")
    tensors = [t for t in (x, s.maybe_tensor("prepend"), s.maybe_tensor("append")) if t is not None]
    for tensor in tensors:
        for i, (a, b) in enumerate(zip(s.axes(tensor), s.axes(s.out), strict=True)):
            if i == axis:
                s.pin([a, b], "taken in order")
            else:
                s.equal(a, b)
    s.same_scale(s.out, *tensors)


def triangle(s: Site) -> None:
    """tril and triu: the last two axes keep their size."""
    x = s.tensor("self")
    s.get("diagonal")
    s.pin(s.axes(x)[-2:], "cut to a triangle")
    s.equal_all(s.axes(x), s.axes(s.out))
    s.same_scale(s.out, x)


def dense_statistics(s: Site) -> None:
    """Counts and other results that have nothing to do with the operand's layout."""
    for name in s.node.operands:
        s.get(name)
    s.pin_all("counted")


def _count(axes: list[Axis], coefficient: int | Fraction) -> dict[Axis, int | Fraction]:
    counts: dict[Axis, int | Fraction] = {}
    for axis in axes:
        counts[axis] = counts.get(axis, 0) + coefficient
    return counts


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("aten.mean.dim", "aten.mean.default"), mean),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.sum.default"), total),
    **dict.fromkeys(("aten.linalg_vector_norm.default", "aten.norm.ScalarOpt_dim", "aten.norm.Scalar"), norm),
    **dict.fromkeys(("aten.var.dim", "aten.var.correction", "aten.var.default"), variance(Fraction(1))),
    **dict.fromkeys(("aten.std.dim", "aten.std.correction", "aten.std.default"), variance(Fraction(1, 2))),
    **dict.fromkeys(
        ("aten.amax.default", "aten.amin.default", "aten.max.dim", "aten.min.dim", "aten.max.default", "aten.min.default"),
        extreme,
    ),
    **dict.fromkeys(("aten.argmax.default", "aten.argmin.default"), position),
    **dict.fromkeys(
        ("aten.all.default", "aten.all.dim", "aten.all.dims", "aten.any.default", "aten.any.dim", "aten.any.dims"), logical
    ),
    **dict.fromkeys(("aten.logsumexp.default", "aten.prod.default", "aten.prod.dim_int"), unknown_sum),
    **dict.fromkeys(("aten.softmax.int", "aten._softmax.default"), softmax),
    **dict.fromkeys(
        (
            "aten.log_softmax.int",
            "aten.cumprod.default",
            "aten.logcumsumexp.default",
            "aten.argsort.default",
            "aten.argsort.stable",
        ),
        ordered,
    ),
    **dict.fromkeys(
        ("aten.cumsum.default", "aten.sort.default", "aten.sort.stable", "aten.topk.default"),
        ordered_linear,
    ),
    "aten.diff.default": difference,
    **dict.fromkeys(("aten.tril.default", "aten.triu.default"), triangle),
    **dict.fromkeys(("aten.histc.default", "aten.bincount.default", "aten.nonzero.default"), dense_statistics),
}
