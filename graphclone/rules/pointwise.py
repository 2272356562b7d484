"""Elementwise operators: axes are aligned from the right, and only the scales differ."""

from __future__ import annotations

import math
from fractions import Fraction

from graphclone.facts import Scaled
from graphclone.ir import Value
from graphclone.rules.site import Rule, Site


def elementwise(s: Site) -> None:
    """All tensors are broadcast; non-linear, so every scale is 1. Options are plain numbers."""
    for name in s.node.operands:
        s.get(name)
    s.broadcast(*s.tensors)


def homogeneous(s: Site) -> None:
    """f(c x) = c f(x) for c > 0; options are plain numbers."""
    elementwise(s)
    s.same_scale(s.out, *(tensor for tensor in s.tensors if tensor.is_float))


def identity(s: Site) -> None:
    """The result is the operand, perhaps in another dtype or memory layout."""
    homogeneous(s)
    source = s.tensors[0]
    s.shows(s.out, source, range(source.rank))


def cast_like(s: Site) -> None:
    """The first operand in the dtype of the second, whose layout says nothing."""
    x = s.tensor("self")
    s.tensor("other")
    s.broadcast(x)
    s.shows(s.out, x, range(x.rank))
    s.same_scale(s.out, x)


def power_of(exponent: Fraction | int) -> Rule:
    """x to a fixed power."""

    def power(s: Site) -> None:
        x = s.tensors[0]
        s.broadcast(x)
        s.read.update(s.node.operands)
        s.scale(s.out, {x: exponent})

    return power


def pow_scalar(s: Site) -> None:
    """x to the power of a literal."""
    x, exponent = s.tensor("self"), s.get("exponent")
    s.broadcast(x)
    if isinstance(exponent, int | float):
        s.scale(s.out, {x: Fraction(exponent).limit_denominator(1000)})


def add(s: Site) -> None:
    """x + alpha y; both have the scale of the result."""
    x, y = s.get("self"), s.get("other")
    s.get("alpha")
    s.broadcast(*s.tensors)
    if isinstance(x, Value) and isinstance(y, Value):
        if x.is_tensor and y.is_tensor:
            s.same_scale(s.out, x, y)
        return
    tensor, name = (x, "other") if isinstance(x, Value) else (y, "self")
    number = y if tensor is x else x
    s.same_scale(s.out, tensor, *_numbers(s, name, number))
    if s.node.op.endswith("add.Tensor") and s.get("alpha", 1) == 1 and number:
        s.facts.shifts[s.out] = (tensor, float(number))


def multiply(s: Site) -> None:
    """x y: scales multiply."""
    s.broadcast(*s.tensors)
    s.scale(s.out, _terms(s, 1))


def divide(s: Site) -> None:
    """x / y: scales divide; rounding makes it non-linear."""
    s.broadcast(*s.tensors)
    terms = _terms(s, -1)
    if s.get("rounding_mode") is None:
        s.scale(s.out, terms)


def choose(s: Site) -> None:
    """One of several values per element (where, masked_fill, maximum): they and the result share one scale."""
    s.broadcast(*s.tensors)
    chosen: list[Scaled] = []
    for name in s.node.operands:
        operand = s.get(name)
        if isinstance(operand, Value):
            chosen += [operand] if operand.is_tensor and operand.is_float else []
        elif isinstance(operand, int | float) and not isinstance(operand, bool):
            chosen += _numbers(s, name, operand)
    s.same_scale(s.out, *chosen)


def addcmul(s: Site) -> None:
    """x + value a b."""
    x, a, b = s.tensor("self"), s.tensor("tensor1"), s.tensor("tensor2")
    s.get("value")
    s.broadcast(x, a, b)
    s.scale(s.out, {x: 1})
    s.require(_sum((a, 1), (b, 1), (x, -1)))


def glu(s: Site) -> None:
    """x[first half] * sigmoid(x[second half]): the axis is a concat of two halves."""
    x = s.tensor("self")
    axis = s.axis("dim", x.rank, -1)
    for i, (a, b) in enumerate(zip(s.axes(x), s.axes(s.out), strict=True)):
        s.equal(a, s.system.concat([b, b]) if i == axis else b)


def _numbers(s: Site, name: str, value: float) -> list[Scaled]:
    """A literal as something with a scale; 0 and the infinities have any scale."""
    return [] if value == 0 or math.isinf(value) else [s.literal(name, float(value))]


