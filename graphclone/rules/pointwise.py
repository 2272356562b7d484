"""Functions of one element each, and choices among elements: axes are aligned from the right, and scales differ."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import wraps

from graphclone.analysis.facts import Literal, Scaled
from graphclone.graph.ir import Operand, Value
from graphclone.rules.arithmetic import broadcast, named, numbers, poles, summand
from graphclone.rules.powers import exact
from graphclone.rules.site import Cannot, Rule, Site, says, spelled, stated


def elementwise(s: Site) -> None:
    """All tensors are broadcast; non-linear, so every scale is 1. Options are plain numbers."""
    s.ignores(*s.node.operands)
    broadcast(s, *s.tensors)


def vanishing(s: Site) -> None:
    """Like ``elementwise``; f(0) = 0."""
    elementwise(s)
    s.facts.vanishing.add(s.node)


def singular(rule: Rule, *names: str) -> Rule:
    """A rule for a function whose tensors, all of them or those with these names, must not be 0."""

    @wraps(rule)
    def singular_rule(s: Site) -> None:
        rule(s)
        poles(s, *(s.get(name) for name in names or s.node.operands if s.has(name)))

    return singular_rule


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


def saturating(rule: Rule) -> Rule:
    """A rule for a function that is a chosen number, such as 1, of many others."""

    @wraps(rule)
    def saturating_rule(s: Site) -> None:
        rule(s)
        s.facts.saturating.add(s.node)

    return saturating_rule


def _saturate(s: Site, *bounds: Operand) -> None:
    """What is beyond one of these bounds becomes that bound; infinities bound nothing, and copies of 0 add up to 0."""
    if any(isinstance(bound, int | float) and 0 < abs(bound) < _GREATEST for bound in bounds):
        s.facts.saturating.add(s.node)


def bounded_by(s: Site) -> None:
    """Like ``elementwise``; each element is one of an operand's."""
    elementwise(s)
    s.picks(s.out, *s.tensors)
    _floor(s, s.get("self"))
    _saturate(s, s.get("min"), s.get("max"))


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


def detached(s: Site) -> None:
    """The operand, which gets no gradient."""
    identity(s)
    s.facts.detached.add(s.out)


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
            poles(s, x)

    return power


def pow_scalar(s: Site) -> None:
    """x to the power of a literal; one that is no simple fraction leaves no exact scale, so that it must be 1."""
    x, exponent = s.tensor("self"), exact(s.get("exponent"))
    s.broadcast(x)
    if exponent is not None:
        s.scale(s.out, {x: exponent})
    if exponent != 0 and s.number("exponent") < 1:
        poles(s, x)


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
            chosen += numbers(s, operand, name)
    if all(isinstance(item, Literal) or item.is_tensor for item in chosen):
        s.same_scale(s.out, *chosen)
        if s.node.op not in _COMPARING:
            operands = (s.get(name) for name in ("self", "other", "src", "value"))
            s.sums(s.out, *(summand(item) for item in operands if item is not None and item != 0))
    s.picks(s.out, *(item for item in chosen if isinstance(item, Value) and item.is_tensor))
    _saturate(s, s.get("self"), s.get("other"), s.get("value"))


_COMPARING = {
    f"aten.{name}"
    for name in ("maximum.default", "minimum.default", "max.other", "min.other", "fmax.default", "fmin.default")
}


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
            scaled += numbers(s, bound, name)
    s.same_scale(*scaled)
    s.picks(s.out, *s.tensors)
    _floor(s, x)
    _saturate(s, s.get("min"), s.get("max"))


@says("... | ... -> ...")
def gated(s: Site, pattern: str) -> None:
    """``swish(A) B``"""
    s.ignores("alpha")
    s.states(pattern, "B", "A")


_GREATEST = 3.4e38
"""Bounds beyond are none."""


_NON_LINEAR = """
    acos cos cosh exp exp2 isfinite isinf isnan log_sigmoid bitwise_not sinc softplus
    atan2 logaddexp i0 special_airy_ai special_bessel_j0 special_erfcx special_i0e special_modified_bessel_i0
    special_spherical_bessel_j0
"""
_SINGULAR = "acosh digamma igamma igammac lgamma log log10 log2 logit polygamma special_ndtri special_zeta"
"""Functions without a value at 0."""

_SATURATING = "erfc hardsigmoid hardtanh sigmoid"
_VANISHING = """
    asin asinh atan atanh erfinv gelu hardswish log1p mish nan_to_num selu silu sin sinh
    softshrink special_bessel_j1 special_i1 special_i1e tan
"""
"""Non-linear functions that are 0 at 0."""

_SATURATING_VANISHING = "celu elu erf expm1 relu6 special_expm1 tanh"

