"""Reductions without a parameter, and operators that work along an axis in order."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Scaled
from graphclone.graph.ir import Operand, Value, items_of
from graphclone.rules.site import Cannot, Rule, Site, root, spelled, stated


def _reduced(s: Site, x: Value, out: Value | None = None) -> list[Axis]:
    """The axes reduced over; the others are those of the result."""
    out = out or s.out
    reduced = _over(s, x)
    kept = [axis for i, axis in enumerate(s.axes(x)) if i not in reduced]
    if s.flag("keepdim", s.node.op.startswith("onnx.")):  # ONNX keeps them if not told otherwise
        s.equal_all([axis for i, axis in enumerate(s.axes(out)) if i not in reduced], kept)
    else:
        s.equal_all(s.axes(out), kept)
    return [s.axes(x)[axis] for axis in reduced]


def _over(s: Site, x: Value) -> list[int]:
    """The indices of the axes reduced over, which are all if none is named."""
    return s.axis_list("dim", x.rank, ()) or list(range(x.rank))


def mean(s: Site) -> None:
    x = s.tensor("self")
    s.ignores("dtype")
    for axis in _reduced(s, x):
        s.uniform(axis, "averaged over")
    s.same_scale(s.out, x)


def total(s: Site) -> None:
    x = s.tensor("self")
    s.ignores("dtype")
    axes = _reduced(s, x)
    if not s.out.is_float:
        s.pin(axes, "counted")
    for axis in axes:
        s.uniform(axis, "summed over")
    s.scale(s.out, {x: 1}, logs=_count(axes, 1))


def norm(s: Site) -> None:
    """The p-norm grows by the p-th root of the number of copies."""
    x, order = s.tensor("self"), s.get("ord") if s.has("ord") else s.get("p")
    s.ignores("dtype")
    axes = _reduced(s, x)
    if s.node.op == "aten.linalg_norm.default" and len(axes) == 2 and order is not None:
        raise Cannot("a matrix norm")
    _normed(s, axes, {x: 1}, 2 if order is None else order)


def distance(s: Site) -> None:
    s.ignores("compute_mode")
    axes = s.states("| ... p m, ... r m -> ... p r", "x1", "x2")
    a, b = s.tensor("x1"), s.tensor("x2")
    _normed(s, [axes["m"]], {a: 1}, s.number("p", 2))
    s.require({a: 1, b: -1})


def _normed(s: Site, axes: list[Axis], terms: Mapping[Scaled, int], order: Operand) -> None:
    """A norm over axes; the greatest or least of all elements does not care for copies."""
    power = root(order)
    for axis in axes:
        s.uniform(axis, "normed over")
    s.scale(s.out, terms, logs=_count(axes, power))


def variance(power: Fraction) -> Rule:
    """Variance (power 1) or standard deviation (1/2); without bias it depends on the number of elements.

    Where that number is known only at run time no factor makes up for more elements.
    """

    def rule(s: Site) -> None:
        x = s.tensor("self")
        correction = s.number("correction", 1 if s.flag("unbiased", True) else 0)
        if correction not in (0, 1):
            raise Cannot("a variance with this correction")
        axes = _reduced(s, x)
        if correction and any(i in x.dynamic for i in _over(s, x)):
            s.pin(axes, "an unbiased variance over a dynamic number of elements")
        for axis in axes:
            s.uniform(axis, "averaged over")
        elements = s.system.product(axes)
        unbiased = {elements: -power} if correction and elements.size > 1 else {}
        s.scale(s.out, {x: 2 * power}, unbiased=unbiased)

    return rule


def squared_error(s: Site) -> None:
    """``mean((x - y) ** 2)``, or without the mean."""
    x, y, reduction = s.tensor("self"), s.tensor("target"), s.integer("reduction", 1)
    if reduction not in (0, 1) or x.shape != y.shape:
        raise Cannot("a sum of squared errors")
    s.equal_all(s.axes(x), s.axes(y))
    if reduction == 0:
        s.equal_all(s.axes(x), s.axes(s.out))
    else:
        for axis in s.axes(x):
            s.uniform(axis, "averaged over")
    s.require({x: 1, y: -1})
    s.scale(s.out, {x: 2})


def extreme(s: Site) -> None:
    """The greatest or least element; its position means something, so with positions the axis is pinned."""
    x = s.tensor("self")
    axes = _reduced(s, x)
    if len(s.node.outputs) > 1:
        s.pin(axes, "searched for a position")
    for out in s.node.outputs[1:]:
        _reduced(s, x, out)
    s.facts.extremes[s.out] = tuple(axes)
    s.moves(s.out, x)


def position(s: Site) -> None:
    x = s.tensor("self")
    s.pin(_reduced(s, x), "searched for a position")


def logical(s: Site) -> None:
    """all and any: copies change nothing."""
    _reduced(s, s.tensor("self"))


def unknown_sum(s: Site) -> None:
    """Reductions that copies would change: their axes keep their size."""
    x = s.tensor("self")
    s.ignores("dtype", "ord", "p")
    s.pin(_reduced(s, x), "reduced over")


def softmax(s: Site) -> None:
    """Copies share what one had."""
    s.ignores("dtype", "half_to_float")
    axes = s.states("| a.. ~n b.. -> a.. n b..", "self", a=s.integer("dim", -1), why="softmax over")
    s.scale(s.out, {}, logs={axes["n"]: -1})


def ordered(s: Site) -> None:
    """Operators along an axis whose order matters: cumsum, sort, topk."""
    s.ignores("dtype", "k", "descending", "stable", "largest", "sorted", "half_to_float", "n")
    pattern = "| a.. !n b.. -> a.. !m b.., a.. !m b..?"
    s.states(pattern, "self", a=s.integer("dim", -1), why="taken in order")


def ordered_linear(s: Site) -> None:
    ordered(s)
    s.scale(s.out, {s.tensor("self"): 1})


def difference(s: Site) -> None:
    """Differences of neighbours, with something put before or after them."""
    s.ignores("n")
    pattern = "a.. !n b.. + a.. !p b..? + a.. !q b..? -> a.. !m b.."
    s.states(pattern, "self", "prepend", "append", a=s.integer("dim", -1), why="taken in order")


def triangle(s: Site) -> None:
    s.ignores("diagonal", "upper")
    s.states("... !i !j -> ... i j", "self", why="cut to a triangle")


matrix_function = stated("| ... !i !j -> ... i j", "self", why="a matrix function")


def fourier(s: Site) -> None:
    """Fourier transforms: the axes they work on keep their size."""
    x = s.tensor("self")
    s.ignores("n", "norm")
    transformed = _transformed(s, x)
    for i, (a, b) in enumerate(s.pairs(x, s.out)):
        if i in transformed:
            s.pin([a, b], "Fourier transformed")
        else:
            s.equal(a, b)
    s.same_scale(s.out, x)


def _transformed(s: Site, x: Value) -> list[int]:
    """The axes given, else the last one or two by the name of the op, else all or as many as there are sizes."""
    sizes, name = items_of(s.get("s")), s.node.op.split(".")[1]
    if s.has("dim") or name.endswith("n"):
        axes = _over(s, x)
        return axes[-len(sizes) :] if sizes and not s.has("dim") else axes
    return [x.rank - 1 - i for i in range(2 if name.endswith("2") else 1)]


def dense_statistics(s: Site) -> None:
    """Results that depend on the numbers of the operands, not on their layout."""
    s.ignores(*s.node.operands)
    s.pin_all("depends on the data")


def onnx_reduction(rule: Rule) -> Rule:
    """A reduction over axes that are literals; perhaps over none, where none are given."""

    def reduction(s: Site) -> None:
        x, axes = s.tensor("data"), s.integers("axes", ())
        if s.flag("noop_with_empty_axes") and not axes:
            s.ignores("keepdims")
            s.equal_all(s.axes(x), s.axes(s.out))
        else:
            spelled(rule, self="data", dim="axes", keepdim="keepdims")(s)

    return reduction


def norm_of(order: int) -> Rule:

    def rule(s: Site) -> None:
        x = s.tensor("self")
        axes = _reduced(s, x)
        if not s.out.is_float:
            s.pin(axes, "summed over integers")
        _normed(s, axes, {x: 1}, order)

    return rule


def squares(s: Site) -> None:
    x = s.tensor("self")
    axes = _reduced(s, x)
    if not s.out.is_float:
        s.pin(axes, "summed over integers")
    for axis in axes:
        s.uniform(axis, "summed over")
    s.scale(s.out, {x: 2}, logs=_count(axes, 1))


def onnx_position(s: Site) -> None:
    s.ignores("select_last_index")
    kept = "1 " if s.flag("keepdims", True) else ""
    s.states(f"| a.. !n b.. -> a.. {kept}b..", "data", a=s.integer("axis", 0), why="searched for a position")


def running(s: Site) -> None:
    """CumSum and CumProd; the sums keep their scale."""
    x = s.tensor("x")
    s.ignores("exclusive", "reverse")
    s.states("| a.. !n b.. -> a.. n b..", x, a=s.integer("axis"), why="taken in order")
    if s.node.op == "onnx.CumSum":
        s.scale(s.out, {x: 1})


def greatest(s: Site) -> None:
    """TopK, whose number has been an attribute."""
    s.ignores("K")
    spelled(ordered_linear, self="X", dim="axis")(s)


def flattened(kind: str) -> Rule:
    """Softmax and its like up to opset 12, over all axes from one on."""

    def rule(s: Site) -> None:
        x, start = s.tensor("input"), s.integer("axis", 1)
        mark = "~" if kind == "softmax" else "!"
        start += x.rank if start < 0 else 0
        axes = s.states(f"| a.. {mark}n.. -> a.. n..", x, a=start, why=f"{kind} over")
        if kind == "softmax":
            s.scale(s.out, {}, logs=_count(list(axes.named("n")), -1))

    return rule


def discrete_fourier(s: Site) -> None:
    """Along one axis; the last one holds real and imaginary parts."""
    x = s.tensor("input")
    s.ignores("dft_length", "inverse", "onesided")
    if not s.has("axis") and x.rank != 3:  # the default was 1 before it was -2
        raise Cannot("its axis is not given")
    axis = s.axis("axis", x.rank, 1)
    for i, (a, b) in enumerate(s.pairs(x, s.out)):
        if i in (axis, x.rank - 1):
            s.pin([a, b], "Fourier transformed")
        else:
            s.equal(a, b)
    s.same_scale(s.out, x)


def short_time_fourier(s: Site) -> None:
    """Time becomes frames of frequencies, every frame multiplied by a window."""
    s.ignores("frame_step", "frame_length", "onesided")
    s.states("b !t.., !w? -> b !f..", "signal", "window", why="Fourier transformed")


determinant = stated("| ... !i !j -> ...", "X", why="a determinant")


def likelihood(s: Site) -> None:
    """The negative logarithm of the likelihood of the class that the target names."""
    s.ignores("ignore_index")
    s.states("| n !c d.., n d.., c?", "input", "target", "weight", why=_CLASSES)
    _averaged(s, s.tensor("input"), s.tensor("target"), s.maybe_tensor("weight"))


def cross_entropy(s: Site) -> None:
    """As ``likelihood``, of a softmax, whose logarithm is another result."""
    x = s.tensor("scores")
    s.ignores("ignore_index")
    s.states("| n !c d.., n d.., c?", x, "labels", "weights", why=_CLASSES)
    for out in s.node.outputs[1:]:
        s.equal_all(s.axes(x), s.axes(out))
    s.require({x: 1})
    _averaged(s, None, s.tensor("labels"), s.maybe_tensor("weights"))


_CLASSES = "its elements are classes"


def _averaged(s: Site, x: Value | None, target: Value, weight: Value | None) -> None:
    """The loss of every element, their sum, or their weighted mean."""
    reduction = s.text("reduction", "mean")
    terms: dict[Scaled, int] = {value: 1 for value in (x, weight) if value is not None}
    if reduction == "none":
        s.equal_all(s.axes(target), s.axes(s.out))
        s.scale(s.out, terms)
        return
    for axis in s.axes(target):
        s.uniform(axis, "averaged over")
    if reduction == "sum":
        s.scale(s.out, terms, logs=_count(list(s.axes(target)), 1))
    else:
        s.scale(s.out, {} if x is None else {x: 1})


def _count(axes: list[Axis], coefficient: int | Fraction) -> dict[Axis, int | Fraction]:
    counts: dict[Axis, int | Fraction] = {}
    for axis in axes:
        counts[axis] = counts.get(axis, 0) + coefficient
    return counts


def _overloads(names: str, *overloads: str) -> list[str]:
    return [f"aten.{name}.{overload}" for name in names.split() for overload in overloads]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_overloads("mean", "dim", "default"), mean),
    **dict.fromkeys(_overloads("sum", "dim_IntList", "default"), total),
    **dict.fromkeys(_overloads("linalg_vector_norm linalg_norm", "default"), norm),
    **dict.fromkeys(_overloads("norm", "ScalarOpt_dim", "Scalar"), norm),
    "aten.cdist.default": distance,
    **dict.fromkeys(_overloads("var", "dim", "correction", "default"), variance(Fraction(1))),
    **dict.fromkeys(_overloads("std", "dim", "correction", "default"), variance(Fraction(1, 2))),
    "aten.mse_loss.default": squared_error,
    **dict.fromkeys(_overloads("amax amin max min", "default"), extreme),
    **dict.fromkeys(_overloads("max min", "dim"), extreme),
    **dict.fromkeys(_overloads("argmax argmin", "default"), position),
    **dict.fromkeys(_overloads("all any", "default", "dim", "dims"), logical),
    "aten._is_all_true.default": logical,
    **dict.fromkeys(_overloads("logsumexp prod", "default"), unknown_sum),
    "aten.prod.dim_int": unknown_sum,
    **dict.fromkeys(("aten.softmax.int", "aten._softmax.default"), softmax),
    **dict.fromkeys(("aten.log_softmax.int", "aten._log_softmax.default"), ordered),
    **dict.fromkeys(_overloads("cumprod logcumsumexp argsort", "default"), ordered),
    "aten.argsort.stable": ordered,
    **dict.fromkeys(_overloads("cumsum cummax cummin sort topk", "default"), ordered_linear),
    "aten.sort.stable": ordered_linear,
    "aten.diff.default": difference,
    **dict.fromkeys(_overloads("tril triu", "default"), triangle),
    "aten.matrix_exp.default": matrix_function,
    **dict.fromkeys(_overloads("fft_fft fft_ifft fft_rfft fft_irfft", "default"), fourier),
    **dict.fromkeys(_overloads("fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2", "default"), fourier),
    **dict.fromkeys(_overloads("fft_fftn fft_ifftn fft_rfftn fft_irfftn", "default"), fourier),
    **dict.fromkeys(_overloads("histc bincount nonzero where", "default"), dense_statistics),
    **{f"onnx.Reduce{kind}": onnx_reduction(extreme) for kind in ("Max", "Min")},
    **{f"onnx.Reduce{kind}": onnx_reduction(unknown_sum) for kind in ("Prod", "LogSum", "LogSumExp")},
    "onnx.ReduceMean": onnx_reduction(mean),
    "onnx.ReduceSum": onnx_reduction(total),
    "onnx.ReduceL1": onnx_reduction(norm_of(1)),
    "onnx.ReduceL2": onnx_reduction(norm_of(2)),
    "onnx.ReduceSumSquare": onnx_reduction(squares),
    "onnx.ArgMax": onnx_position,
    "onnx.ArgMin": onnx_position,
    "onnx.Softmax": spelled(softmax, self="input", dim="axis"),
    "onnx.LogSoftmax": spelled(ordered, self="input", dim="axis"),
    "onnx.Hardmax": spelled(ordered, self="input", dim="axis"),
    "onnx.Softmax.1": flattened("softmax"),
    "onnx.LogSoftmax.1": flattened("log softmax"),
    "onnx.Hardmax.1": flattened("hard maximum"),
    "onnx.CumSum": running,
    "onnx.CumProd": running,
    "onnx.TopK": greatest,
    "onnx.Trilu": spelled(triangle, self="input", diagonal="k"),
    "onnx.Det": determinant,
    "onnx.DFT": discrete_fourier,
    "onnx.STFT": short_time_fourier,
    "onnx.NegativeLogLikelihoodLoss": likelihood,
    "onnx.SoftmaxCrossEntropyLoss": cross_entropy,
    **dict.fromkeys(("onnx.NonZero", "onnx.Unique", "onnx.Multinomial", "onnx.Size"), dense_statistics),
}
