"""Elementwise operators: axes are aligned from the right, and only the scales differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import wraps

from graphclone.analysis.facts import Literal, Scaled, Summand
from graphclone.graph.ir import Operand, Value, items_of
from graphclone.rules.powers import exact
from graphclone.rules.site import Cannot, Rule, Site, says, spelled, stated


def _broadcast(s: Site, *values: Value) -> None:
    """Tensors are aligned from the right; ONNX up to opset 6 may lay the second along axes from a given one."""
    s.ignores("axis", "broadcast", "consumed_inputs")
    if not s.has("axis") or len(values) < 2:
        s.broadcast(*values)
        return
    first, second, *others = values
    s.broadcast(first, *others)
    start = s.axis("axis", first.rank)
    s.align(s.axes(second), s.axes(first)[start : start + second.rank])


def elementwise(s: Site) -> None:
    """All tensors are broadcast; non-linear, so every scale is 1. Options are plain numbers."""
    s.ignores(*s.node.operands)
    _broadcast(s, *s.tensors)


def vanishing(s: Site) -> None:
    """Like ``elementwise``; f(0) = 0."""
    elementwise(s)
    s.facts.vanishing.add(s.node)


def singular(rule: Rule, *names: str) -> Rule:
    """A rule for a function whose tensors, all of them or those with these names, must not be 0."""

    @wraps(rule)
    def singular_rule(s: Site) -> None:
        rule(s)
        _poles(s, *(s.get(name) for name in names or s.node.operands if s.has(name)))

    return singular_rule


def _poles(s: Site, *operands: Operand) -> None:
    """Those of some operands that are tensors must not be 0."""
    s.facts.poles[s.node] = tuple(o for o in operands if isinstance(o, Value) and o.is_tensor and o.is_float)


def jump(s: Site) -> None:
    """Like ``elementwise``; a rounding error may make its result jump."""
    elementwise(s)
    s.facts.jumps.add(s.node)


def step(s: Site) -> None:
    """Like ``jump``; its results are whole numbers."""
    jump(s)
    s.facts.steps.add(s.node)


def vanishing_jump(s: Site) -> None:
    """Like ``jump``; f(0) = 0."""
    jump(s)
    s.facts.vanishing.add(s.node)


def rounding(s: Site) -> None:
    """Like ``step``; f(0) = 0."""
    step(s)
    s.facts.vanishing.add(s.node)


def equality(s: Site) -> None:
    """Like ``jump``. A stored table that others are compared with keeps its size, like the rows of a table."""
    jump(s)
    for value in s.tensors:
        if _is_stored(value):
            s.pin(s.axes(value), "numbers that others are compared with")


def _is_stored(value: Value) -> bool:
    """Whether a value is an initializer, perhaps in another form."""
    while value.producer is not None:
        sources = [operand for operand in value.producer.inputs if operand.is_tensor]
        if len(sources) != 1:
            return False
        value = sources[0]
    return value.role == "initializer"


def bounded_by(s: Site) -> None:
    """Like ``elementwise``; each element is one of an operand's."""
    elementwise(s)
    s.picks(s.out, *s.tensors)
    _floor(s, s.get("self"))


def _floor(s: Site, x: Operand) -> None:
    """Remember a least number, which may be there to keep a divisor from 0."""
    if isinstance(x, Value) and isinstance(low := s.get("min"), int | float) and low > 0 and s.get("max") is None:
        s.facts.floors[s.out] = (x, float(low))


def homogeneous(s: Site) -> None:
    """f(c x) = c f(x) for c > 0; options are plain numbers."""
    if not s.tensors:
        raise Cannot("its operand is no tensor")
    elementwise(s)
    s.same_scale(s.out, s.tensors[0])


def rectify(s: Site) -> None:
    """The operand where it is positive, and else 0."""
    homogeneous(s)
    s.picks(s.out, *s.tensors)


def identity(s: Site) -> None:
    """The result is the operand, perhaps in another dtype or memory layout."""
    homogeneous(s)
    _shows_all(s, s.tensors[0])


