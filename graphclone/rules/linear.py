"""Contractions: linear layers, matrix products and einsum."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Scaled
from graphclone.graph.ir import Value
from graphclone.rules.patterns import PatternError
from graphclone.rules.site import Cannot, Rule, Site, paired, says, spelled, stated

linear = stated("... i, o.. i + o..? -> ... o..", "input", "weight", "bias")
outer = stated("i, j -> i j", "self", "vec2")
bilinear = stated("... i, ... j, o i j + o? -> ... o", "input1", "input2", "weight", "bias")


def added_product(pattern: str, *factors: str) -> Rule:
    """``alpha a b + beta self``."""
    return stated(pattern, *factors, "alpha", "self", "beta")


@says("... i.. k, ... k j.. -> ... i.. j..")
def matmul(s: Site, pattern: str) -> None:
    """Either matrix may be a vector."""
    a, b = _two(s)
    s.states(pattern, a, b, i=min(a.rank, 2) - 1, j=min(b.rank, 2) - 1)


def tensordot(s: Site) -> None:
    """Any axes of the one are summed over with as many of the other."""
    a, b = s.tensor("self"), s.tensor("other")
    left, right = [f"a{i}" for i in range(a.rank)], [f"b{i}" for i in range(b.rank)]
    for i, j in paired(s.axis_list("dims_self", a.rank), s.axis_list("dims_other", b.rank)):
        right[j] = left[i]
    result = [axis for axis in (*left, *right) if axis not in left or axis not in right]
    s.states(f"{' '.join(left)}, {' '.join(right)} -> {' '.join(result)}", a, b)


def einsum(s: Site) -> None:
    """Any einsum in which one operand has all the axes that are summed over."""
    s.ignores("path")
    left, arrow, result = s.text("equation").replace(" ", "").partition("->")
    if not arrow:
        result = "..." + "".join(sorted(letter for letter in left if letter.isalpha() and left.count(letter) == 1))
    try:
        s.states(re.sub(r"([A-Za-z])", r" \1 ", f"{left}->{result}"), *s.tensor_list("tensors"))
    except PatternError as error:
        raise Cannot(error.why) from None


grouped_mm = stated(
    "!r i, !g i o | !e -> r o", "input", "weight", "offs", why="rows and matrices belong together by position"
)


def general_product(s: Site) -> None:
    s.ignores("alpha", "beta")
    a, b = _turned(s)
    s.states(f"{a}, {b} + [i j]? -> i j", "A", "B", "C")


def _turned(s: Site) -> tuple[str, str]:
    """The axes of two matrices, perhaps transposed."""
    return "k i" if s.flag("transA") else "i k", "j k" if s.flag("transB") else "k j"


def quantized_product(a: str, b: str) -> Rule:
    """A matrix product of integers, with scales and zero points: a number each, or one per row or column."""

    def rule(s: Site) -> None:
        x, w = s.tensor(a), s.tensor(b)
        matrices = {"a": x, "b": w, "y": s.out}
        i, j = min(x.rank, 2) - 1, min(w.rank, 2) - 1
        axes = s.states("| ... i.. k, ... k j.. -> ... i.. j..", x, w, i=i, j=j)
        for name in s.node.operands:
            value = s.maybe_tensor(name)
            if value is not None and value not in matrices.values():
                _per_line(s, value, matrices[name[0].lower()], per_column=name.startswith("b"))
        sum_integers(s, [axes["k"]], scales={f"{b}_scale": 1, f"{a}_scale": 1, "y_scale": -1})

    return rule


def sum_integers(
    s: Site, axes: Iterable[Axis], places: int = 1, *, scales: Mapping[str, int], added: Value | None = None
) -> None:
    """A sum of products of integers is the result, or a result of integers once it is multiplied by scales.

    Args:
        s: of the sum.
        axes: what is summed over.
        places: how many summands there are for every index of the axes.
        scales: powers of scales, by the names of operands, those first that had best take a factor; all or none.
        added: integers that are added to the sum before it is multiplied.
    """
    if any(map(s.has, scales)):
        powers = Counter[Scaled]()  # one scale may be that of several operands
        for name, power in scales.items():
            powers[s.tensor(name)] += power
        s.require(powers, s.integer_sum(axes, places, added=added), mendable=False)
    else:
        s.integer_sum(axes, places, out=s.out)


def quantized_general_product(s: Site) -> None:
    """``alpha (a b + c)`` of integers, a and b perhaps transposed; scales are a number each, or one per column of b."""
    a, b, c = s.tensor("A"), s.tensor("B"), s.maybe_tensor("C")
    left, right = _turned(s)
    axes = s.states(f"| {left}, {right} -> i j", a, b)
    for name in ("a_scale", "a_zero_point", "y_scale", "y_zero_point"):
        value = s.maybe_tensor(name)
        if value is not None and value.elements > 1:
            raise Cannot("more than one scale or zero point of a matrix but B")
    for value in (s.tensor("b_scale"), s.maybe_tensor("b_zero_point"), c):
        if value is not None:
            s.broadcast(value)
    factors = Counter[Scaled]([s.tensor("b_scale"), s.tensor("a_scale")])
    if (alpha := s.number("alpha", 1.0)) != 1:
        factors[s.literal("alpha", alpha)] = 1
    contraction = s.integer_sum([axes["k"]], added=c)
    if s.out.is_float:
        s.scale(s.out, factors, contraction=contraction)
    else:
        factors[s.tensor("y_scale")] -= 1
        s.require(factors, contraction, mendable=False)


def _per_line(s: Site, value: Value, matrix: Value, *, per_column: bool) -> None:
    """Numbers of the columns of a matrix, or of its rows, which then keep their size."""
    if per_column:
        s.broadcast(value, out=matrix)
    elif any(axis.size != 1 for axis in s.axes(value)):
        s.pin([*s.axes(value), *s.axes(matrix)], "a number per row")


def _two(s: Site) -> tuple[Value, Value]:
    for a, b in (("self", "other"), ("self", "mat2"), ("self", "vec"), ("self", "tensor")):
        if s.has(a) and s.has(b):
            return s.tensor(a), s.tensor(b)
    raise Cannot("its operands have unknown names")


RULES: Mapping[str, Rule] = {
    "aten.linear.default": linear,
    **dict.fromkeys((f"aten.{name}.default" for name in ("matmul", "mm", "bmm", "mv", "dot", "vdot")), matmul),
    "aten.addmm.default": added_product("i k, k j, # + [i j], # -> i j", "mat1", "mat2"),
    "aten.baddbmm.default": added_product("b i k, b k j, # + [b i j], # -> b i j", "batch1", "batch2"),
    "aten.addbmm.default": added_product("b i k, b k j, # + [i j], # -> i j", "batch1", "batch2"),
    "aten.addmv.default": added_product("i k, k, # + [i], # -> i", "mat", "vec"),
    "aten.addr.default": added_product("i, j, # + [i j], # -> i j", "vec1", "vec2"),
    "aten.outer.default": outer,
    "aten.tensordot.default": tensordot,
    "aten.einsum.default": einsum,
    "aten.bilinear.default": bilinear,
    "transformers.grouped_mm_fallback.default": grouped_mm,
    "onnx.MatMul": spelled(matmul, self="A", other="B"),
    "onnx.Gemm": general_product,
    "onnx.Einsum": spelled(einsum, tensors="Inputs"),
    "onnx.MatMulInteger": quantized_product("A", "B"),
    "onnx.QLinearMatMul": quantized_product("a", "b"),
    "com.microsoft.QGemm": quantized_general_product,
}
