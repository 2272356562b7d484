"""Exact linear algebra over logarithms of scales.

Every scale is a product of rational powers of primes, so its logarithm is a rational combination of logarithms of
primes, which are linearly independent: equality is decided exactly. An expression maps unknowns, and primes (plain
integers, for constants), to rational coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from fractions import Fraction
from typing import TypeVar

Expression = dict[Hashable, Fraction]
"""Coefficient of every unknown, and of the logarithm of every prime."""

_POWERS = (1, 2, 4, 3)
"""Powers that make a simple fraction of the ratio of two constants: roots of widths, as a rule."""

_EXACT = 1e-12
_SIMPLE = 1 << 16
_FACTORABLE = 1 << 40

Key = TypeVar("Key", bound=Hashable)


class Infeasible(Exception):
    """An equation that no choice of the unknowns satisfies."""


def log(number: Fraction | int) -> Expression:
    """The logarithm of a positive rational."""
    number = Fraction(number)
    expression: Expression = {}
    for part, sign in ((number.numerator, 1), (number.denominator, -1)):
        for prime, power in _factors(part).items():
            expression[prime] = expression.get(prime, Fraction(0)) + sign * power
    return {prime: power for prime, power in expression.items() if power}


def exp(expression: Mapping[Hashable, Fraction]) -> float:
    """The number whose logarithm is a constant expression, exact where it is rational."""
    exact, rest = Fraction(1), 1.0
    for prime, power in expression.items():
        assert isinstance(prime, int), f"{prime} is not known"
        if power.denominator == 1:
            exact *= Fraction(prime) ** power.numerator
        else:
            rest *= prime ** float(power)
    return float(exact) * rest


def ratio(old: float, new: float) -> Expression:
    """The logarithm of the ratio of two numbers. Up to rounding, roots of simple fractions are recognised."""
    quotient = new / old
    for power in _POWERS:
        raised = quotient**power
        simple = Fraction(raised).limit_denominator(_SIMPLE)
        if simple > 0 and abs(float(simple) - raised) <= _EXACT * raised:
            return {prime: Fraction(c) / power for prime, c in log(simple).items()}
    exact = Fraction(new) / Fraction(old)
    if max(exact.numerator, exact.denominator) >= _FACTORABLE:
        exact = exact.limit_denominator(_FACTORABLE >> 20)
    return log(exact)


def add(a: Expression, b: Mapping[Hashable, Fraction], factor: Fraction | int = 1) -> None:
    """Add ``factor`` times b to a, in place."""
    for key, coefficient in b.items():
        total = a.get(key, Fraction(0)) + factor * coefficient
        if total:
            a[key] = total
        else:
            a.pop(key, None)


class System:
    """Linear equations solved as they come, the cheapest unknown of each expressed by the dearer ones.

    Because every pivot is the cheapest unknown of its row, the unknowns left free, which are set to zero (nothing
    changes), are the dearest possible set.

    Args:
        cost: what changing an unknown costs; lower is changed first.
    """

    def __init__(self, cost: Callable[[Hashable], tuple[int, ...]]) -> None:
        self.cost = cost
        self.solved: dict[Hashable, Expression] = {}
        self._values: dict[Hashable, Expression] = {}

    def reduce(self, expression: Mapping[Hashable, Fraction]) -> Expression:
        """The expression with solved unknowns replaced."""
        result = dict(expression)
        pending = [key for key in result if key in self.solved]
        while pending:
            key = pending.pop()
            coefficient = result.pop(key, None)
            if coefficient is not None:
                add(result, self.solved[key], coefficient)
                pending += [other for other in self.solved[key] if other in self.solved]
        return result

    def zero(self, expression: Mapping[Hashable, Fraction]) -> None:
        """State that an expression is zero.

        Raises:
            Infeasible: it is a constant other than zero.
        """
        row = self.reduce(expression)
        unknowns = [key for key in row if not isinstance(key, int)]
        if not unknowns:
            if row:
                raise Infeasible(exp(row))
            return
        pivot = min(unknowns, key=self.cost)
        coefficient = row.pop(pivot)
        self.solved[pivot] = {key: -value / coefficient for key, value in row.items()}
        self._values.clear()

    def constant(self, expression: Mapping[Hashable, Fraction]) -> Expression:
        """The constant value of an expression, free unknowns being zero."""
        total: Expression = {}
        for key, coefficient in expression.items():
            add(total, {key: Fraction(1)} if isinstance(key, int) else self.value(key), coefficient)
        return total

    def value(self, unknown: Hashable) -> Expression:
        """The constant value of an unknown, free ones being zero; each is found once."""
        pending = [] if unknown in self._values else [unknown]
        while pending:
            row = self.solved.get(pending[-1], {})
            if missing := [key for key in row if not isinstance(key, int) and key not in self._values]:
                pending += missing
            else:
                self._values[pending.pop()] = self.constant(row)
        return self._values[unknown]


def _factors(number: int) -> dict[int, int]:
    factors: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors[divisor] = factors.get(divisor, 0) + 1
            number //= divisor
        divisor += 1
    if number > 1:
        factors[number] = factors.get(number, 0) + 1
    return factors
