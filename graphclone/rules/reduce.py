"""Reductions without a parameter, and operators that work along an axis in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from functools import partial
from math import isinf

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Fill
from graphclone.analysis.facts import Scaled, Summand
from graphclone.graph.ir import Value
from graphclone.rules.patterns import changed, reduced
from graphclone.rules.powers import root
from graphclone.rules.site import Cannot, Rule, Site, refused, says, spelled, stated


def _reduced(s: Site, mark: str, why: str) -> list[Axis]:
    """State a reduction, with a mark at the axes reduced over; the axes."""
    x = s.tensor("self")
    over = _over(s, x)
    before, after = reduced([axis in over for axis in range(x.rank)], mark, keep=s.flag("keepdim"))
    axes = s.states(f"| {before} -> {', '.join([after] * len(s.node.outputs))}", x, why=why)
    return [axes[f"x{axis}"] for axis in over]


def _over(s: Site, x: Value) -> list[int]:
    """The indices of the axes reduced over, which are all if none is named."""
    return s.axis_list("dim", x.rank, ()) or list(range(x.rank))


def mean(s: Site) -> None:
    s.ignores("dtype")
    x, axes = s.tensor("self"), _reduced(s, "~", "averaged over")
    s.gathers(axes, x, Fill.MEAN, Fill.ZERO)
    s.scale(s.out, {x: 1}, averages=dict.fromkeys(axes, 1), averaged=x)
    s.sums(s.out, Summand((x,)))
    if s.out.rank == x.rank:
        s.facts.means[s.out] = (x, tuple(axes))


def powers(exponent: int) -> Rule:
    """The sum of powers, of numbers that may be integers: these are counted."""

    def rule(s: Site) -> None:
        s.ignores("dtype")
        x, axes = s.tensor("self"), _reduced(s, *(("~", "summed over") if s.out.is_float else ("!", "counted")))
        s.gathers(axes, x, Fill.ZERO)
        s.scale(s.out, {x: exponent}, logs=_count(axes, 1))
        if exponent == 1:
            s.sums(s.out, Summand((x,)))

    return rule


def norm(s: Site, order: float = 2) -> None:
    """The p-norm grows by the p-th root of the number of copies."""
    s.ignores("dtype")
    order = s.number("ord", order)
    x, axes = s.tensor("self"), _reduced(s, *(("~", "normed over") if s.out.is_float else ("!", "counted")))
    if order > 0:  # the least of all elements would be that of a pad
        s.gathers(axes, x, Fill.ZERO)
    s.scale(s.out, {x: 1}, logs=_count(axes, root(order)))


@says("| ... p ~m, ... r m -> ... p r")
def distance(s: Site, pattern: str) -> None:
    """The gradient of the greatest difference goes to all copies of it in full, so that it may have none."""
    s.ignores("compute_mode")
    axes = s.states(pattern, "x1", "x2", why="normed over")
    if isinf(s.number("p", 2)):
        s.pin([axes["m"]], "the greatest of differences")
    a, b = s.tensor("x1"), s.tensor("x2")
    s.scale(s.out, {a: 1}, logs={axes["m"]: root(s.number("p", 2))})
    s.require({a: 1, b: -1})


def similarity(s: Site) -> None:
    """``x . y / (|x| |y|)``: scales and copies cancel, if the least norm to divide by follows them."""
    x, y = s.tensor("x1"), s.tensor("x2")
    before = s.axis("dim", max(x.rank, y.rank), 1)
    last = before == max(x.rank, y.rank) - 1
    if not last and x.shape != y.shape:
        raise Cannot("a similarity along an axis before those that are broadcast")
    pattern = "| ... ~n, ... ~n -> ..." if last else "| a.. ~n b.., a.. ~n b.. -> a.. b.."
    axis = s.states(pattern, x, y, **({} if last else {"a": before}), why="normed over")["n"]
    for operand in (x, y):
        s.gathers([axis], operand, Fill.ZERO)
    least = s.literal("eps", s.number("eps", 1e-8))
    s.scale(s.out, {})
    s.require({x: 1, y: -1})
    s.require({x: 1, least: -1}, logs={axis: Fraction(1, 2)})


def variance(power: Fraction) -> Rule:
    """Variance (power 1) or standard deviation (1/2); without bias it depends on the number of elements.

    Where that number is known only at run time no factor makes up for more elements.
    """

    def rule(s: Site) -> None:
        x, correction = s.tensor("self"), s.number("correction", 1)
        if correction not in (0, 1):
            raise Cannot("a variance with this correction")
        if correction and not x.dynamic.keys().isdisjoint(_over(s, x)):
            axes = _reduced(s, "!", "an unbiased variance over a dynamic number of elements")
        else:
            axes = _reduced(s, "~", "averaged over")
        elements = s.system.product(axes)
        unbiased = {elements: -power} if correction and elements.size > 1 else {}
        if not unbiased:
            s.gathers(axes, x, Fill.MEAN, centred=True)
        s.scale(s.out, {x: 2 * power}, unbiased=unbiased, averages={} if unbiased else dict.fromkeys(axes, power))

    return rule


def squared_error(s: Site) -> None:
    """``mean((x - y) ** 2)``, or without the mean."""
    x, y, reduction = s.tensor("self"), s.tensor("target"), s.integer("reduction", 1)
    if reduction not in (0, 1) or x.shape != y.shape:
        raise Cannot("a sum of squared errors")
    s.states("| ~x.., x.. ->" if reduction else "| x.., x.. -> x..", x, y, why="averaged over")
    s.require({x: 1, y: -1})
    s.scale(s.out, {x: 2})


def extreme(s: Site) -> None:
    """The greatest or least element; its position means something, so where that is read the axis is pinned."""
    x = s.tensor("self")
    searched = any(position not in s.facts.unread for position in s.node.outputs[1:])
    s.facts.extremes[s.out] = tuple(_reduced(s, "!" if searched else "", "searched for a position"))
    s.moves(s.out, x)
    del s.facts.summands[s.out]  # which element it is depends on where else it is looked for


def position(s: Site) -> None:
    s.ignores("select_last_index")
    _reduced(s, "!", "searched for a position")


def logical(s: Site) -> None:
    """all and any: copies change nothing."""
    _reduced(s, "", "")


def unknown_sum(s: Site) -> None:
    """Reductions that copies would change: their axes keep their size."""
    s.ignores("dtype", "ord", "p", "k")
    _reduced(s, "!", "reduced over")


@says("| a.. ~n b.. -> a.. n b..")
def softmax(s: Site, pattern: str) -> None:
    """Copies share what one had. One that is far greater than the others gets 1, and these get 0."""
    s.ignores("dtype", "half_to_float")
    axes = s.states(pattern, "self", a=s.integer("dim", -1), why="softmax over")
    s.facts.saturating.add(s.node)
    s.scale(s.out, {}, logs={axes["n"]: -1})


@says("| a.. !n b.. -> a.. n b..")
def log_softmax(s: Site, pattern: str) -> None:
    """Each is less by the logarithm of the number of copies, which no weight can make up for."""
    s.ignores("dtype", "half_to_float")
    s.states(pattern, "self", a=s.integer("dim", -1), why="log-softmax over")


def _in_order(s: Site, pattern: str) -> None:
    """Operators along an axis whose order matters."""
    s.ignores("dtype", "k", "K", "descending", "stable", "largest", "sorted", "half_to_float", "exclusive", "reverse")
    s.states(pattern, "self", a=s.integer("dim", -1), why="taken in order")


ordered = says("| a.. !n b.. -> a.. !m b.., a.. !m b..?")(_in_order)
ordered_linear = says("a.. !n b.. -> a.. !m b.., a.. !m b..?")(_in_order)


@says("a.. !n b.. + a.. !p b..? + a.. !q b..? -> a.. !m b..")
def difference(s: Site, pattern: str) -> None:
    """Differences of neighbours, with something put before or after them."""
    s.ignores("n")
    s.states(pattern, "self", "prepend", "append", a=s.integer("dim", -1), why="taken in order")


@says("... !i !j -> ... i j")
def triangle(s: Site, pattern: str) -> None:
    s.ignores("diagonal", "upper")
    s.states(pattern, "self", why="cut to a triangle")


matrix_function = stated("| ... !i !j -> ... i j", "self", why="a matrix function")


def fourier(s: Site) -> None:
    """Fourier transforms along some axes."""
    s.ignores("n", "s", "norm")
    _transformed(s, s.tensor("self"), _over(s, s.tensor("self")))


def _transformed(s: Site, x: Value, axes: Collection[int]) -> None:
    before, after = changed([axis in axes for axis in range(x.rank)])
    s.states(f"{before} -> {after}", x, why="Fourier transformed")
    s.sums(s.out, Summand((x,)))


def dense_statistics(s: Site) -> None:
    """Results that depend on the numbers of the operands, not on their layout."""
    s.ignores(*s.node.operands)
    s.pin_all("depends on the data")


def onnx_reduction(rule: Rule) -> Rule:
    """A reduction that keeps its axes if it is not told otherwise; perhaps over none, where none are given."""
    reduction = spelled(rule, {"keepdim": True}, self="data", dim="axes", keepdim="keepdims")

    def rule_or_noop(s: Site) -> None:
        if s.flag("noop_with_empty_axes") and not s.integers("axes", ()):
            s.ignores("keepdims")
            s.states("| ... -> ...", "data")
        else:
            reduction(s)

    return rule_or_noop


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
    _transformed(s, x, (s.axis("axis", x.rank), x.rank - 1))


@says("b !t.., !w? -> b !f..")
def short_time_fourier(s: Site, pattern: str) -> None:
    """Time becomes frames of frequencies, every frame multiplied by a window."""
    s.ignores("frame_step", "frame_length", "onesided")
    s.states(pattern, "signal", "window", why="Fourier transformed")


determinant = stated("| ... !i !j -> ...", "X", why="a determinant")


@says("| n !c d.., n d.., c?")
def likelihood(s: Site, pattern: str) -> None:
    """The negative logarithm of the likelihood of the class that the target names."""
    s.ignores("ignore_index")
    s.states(pattern, "input", "target", "weight", why=_CLASSES)
    _averaged(s, s.tensor("input"), s.tensor("target"), s.maybe_tensor("weight"))


@says("| n !c d.., n d.., c?")
def cross_entropy(s: Site, pattern: str) -> None:
    """Like ``likelihood``, of a softmax, whose logarithm is another result."""
    x = s.tensor("scores")
    s.ignores("ignore_index")
    s.states(pattern, x, "labels", "weights", why=_CLASSES)
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


onnx_position = spelled(position, {"dim": 0, "keepdim": True}, self="data", dim="axis", keepdim="keepdims")


def _count(axes: list[Axis], coefficient: int | Fraction) -> dict[Axis, int | Fraction]:
    counts: dict[Axis, int | Fraction] = {}
    for axis in axes:
        counts[axis] = counts.get(axis, 0) + coefficient
    return counts


def _overloads(names: str, *overloads: str) -> list[str]:
    return [f"aten.{name}.{overload}" for name in names.split() for overload in overloads]


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_overloads("mean", "dim", "default"), mean),
    **dict.fromkeys(_overloads("sum", "dim_IntList", "default"), powers(1)),
    "aten.linalg_vector_norm.default": norm,
    "aten.linalg_norm.default": refused("a matrix norm"),
    **dict.fromkeys(_overloads("norm", "ScalarOpt_dim", "Scalar"), spelled(norm, ord="p")),
    "aten.cdist.default": distance,
    "aten.cosine_similarity.default": similarity,
    "aten.var.correction": variance(Fraction(1)),
    "aten.std.correction": variance(Fraction(1, 2)),
    "aten.mse_loss.default": squared_error,
    **dict.fromkeys(_overloads("amax amin max min", "default"), extreme),
    **dict.fromkeys(_overloads("max min", "dim"), extreme),
    **dict.fromkeys(_overloads("argmax argmin", "default"), position),
    **dict.fromkeys(_overloads("all any", "default", "dim", "dims"), logical),
    "aten._is_all_true.default": logical,
    **dict.fromkeys(_overloads("logsumexp prod", "default"), unknown_sum),
    "aten.prod.dim_int": unknown_sum,
    **dict.fromkeys(("aten.median.dim", "aten.nanmedian.dim", "aten.kthvalue.default"), unknown_sum),
    **dict.fromkeys(("aten.softmax.int", "aten._softmax.default"), softmax),
    **dict.fromkeys(("aten.log_softmax.int", "aten._log_softmax.default"), log_softmax),
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
    "onnx.ReduceSum": onnx_reduction(powers(1)),
    "onnx.ReduceL1": onnx_reduction(partial(norm, order=1)),
    "onnx.ReduceL2": onnx_reduction(norm),
    "onnx.ReduceSumSquare": onnx_reduction(powers(2)),
    **dict.fromkeys(("onnx.ArgMax", "onnx.ArgMin"), onnx_position),
    "onnx.Softmax": spelled(softmax, self="input", dim="axis"),
    "onnx.LogSoftmax": spelled(log_softmax, self="input", dim="axis"),
    "onnx.Hardmax": spelled(ordered, self="input", dim="axis"),
    "onnx.Softmax.1": flattened("softmax"),
    "onnx.LogSoftmax.1": flattened("log softmax"),
    "onnx.Hardmax.1": flattened("hard maximum"),
    "onnx.CumSum": spelled(ordered_linear, self="x", dim="axis"),
    "onnx.CumProd": spelled(ordered, self="x", dim="axis"),
    "onnx.TopK": spelled(ordered_linear, self="X", dim="axis"),
    "onnx.Trilu": spelled(triangle, self="input", diagonal="k"),
    "onnx.Det": determinant,
    "onnx.DFT": discrete_fourier,
    "onnx.STFT": short_time_fourier,
    "onnx.NegativeLogLikelihoodLoss": likelihood,
    "onnx.SoftmaxCrossEntropyLoss": cross_entropy,
    **dict.fromkeys(("onnx.NonZero", "onnx.Unique", "onnx.Multinomial", "onnx.Size"), dense_statistics),
}