@says("... -> ...")
def cast_like(s: Site, pattern: str) -> None:
    """The first operand in the dtype of the second, whose layout says nothing."""
    x = s.tensor("self")
    s.irrelevant(s.tensor("other"))
    s.ignores("non_blocking", "copy", "memory_format", "saturate", "round_mode")
    s.states(pattern, x)
    _shows_all(s, x)


def _shows_all(s: Site, x: Value) -> None:
    """The result is a view, unless a cast to few bits rounds: a weight may not be divided behind one."""
    if s.out.is_float or not x.is_float:
        s.shows(s.out, x, range(x.rank))
    else:
        s.facts.jumps.add(s.node)


def dropout(s: Site) -> None:
    """Nothing, once the model is trained."""
    if s.flag("train") and s.get("p") != 0:
        raise Cannot("dropout in training mode")
    identity(s)


def random_slope(s: Site) -> None:
    """A leaky ReLU, whose slope is random in training."""
    if s.flag("training"):
        raise Cannot("random slopes in training mode")
    homogeneous(s)


def prelu(s: Site) -> None:
    """A leaky ReLU with one slope, or one for each channel, which is the second axis."""
    pattern = "b c x.. | c -> b c x.." if s.tensor("weight").elements > 1 else "... | n.. -> ..."
    s.states(pattern, "self", "weight")


def power_of(exponent: Fraction | int) -> Rule:

    def power(s: Site) -> None:
        x = s.tensor("self")
        s.broadcast(x)
        s.scale(s.out, {x: exponent})
        if exponent < 1:
            _poles(s, x)

    return power


def pow_scalar(s: Site) -> None:
    """x to the power of a literal; one that is no simple fraction leaves no exact scale, so that it must be 1."""
    x, exponent = s.tensor("self"), exact(s.get("exponent"))
    s.broadcast(x)
    if exponent is not None:
        s.scale(s.out, {x: exponent})
    if exponent != 0 and s.number("exponent") < 1:
        _poles(s, x)


def add(s: Site) -> None:
    x, y = s.get("self"), s.get("other")
    s.ignores("alpha")
    _broadcast(s, *s.tensors)
    s.sums(s.out, *(_summand(operand) for operand in (x, y) if operand != 0))
    if isinstance(x, Value) and isinstance(y, Value):
        if x.is_tensor and y.is_tensor:
            s.same_scale(s.out, x, y)
            if s.number("alpha", 1) == 1:
                s.facts.added[s.out] = (x, y)
        return
    tensor, name, number = (x, "other", y) if isinstance(x, Value) else (y, "self", x)
    if not isinstance(tensor, Value):
        raise Cannot("it adds numbers")
    s.same_scale(s.out, tensor, *_numbers(s, number, name))
    if s.node.op.endswith(("add.Tensor", "onnx.Add")) and s.number("alpha", 1) == 1 and number:
        s.facts.shifts[s.out] = (tensor, _real(number, name))


def subtract(s: Site) -> None:
    """Like ``add``, with the other sign."""
    add(s)
    s.facts.added.pop(s.out, None)
    s.facts.differences.add(s.node)


def _summand(*factors: Operand, divisor: Operand = None) -> Summand:
    """The product of those operands that are tensors, divided by one."""
    tensors = tuple(item for item in factors if isinstance(item, Value) and item.is_tensor)
    return Summand(tensors, (divisor,) if isinstance(divisor, Value) and divisor.is_tensor else ())


def multiply(s: Site) -> None:
    _broadcast(s, *s.tensors)
    s.scale(s.out, _terms(s, 1))
    s.sums(s.out, _summand(s.get("self"), s.get("other")))


def divide(s: Site) -> None:
    """x / y: scales divide; rounding makes it non-linear."""
    _broadcast(s, *s.tensors)
    terms = _terms(s, -1)
    _poles(s, s.get("other"))
    s.facts.differences.add(s.node)
    if s.get("rounding_mode") is None:
        s.scale(s.out, terms)
        s.sums(s.out, _summand(s.get("self"), divisor=s.get("other")))
    else:
        s.facts.jumps.add(s.node)
        s.facts.steps.add(s.node)


