"""Contractions: linear layers, matrix products and einsum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from graphclone.algebra.axes import Axis
from graphclone.analysis.facts import Contraction, Scaled
from graphclone.graph.ir import Value
from graphclone.rules.site import Cannot, Rule, Site, spelled


def linear(s: Site) -> None:
    """``... i, o i, o? -> ... o``"""
    x, w, b = s.tensor("input"), s.tensor("weight"), s.maybe_tensor("bias")
    contraction = s.contract(x, [x.rank - 1], w, [w.rank - 1])
    s.equal_all(s.axes(s.out), [*s.axes(x)[:-1], *s.axes(w)[:-1]])
    if b is not None:
        s.broadcast(b)
    product(s, x, w, contraction, bias=b)


def matmul(s: Site) -> None:
    """``... i k, ... k j -> ... i j``, either matrix possibly a vector."""
    a, b = _two(s)
    product(s, a, b, _multiplied(s, a, b))


def _multiplied(s: Site, a: Value, b: Value) -> Contraction:
    contraction = s.contract(a, [a.rank - 1], b, [max(b.rank - 2, 0)])
    axes = list(s.axes(s.out))
    if b.rank > 1:
        s.equal(axes.pop(), s.axes(b)[-1])
    if a.rank > 1:
        s.equal(axes.pop(), s.axes(a)[-2])
    for batch in (s.axes(a)[:-2], s.axes(b)[:-2]):
        s.align(batch, axes)
    return contraction


def added_product(equation: str, *names: str) -> Rule:
    """``beta self + alpha a b``: a product of two operands as an einsum, and a term, which is broadcast."""

    def rule(s: Site) -> None:
        added, *factors = s.tensor("self"), *(s.tensor(name) for name in names)
        terms, result = _parse(equation, [factor.rank for factor in factors], s.out.rank)
        contraction = _contracted(s, terms, result, factors)
        s.broadcast(added)
        scaled_sum(s, [*factors, s.literal("alpha", s.number("alpha", 1))], contraction)
        beta = s.literal("beta", s.number("beta", 1))
        if beta.value:
            s.require({s.out: 1, added: -1, beta: -1})
        else:  # the term is not even looked at
            s.irrelevant(added)

    return rule


def tensordot(s: Site) -> None:
    """``i.. k.., k.. j.. -> i.. j..``, any axes of the one with as many of the other."""
    a, b = s.tensor("self"), s.tensor("other")
    summed = [axis % a.rank for axis in s["dims_self"]], [axis % b.rank for axis in s["dims_other"]]
    if any(x.size != y.size for x, y in zip(_picked(s, a, summed[0]), _picked(s, b, summed[1]), strict=True)):
        raise Cannot("it broadcasts an axis that it sums over")
    contraction = s.contract(a, summed[0], b, summed[1])
    kept = [axis for x, gone in zip((a, b), summed, strict=True) for i, axis in enumerate(s.axes(x)) if i not in gone]
    s.equal_all(s.axes(s.out), kept)
    product(s, a, b, contraction)


def _picked(s: Site, x: Value, indices: Sequence[int]) -> list[Axis]:
    return [s.axes(x)[index] for index in indices]


def outer(s: Site) -> None:
    """``i, j -> i j``"""
    a, b = s.tensor("self"), s.tensor("vec2")
    s.equal_all(s.axes(s.out), [*s.axes(a), *s.axes(b)])
    s.scale(s.out, {a: 1, b: 1})


def einsum(s: Site) -> None:
    """Any einsum in which one operand has all the axes that are summed over."""
    equation, operands = s["equation"], s["tensors"]
    s.get("path")
    terms, result = _parse(equation, [operand.rank for operand in operands], s.out.rank)
    scaled_sum(s, operands, _contracted(s, terms, result, operands))


def _contracted(s: Site, terms: Sequence[str], result: str, operands: Sequence[Value]) -> Contraction:
    """Unify axes letter by letter; what is summed over."""
    axes: dict[str, Axis] = {}
    for term, operand in zip([*terms, result], [*operands, s.out], strict=True):
        for letter, axis in zip(term, s.axes(operand), strict=True):
            if letter not in axes or axes[letter].size == 1:
                axes[letter] = axis
            elif axis.size != 1:
                s.equal(axes[letter], axis)
    summed = [letter for letter in dict.fromkeys("".join(terms)) if letter not in result]
    if any(len(set(term)) != len(term) for term in (*terms, result)):
        raise Cannot("it takes a diagonal")
    sides = [(x, [term.index(letter) for letter in summed])
             for term, x in zip(terms, operands, strict=True) if set(summed) <= set(term)]  # fmt: skip
    if not sides:
        raise Cannot("no operand has all the axes that it sums over")
    named = [pair for term, x in zip(terms, operands, strict=True) for pair in zip(term, s.axes(x), strict=True)]
    if any(letter in summed and axis.size != axes[letter].size for letter, axis in named):
        raise Cannot("it broadcasts an axis that it sums over")
    return s.contracted(*sides)


def bilinear(s: Site) -> None:
    """``... i, ... j, o i j, o? -> ... o``"""
    x, y, w, b = s.tensor("input1"), s.tensor("input2"), s.tensor("weight"), s.maybe_tensor("bias")
    s.equal(s.axes(x)[-1], s.axes(w)[1])
    s.equal(s.axes(y)[-1], s.axes(w)[2])
    s.equal_all(s.axes(s.out), [*s.axes(x)[:-1], s.axes(w)[0]])
    s.equal_all(s.axes(x)[:-1], s.axes(y)[:-1])
    if b is not None:
        s.broadcast(b)
    contraction = s.contracted((w, [1, 2]))
    scaled_sum(s, [x, y, w], contraction, bias=b)


def grouped_mm(s: Site) -> None:
    """Rows sorted by group, each group with its own matrix: ``r i, g i o -> r o``."""
    x, w, ends = s.tensor("input"), s.tensor("weight"), s.tensor("offs")
    if (x.rank, w.rank) != (2, 3):
        raise Cannot("only rows times a stack of matrices is known")
    contraction = s.contract(x, [1], w, [1])
    s.pin([s.axes(x)[0], s.axes(w)[0], *s.axes(ends)], "rows and matrices belong together by position")
    s.equal_all(s.axes(s.out), [s.axes(x)[0], s.axes(w)[2]])
    product(s, x, w, contraction)


def product(s: Site, x: Value, w: Value, contraction: Contraction, bias: Value | None = None) -> None:
    """The scale of ``x w + bias``."""
    scaled_sum(s, [x, w], contraction, bias)


def scaled_sum(s: Site, factors: Sequence[Scaled], contraction: Contraction, bias: Value | None = None) -> None:
    """The scale of a contraction of several factors; a bias shares it."""
    terms: dict[Scaled, int | Fraction] = {}
    for factor in factors:
        terms[factor] = terms.get(factor, 0) + 1
    s.scale(s.out, terms, contraction=contraction)
    if bias is not None:
        s.require({s.out: 1, bias: -1})


def general_product(s: Site) -> None:
    """``alpha a b + beta c``, a and b perhaps transposed, c broadcast."""
    a, b, c = s.tensor("A"), s.tensor("B"), s.maybe_tensor("C")
    s.get("alpha"), s.get("beta")
    inner, summed = _turned(s, a, b)
    contraction = s.contract(a, [inner], b, [summed])
    if c is not None:
        s.broadcast(c)
    product(s, a, b, contraction, bias=c)


def _turned(s: Site, a: Value, b: Value) -> tuple[int, int]:
    """The axes that two matrices, perhaps transposed, are summed over; the others are those of the result."""
    inner, rows = (0, 1) if s.get("transA") else (1, 0)
    summed, columns = (1, 0) if s.get("transB") else (0, 1)
    s.equal_all(s.axes(s.out), [s.axes(a)[rows], s.axes(b)[columns]])
    return inner, summed


def quantized_product(a: str, b: str) -> Rule:
    """A matrix product of integers, with scales and zero points: a number each, or one per row or column.

    What is summed over keeps its size, as sums of integers cannot be divided; rows and columns pass.
    """

    def rule(s: Site) -> None:
        matrices = {"a": s.tensor(a), "b": s.tensor(b), "y": s.out}
        s.pin(_multiplied(s, matrices["a"], matrices["b"]).axes, "summed over integers")
        for name in s.node.operands:
            value = s.maybe_tensor(name)
            if value is not None and value not in matrices.values():
                _per_line(s, value, matrices[name[0].lower()], per_column=name.startswith("b"))

    return rule


def quantized_general_product(s: Site) -> None:
    """``alpha a b + c`` of integers, a and b perhaps transposed, with scales: a number each, or one per column of b.

    A product in floats may be divided, so what is summed over grows. It keeps its size where integers are added to
    the sum, or where the result is rounded to integers again.
    """
    a, b, c = s.tensor("A"), s.tensor("B"), s.maybe_tensor("C")
    inner, summed = _turned(s, a, b)
    s.equal(s.axes(a)[inner], s.axes(b)[summed])
    for name in ("a_scale", "a_zero_point", "y_scale", "y_zero_point"):
        value = s.maybe_tensor(name)
        if value is not None and value.elements > 1:
            raise Cannot("more than one scale or zero point of a matrix but B")
    for value in (s.tensor("b_scale"), s.maybe_tensor("b_zero_point"), c):
        if value is not None:
            s.broadcast(value)
    factors: list[Scaled] = [s.tensor("a_scale"), s.tensor("b_scale")]
    if s.get("alpha", 1.0) != 1:
        factors.append(s.literal("alpha", s.number("alpha")))
    if c is not None or not s.out.is_float:
        s.pin(s.axes(a)[inner], "summed over integers")
    if s.out.is_float:
        contraction = Contraction(s.node, (), (s.axes(a)[inner],))
        s.facts.contractions.append(contraction)
        scaled_sum(s, factors, contraction)


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


def _parse(equation: str, ranks: list[int], out_rank: int) -> tuple[list[str], str]:
    """Terms and result of an einsum, an ellipsis spelled out in capital letters from the end."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        result = "..." + "".join(sorted(letter for letter in left if letter.isalpha() and left.count(letter) == 1))
    hidden = "".join(chr(0x100 + i) for i in range(max(ranks, default=0)))

    def letters(term: str, rank: int) -> str:
        missing = rank - len(term.replace("...", ""))
        return term.replace("...", hidden[len(hidden) - missing :] if missing else "")

    return [letters(term, rank) for term, rank in zip(terms, ranks, strict=True)], letters(result, out_rank)


RULES: Mapping[str, Rule] = {
    "aten.linear.default": linear,
    "aten.matmul.default": matmul,
    "aten.mm.default": matmul,
    "aten.bmm.default": matmul,
    "aten.mv.default": matmul,
    "aten.dot.default": matmul,
    "aten.vdot.default": matmul,
    "aten.addmm.default": added_product("ik,kj->ij", "mat1", "mat2"),
    "aten.baddbmm.default": added_product("bik,bkj->bij", "batch1", "batch2"),
    "aten.addbmm.default": added_product("bik,bkj->ij", "batch1", "batch2"),
    "aten.addmv.default": added_product("ik,k->i", "mat", "vec"),
    "aten.addr.default": added_product("i,j->ij", "vec1", "vec2"),
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