_STEPS = "ceil floor trunc sgn sign heaviside"
_JUMPS = "angle frac signbit logical_and logical_not logical_or logical_xor threshold"
_BOUNDED = "clamp clamp_max clamp_min clip"
_EQUALITIES = "eq ne"
_COMPARISONS = "lt le gt ge copysign"
_BITWISE = "bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ __lshift__ __rshift__"
_HOMOGENEOUS = "neg abs leaky_relu positive real imag"
_IDENTITIES = "alias clone contiguous lift_fresh_copy lift"

_ONNX_VANISHING = "Asin Asinh Atan Atanh Gelu HardSwish Mish Selu Sin Sinh Softsign Swish Tan"
_ONNX_SATURATING = "HardSigmoid Sigmoid"
_ONNX_SATURATING_VANISHING = "Celu Elu Erf Tanh"
_ONNX_NON_LINEAR = """
    Acos Cos Cosh Exp Softplus
    And BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor IsInf IsNaN Not Or Xor BitCast RegexFullMatch StringConcat
"""
_ONNX_STEPS = "Ceil Floor Sign"
_ONNX_JUMPS = "Greater GreaterOrEqual Less LessOrEqual Shrink ThresholdedRelu"

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(named(_NON_LINEAR), elementwise),
    **dict.fromkeys(named(_SINGULAR), singular(elementwise)),
    **dict.fromkeys(named(_VANISHING), vanishing),
    **dict.fromkeys(named(_SATURATING), saturating(elementwise)),
    **dict.fromkeys(named(_SATURATING_VANISHING), saturating(vanishing)),
    **dict.fromkeys(named(_JUMPS), jump),
    **dict.fromkeys(named(_STEPS), step),
    **dict.fromkeys(named(_BOUNDED, "default", "Tensor"), bounded_by),
    **dict.fromkeys(named(_EQUALITIES, "Tensor", "Scalar"), equality),
    **dict.fromkeys(named(_COMPARISONS, "Tensor", "Scalar"), jump),
    **dict.fromkeys(named("fmod remainder", "Tensor", "Scalar"), singular(jump, "other")),
    **dict.fromkeys(named(_BITWISE, "Tensor", "Scalar"), elementwise),
    **dict.fromkeys(named("bitwise_left_shift bitwise_right_shift", "Tensor", "Tensor_Scalar"), elementwise),
    **dict.fromkeys(named("xlogy", "Tensor", "Scalar_Self", "Scalar_Other"), singular(elementwise, "other")),
    **dict.fromkeys(named("pow", "Scalar", "Tensor_Tensor"), singular(elementwise, "self")),
    **dict.fromkeys(named("floor_divide", "default", "Scalar"), singular(step, "other")),
    "aten.hardshrink.default": vanishing_jump,
    "aten.hypot.default": singular(elementwise),  # it has no slope where both are 0
    **dict.fromkeys(named("round", "default", "decimals"), rounding),
    "aten.relu.default": rectify,
    **dict.fromkeys(named(_HOMOGENEOUS), homogeneous),
    **dict.fromkeys(named(_IDENTITIES), identity),
    "aten.detach.default": detached,
    **dict.fromkeys(named("to", "dtype", "dtype_layout", "device"), identity),
    "aten._to_copy.default": identity,
    "aten.to.other": cast_like,
    "aten.type_as.default": cast_like,
    **dict.fromkeys(named("dropout feature_dropout alpha_dropout"), dropout),
    "aten.rrelu.default": random_slope,
    "aten.prelu.default": prelu,
    "aten.sqrt.default": power_of(Fraction(1, 2)),
    "aten.rsqrt.default": power_of(Fraction(-1, 2)),
    "aten.reciprocal.default": power_of(-1),
    "aten.square.default": power_of(2),
    "aten.pow.Tensor_Scalar": pow_scalar,
    "aten.glu.default": glu,
    **dict.fromkeys(named("maximum minimum fmax fmin copy"), choose),
    **dict.fromkeys(named("max min", "other"), choose),
    **dict.fromkeys(named("where", "self", "ScalarOther", "ScalarSelf", "Scalar"), choose),
    **dict.fromkeys(named("masked_fill fill", "Scalar", "Tensor"), choose),
    "aten.complex.default": complex_of,
    "aten.polar.default": polar,
    **{f"onnx.{name}": elementwise for name in _ONNX_NON_LINEAR.split()},
    **{f"onnx.{name}": vanishing for name in _ONNX_VANISHING.split()},
    **{f"onnx.{name}": saturating(elementwise) for name in _ONNX_SATURATING.split()},
    **{f"onnx.{name}": saturating(vanishing) for name in _ONNX_SATURATING_VANISHING.split()},
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
    "onnx.Where": spelled(choose, self="X", other="Y"),
    "onnx.SwiGLU": gated,
}