def choose(s: Site) -> None:
    """One of several values per element (where, masked_fill, maximum): they and the result share one scale."""
    s.broadcast(*s.tensors)
    s.ignores("condition", "mask", "non_blocking")
    chosen: list[Scaled] = []
    for name in ("self", "other", "src", "value"):
        operand = s.get(name)
        if isinstance(operand, Value):
            chosen.append(operand)
        elif operand is not None:
            chosen += _numbers(s, operand, name)
    if all(isinstance(item, Literal) or item.is_tensor for item in chosen):
        s.same_scale(s.out, *chosen)
        if s.node.op not in _COMPARING:
            operands = (s.get(name) for name in ("self", "other", "src", "value"))
            s.sums(s.out, *(_summand(item) for item in operands if item is not None and item != 0))
    s.picks(s.out, *(item for item in chosen if isinstance(item, Value) and item.is_tensor))


_COMPARING = {
    f"aten.{name}"
    for name in ("maximum.default", "minimum.default", "max.other", "min.other", "fmax.default", "fmin.default")
}


def product_added(sign: int) -> Rule:
    """x + value a b, or x + value a / b where the sign is -1."""

    def rule(s: Site) -> None:
        x, a, b = s.tensor("self"), s.tensor("tensor1"), s.tensor("tensor2")
        s.ignores("value")
        s.states("... | ..., ... -> ...", x, a, b)
        s.require(_sum((a, 1), (b, sign), (x, -1)))
        s.sums(s.out, _summand(x), _summand(a, b) if sign > 0 else _summand(a, divisor=b))
        if sign < 0:
            _poles(s, b)

    return rule


interpolate = stated("... + ... | ...? -> ...", "self", "end", "weight")
"""x + weight (y - x)"""


@says("| a.. (h + h) b.. -> a.. h b..")
def glu(s: Site, pattern: str) -> None:
    s.states(pattern, "self", a=s.integer("dim", -1))


complex_of = stated("... + ... -> ...", "real", "imag")
polar = stated("... | ... -> ...", "abs", "angle")


@says("... -> ..., ...?")
def onnx_dropout(s: Site, pattern: str) -> None:
    """Nothing, once the model is trained; the mask says that all elements are kept."""
    x = s.tensor("data")
    s.ignores("ratio", "seed", "consumed_inputs")
    if s.get("training_mode") not in (None, False) or not s.flag("is_test", True):
        raise Cannot("dropout in training mode")
    s.states(pattern, x)
    s.shows(s.out, x, range(x.rank))


def onnx_power(s: Site) -> None:
    """x to the power y; if y is a literal, scales take its power."""
    if s.maybe_tensor("X") is None or s.maybe_tensor("Y") is not None:
        singular(elementwise, "X")(s)
    else:
        spelled(pow_scalar, self="X", exponent="Y")(s)


onnx_prelu = stated("... | ... -> ...", "X", "slope")


def bounded(s: Site) -> None:
    """Between two bounds; those that are literals may be scaled along."""
    scaled: list[Scaled] = [s.out, x := s.tensor("input")]
    s.ignores("consumed_inputs")
    s.broadcast(*s.tensors)
    for name in ("min", "max"):
        bound = s.get(name)
        if isinstance(bound, Value):
            scaled.append(bound)
        elif bound is not None and abs(s.number(name)) < _GREATEST:
            scaled += _numbers(s, bound, name)
    s.same_scale(*scaled)
    s.picks(s.out, *s.tensors)
    _floor(s, x)


def several(s: Site) -> None:
    """The sum, mean, maximum or minimum of any number of operands, which share one scale with the result."""
    scaled: list[Scaled] = [s.out]
    s.ignores("consumed_inputs")
    for i, operand in enumerate(items_of(s.get("data_0"))):
        scaled += [operand] if isinstance(operand, Value) else _numbers(s, operand, "data_0", i)
    s.broadcast(*s.tensors)
    s.same_scale(*scaled)
    if s.node.op in ("onnx.Max", "onnx.Min"):
        s.picks(s.out, *s.tensors)


