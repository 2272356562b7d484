"""Growth factors: as people write them, and as exact fractions."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from numbers import Integral, Rational, Real

from graphclone.errors import GraphcloneError

Factor = int | float | Fraction | str
"""How many times as large: a whole number, a fraction such as 1.5, or the text of one such as ``4/3``."""

Widen = Factor | Mapping[str, Factor]
"""One factor for every dim that grows by default, or a factor per dim or group of dims."""

_GREATEST = 1_000_000
"""No dim grows by more."""

_DENOMINATOR, _ROUNDING = 10_000, 1e-9
"""A number that is so near to a fraction of at most this denominator stands for it: 1.3333333333333333 for 4/3."""


def fraction(factor: object, where: str) -> Fraction:
    """A factor as the simple fraction that it is, or is the decimal form of.

    Args:
        factor: any ``Factor``.
        where: what the user calls it, for the message.

    Raises:
        GraphcloneError: it is no number, or less than 1.
    """
    refusal = GraphcloneError(f"{where}={factor}: a factor is a number such as 2, 1.5 or 4/3, and at least 1")
    if isinstance(factor, bool) or not isinstance(factor, Real | str):
        raise refusal
    try:
        if isinstance(factor, str) and "e" in factor.lower():  # the digits of 1e100000000 would fill the memory
            factor = min(float(factor), _GREATEST + 1)
        number = int(factor) if isinstance(factor, Integral) else factor  # numpy's have only so many digits
        exact = Fraction(number if isinstance(number, Rational | str) else float(number))
    except (ValueError, OverflowError, ZeroDivisionError):
        raise refusal from None
    simple = exact.limit_denominator(_DENOMINATOR)
    exact = simple if abs(simple - exact) < _ROUNDING else exact
    if exact < 1:
        raise refusal
    if exact > _GREATEST:
        raise GraphcloneError(f"{where}: no factor may be above {_GREATEST:,}")
    return exact
