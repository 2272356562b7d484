"""Sums, products and quotients of tensors and numbers: their scales add up, multiply and divide."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from graphclone.analysis.facts import Scaled, Summand
from graphclone.graph.ir import Operand, Value, items_of
from graphclone.rules.site import Cannot, Rule, Site, spelled, stated


def broadcast(s: Site, *values: Value) -> None:
    """Tensors are aligned from the right; ONNX up to opset 6 may lay the second along axes from a given one."""
    s.ignores("axis", "broadcast", "consumed_inputs")
    if not s.has("axis") or len(values) < 2:
        s.broadcast(*values)
        return
    first, second, *others = values
    s.broadcast(first, *others)
    start = s.axis("axis", first.rank)
    s.align(s.axes(second), s.axes(first)[start : start + second.rank])


def poles(s: Site, *operands: Operand) -> None:
    """Those of some operands that are tensors must not be 0."""
    s.facts.poles[s.node] = tuple(o for o in operands if isinstance(o, Value) and o.is_tensor and o.is_float)


def add(s: Site) -> None:
    x, y = s.get("self"), s.get("other")
    s.ignores("alpha")
    broadcast(s, *s.tensors)
    s.sums(s.out, *(summand(operand) for operand in (x, y) if operand != 0))
    if isinstance(x, Value) and isinstance(y, Value):
        if x.is_tensor and y.is_tensor:
            s.same_scale(s.out, x, y)
            s.facts.joins.add(s.node)
            if s.number("alpha", 1) == 1:
                s.facts.added[s.out] = (x, y)
        return
    tensor, name, number = (x, "other", y) if isinstance(x, Value) else (y, "self", x)
    if not isinstance(tensor, Value):
        raise Cannot("it adds numbers")
    s.same_scale(s.out, tensor, *numbers(s, number, name))
    if s.node.op.endswith(("add.Tensor", "onnx.Add")) and s.number("alpha", 1) == 1 and number:
        s.facts.shifts[s.out] = (tensor, real(number, name))


def subtract(s: Site) -> None:
    """Like ``add``, with the other sign."""
    add(s)
    s.facts.added.pop(s.out, None)
    if s.number("alpha", 1) == 1:
        s.facts.differences.add(s.node)


def summand(*factors: Operand, divisor: Operand = None) -> Summand:
    """The product of those operands that are tensors, divided by one."""
    tensors = tuple(item for item in factors if isinstance(item, Value) and item.is_tensor)
    return Summand(tensors, (divisor,) if isinstance(divisor, Value) and divisor.is_tensor else ())


def multiply(s: Site) -> None:
    broadcast(s, *s.tensors)
    s.scale(s.out, _terms(s, 1))
    s.sums(s.out, summand(s.get("self"), s.get("other")))
    if any(tensor.producer in s.facts.poles for tensor in s.tensors):  # times an inverse
        s.facts.joins.add(s.node)


def divide(s: Site) -> None:
    """x / y: scales divide; rounding makes it non-linear."""
    broadcast(s, *s.tensors)
    terms = _terms(s, -1)
    poles(s, s.get("other"))
    s.facts.differences.add(s.node)
    if s.get("rounding_mode") is None:
        s.scale(s.out, terms)
        s.sums(s.out, summand(s.get("self"), divisor=s.get("other")))
    else:
        s.facts.jumps.add(s.node)
        s.facts.steps.add(s.node)


def product_added(sign: int) -> Rule:
    """x + value a b, or x + value a / b where the sign is -1."""

    def rule(s: Site) -> None:
        x, a, b = s.tensor("self"), s.tensor("tensor1"), s.tensor("tensor2")
        s.ignores("value")
        s.states("... | ..., ... -> ...", x, a, b)
        s.require(_sum((a, 1), (b, sign), (x, -1)))
        s.sums(s.out, summand(x), summand(a, b) if sign > 0 else summand(a, divisor=b))
        if sign < 0:
            poles(s, b)

    return rule


interpolate = stated("... + ... | ...? -> ...", "self", "end", "weight")
"""x + weight (y - x)"""


def several(s: Site) -> None:
    """The sum, mean, maximum or minimum of any number of operands, which share one scale with the result."""
    scaled: list[Scaled] = [s.out]
    s.ignores("consumed_inputs")
    for i, operand in enumerate(items_of(s.get("data_0"))):
        scaled += [operand] if isinstance(operand, Value) else numbers(s, operand, "data_0", i)
    s.broadcast(*s.tensors)
    s.same_scale(*scaled)
    if s.node.op in ("onnx.Max", "onnx.Min"):
        s.picks(s.out, *s.tensors)


def numbers(s: Site, operand: Operand, name: str, *items: int) -> list[Scaled]:
    """A literal as something with a scale; 0 and the infinities have any scale."""
    value = real(operand, name)
    return [] if value == 0 or not math.isfinite(value) else [s.literal(name, value, *items)]


def real(operand: Operand, name: str) -> float:
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


def named(names: str, *overloads: str) -> Iterator[str]:
    """The qualified names of operators of torch, each with each of these overloads."""
    return (f"aten.{name}.{overload}" for name in names.split() for overload in overloads or ("default",))


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(named("add", "Tensor", "Scalar"), add),
    **dict.fromkeys(named("sub rsub", "Tensor", "Scalar"), subtract),
    **dict.fromkeys(named("mul multiply", "Tensor", "Scalar"), multiply),
    **dict.fromkeys(named("div", "Tensor", "Scalar", "Tensor_mode", "Scalar_mode"), divide),
    "aten.true_divide.Tensor": divide,
    "aten.addcmul.default": product_added(1),
    "aten.addcdiv.default": product_added(-1),
    **dict.fromkeys(named("lerp", "Scalar", "Tensor"), interpolate),
    "onnx.Add": spelled(add, self="A", other="B"),
    "onnx.Sub": spelled(subtract, self="A", other="B"),
    "onnx.Mul": spelled(multiply, self="A", other="B"),
    "onnx.Div": spelled(divide, self="A", other="B"),
    **dict.fromkeys(("onnx.Sum", "onnx.Mean", "onnx.Max", "onnx.Min"), several),
}