@says("... | ... -> ...")
def gated(s: Site, pattern: str) -> None:
    """``swish(A) B``"""
    s.ignores("alpha")
    s.states(pattern, "B", "A")


def _numbers(s: Site, operand: Operand, name: str, *items: int) -> list[Scaled]:
    """A literal as something with a scale; 0 and the infinities have any scale."""
    value = _real(operand, name)
    return [] if value == 0 or not math.isfinite(value) else [s.literal(name, value, *items)]


def _real(operand: Operand, name: str) -> float:
    if not isinstance(operand, int | float):
        raise Cannot(f"its {name} is not a real number")
    return float(operand)


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


_GREATEST = 3.4e38
"""Bounds beyond are none."""


def _named(names: str, *overloads: str) -> Iterator[str]:
    return (f"aten.{name}.{overload}" for name in names.split() for overload in overloads or ("default",))


_NON_LINEAR = """
    acos cos cosh erfc exp exp2 hardsigmoid hardtanh isfinite isinf isnan log_sigmoid bitwise_not sigmoid sinc softplus
    atan2 logaddexp i0 special_airy_ai special_bessel_j0 special_erfcx special_i0e special_modified_bessel_i0
    special_spherical_bessel_j0
"""
_SINGULAR = "acosh digamma igamma igammac lgamma log log10 log2 logit polygamma special_ndtri special_zeta"
"""Functions without a value at 0."""

_VANISHING = """
    asin asinh atan atanh celu elu erf erfinv expm1 gelu hardswish hypot log1p mish nan_to_num relu6 selu silu sin sinh
    softshrink special_bessel_j1 special_expm1 special_i1 special_i1e tan tanh
"""
"""Non-linear functions that are 0 at 0."""

_STEPS = "ceil floor trunc sgn sign heaviside"
_JUMPS = "angle frac signbit logical_and logical_not logical_or logical_xor threshold"
_BOUNDED = "clamp clamp_max clamp_min clip"
_EQUALITIES = "eq ne"
_COMPARISONS = "lt le gt ge copysign"
_BITWISE = "bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ __lshift__ __rshift__"
_HOMOGENEOUS = "neg abs leaky_relu positive real imag"
_IDENTITIES = "alias detach clone contiguous lift_fresh_copy lift"