def _terms(s: Site, sign: int) -> dict[Scaled, int | Fraction]:
    """The scales of ``self`` and of ``other`` to the power ``sign``; a literal factor may be rescaled."""
    terms: list[tuple[Scaled, int]] = []
    for name, coefficient in (("self", 1), ("other", sign)):
        operand = s.get(name)
        if isinstance(operand, Value):
            terms += [(operand, coefficient)] if operand.is_tensor else []
        elif isinstance(operand, int | float) and operand:
            terms.append((s.literal(name, float(operand)), coefficient))
    return _sum(*terms)


def _sum(*terms: tuple[Scaled, int]) -> dict[Scaled, int | Fraction]:
    """Terms added up: a value that occurs twice counts twice."""
    total: dict[Scaled, int | Fraction] = {}
    for key, coefficient in terms:
        total[key] = total.get(key, 0) + coefficient
    return total


_NON_LINEAR = """
    acos acosh asin asinh atan atanh ceil celu clamp clamp_max clamp_min clip cos cosh elu erf erfc erfinv exp exp2
    expm1 floor frac gelu hardsigmoid hardswish hardtanh isfinite isinf isnan lgamma log log10 log1p log2 log_sigmoid
    logit mish nan_to_num relu6 round selu sigmoid sign silu sin sinh softplus softsign special_expm1 tan tanh
    tanhshrink threshold trunc logical_not bitwise_not hardshrink softshrink signbit sinc digamma sgn
"""
_NON_LINEAR_BINARY = """
    atan2 eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor __and__ __or__
    __xor__ fmod remainder floor_divide hypot xlogy logaddexp prelu heaviside bitwise_left_shift bitwise_right_shift
    __lshift__ __rshift__
"""
_HOMOGENEOUS = "relu neg abs leaky_relu rrelu positive"
_IDENTITIES = "alias detach clone contiguous dropout lift_fresh_copy feature_dropout alpha_dropout lift"
_IDENTITY_OVERLOADS = ("aten.to.dtype", "aten.to.dtype_layout", "aten.to.device", "aten.to.other", "aten._to_copy.default")

RULES: dict[str, Rule] = {
    **{f"aten.{name}.{o}": elementwise for name in _NON_LINEAR.split() for o in ("default", "Tensor", "decimals")},
    **{
        f"aten.{name}.{o}": elementwise
        for name in _NON_LINEAR_BINARY.split()
        for o in ("default", "Tensor", "Scalar", "Scalar_Tensor")
    },
    **{f"aten.{name}.default": homogeneous for name in _HOMOGENEOUS.split()},
    **{f"aten.{name}.default": identity for name in _IDENTITIES.split()},
    **dict.fromkeys(_IDENTITY_OVERLOADS, identity),
    "aten.type_as.default": cast_like,
    "aten.sqrt.default": power_of(Fraction(1, 2)),
    "aten.rsqrt.default": power_of(Fraction(-1, 2)),
    "aten.reciprocal.default": power_of(-1),
    "aten.square.default": power_of(2),
    "aten.pow.Tensor_Scalar": pow_scalar,
    "aten.pow.Scalar": elementwise,
    "aten.pow.Tensor_Tensor": elementwise,
    "aten.add.Tensor": add,
    "aten.add.Scalar": add,
    "aten.sub.Tensor": add,
    "aten.sub.Scalar": add,
    "aten.rsub.Scalar": add,
    "aten.rsub.Tensor": add,
    "aten.mul.Tensor": multiply,
    "aten.mul.Scalar": multiply,
    "aten.multiply.Tensor": multiply,
    "aten.div.Tensor": divide,
    "aten.div.Scalar": divide,
    "aten.div.Tensor_mode": divide,
    "aten.true_divide.Tensor": divide,
    "aten.addcmul.default": addcmul,
    "aten.glu.default": glu,
    "aten.maximum.default": choose,
    "aten.minimum.default": choose,
    "aten.max.other": choose,
    "aten.min.other": choose,
    "aten.where.self": choose,
    "aten.where.ScalarOther": choose,
    "aten.where.ScalarSelf": choose,
    "aten.where.Scalar": choose,
    "aten.masked_fill.Scalar": choose,
    "aten.masked_fill.Tensor": choose,
    "aten.copy.default": choose,
    "aten.fill.Scalar": choose,
    "aten.fill.Tensor": choose,
}