_ONNX_VANISHING = """
    Asin Asinh Atan Atanh Celu Elu Erf Gelu HardSwish Mish Selu Sin Sinh Softsign Swish Tan Tanh
"""
_ONNX_NON_LINEAR = """
    Acos Cos Cosh Exp HardSigmoid Sigmoid Softplus
    And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor IsInf IsNaN Not Or Xor BitCast RegexFullMatch StringConcat
"""
_ONNX_STEPS = "Ceil Floor Sign"
_ONNX_JUMPS = "Greater GreaterOrEqual Less LessOrEqual Shrink ThresholdedRelu"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_named(_NON_LINEAR), elementwise),
    **dict.fromkeys(_named(_SINGULAR), singular(elementwise)),
    **dict.fromkeys(_named(_VANISHING), vanishing),
    **dict.fromkeys(_named(_JUMPS), jump),
    **dict.fromkeys(_named(_STEPS), step),
    **dict.fromkeys(_named(_BOUNDED, "default", "Tensor"), bounded_by),
    **dict.fromkeys(_named(_EQUALITIES, "Tensor", "Scalar"), equality),
    **dict.fromkeys(_named(_COMPARISONS, "Tensor", "Scalar"), jump),
    **dict.fromkeys(_named("fmod remainder", "Tensor", "Scalar"), singular(jump, "other")),
    **dict.fromkeys(_named(_BITWISE, "Tensor", "Scalar"), elementwise),
    **dict.fromkeys(_named("bitwise_left_shift bitwise_right_shift", "Tensor", "Tensor_Scalar"), elementwise),
    **dict.fromkeys(_named("xlogy", "Tensor", "Scalar_Self", "Scalar_Other"), singular(elementwise, "other")),
    **dict.fromkeys(_named("pow", "Scalar", "Tensor_Tensor"), singular(elementwise, "self")),
    **dict.fromkeys(_named("floor_divide", "default", "Scalar"), singular(step, "other")),
    "aten.hardshrink.default": vanishing_jump,
    **dict.fromkeys(_named("round", "default", "decimals"), rounding),
    "aten.relu.default": rectify,
    **dict.fromkeys(_named(_HOMOGENEOUS), homogeneous),
    **dict.fromkeys(_named(_IDENTITIES), identity),
    **dict.fromkeys(_named("to", "dtype", "dtype_layout", "device"), identity),
    "aten._to_copy.default": identity,
    "aten.to.other": cast_like,
    "aten.type_as.default": cast_like,
    **dict.fromkeys(_named("dropout feature_dropout alpha_dropout"), dropout),
    "aten.rrelu.default": random_slope,
    "aten.prelu.default": prelu,
    "aten.sqrt.default": power_of(Fraction(1, 2)),
    "aten.rsqrt.default": power_of(Fraction(-1, 2)),
    "aten.reciprocal.default": power_of(-1),
    "aten.square.default": power_of(2),
    "aten.pow.Tensor_Scalar": pow_scalar,
    **dict.fromkeys(_named("add", "Tensor", "Scalar"), add),
    **dict.fromkeys(_named("sub rsub", "Tensor", "Scalar"), subtract),
    **dict.fromkeys(_named("mul multiply", "Tensor", "Scalar"), multiply),
    **dict.fromkeys(_named("div", "Tensor", "Scalar", "Tensor_mode", "Scalar_mode"), divide),
    "aten.true_divide.Tensor": divide,
    "aten.addcmul.default": product_added(1),
    "aten.addcdiv.default": product_added(-1),
    **dict.fromkeys(_named("lerp", "Scalar", "Tensor"), interpolate),
    "aten.glu.default": glu,
    **dict.fromkeys(_named("maximum minimum fmax fmin copy"), choose),
    **dict.fromkeys(_named("max min", "other"), choose),
    **dict.fromkeys(_named("where", "self", "ScalarOther", "ScalarSelf", "Scalar"), choose),
    **dict.fromkeys(_named("masked_fill fill", "Scalar", "Tensor"), choose),
    "aten.complex.default": complex_of,
    "aten.polar.default": polar,
    **{f"onnx.{name}": elementwise for name in _ONNX_NON_LINEAR.split()},
    **{f"onnx.{name}": vanishing for name in _ONNX_VANISHING.split()},
    **{f"onnx.{name}": singular(elementwise) for name in ("Acosh", "Log")},
    "onnx.Mod": singular(jump, "B"),
    **{f"onnx.{name}": jump for name in _ONNX_JUMPS.split()},
    **{f"onnx.{name}": step for name in _ONNX_STEPS.split()},
    "onnx.Round": rounding,
    "onnx.Equal": equality,
    "onnx.Relu": rectify,
    **{f"onnx.{name}": homogeneous for name in ("Neg", "Abs", "LeakyRelu")},
    "onnx.Identity": identity,
    "onnx.Cast": identity,
    "onnx.CastLike": spelled(cast_like, self="input", other="target_type"),
    "onnx.Dropout": onnx_dropout,
    "onnx.Sqrt": spelled(power_of(Fraction(1, 2)), self="X"),
    "onnx.Reciprocal": spelled(power_of(-1), self="X"),
    "onnx.Pow": onnx_power,
    "onnx.PRelu": onnx_prelu,
    "onnx.PRelu.1": spelled(prelu, self="X", weight="slope"),
    "onnx.Clip": bounded,
    "onnx.Add": spelled(add, self="A", other="B"),
    "onnx.Sub": spelled(subtract, self="A", other="B"),
    "onnx.Mul": spelled(multiply, self="A", other="B"),
    "onnx.Div": spelled(divide, self="A", other="B"),
    "onnx.Where": spelled(choose, self="X", other="Y"),
    **dict.fromkeys(("onnx.Sum", "onnx.Mean", "onnx.Max", "onnx.Min"), several),
    "onnx.SwiGLU": gated,
}
