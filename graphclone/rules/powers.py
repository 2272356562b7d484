"""Literal numbers as the simple fractions by which scales are taken to a power."""

from __future__ import annotations

import math
from fractions import Fraction

from graphclone.graph.ir import Operand
from graphclone.rules.binding import Cannot


def exact(number: Operand) -> Fraction | None:
    """A literal number as a fraction, if it is a simple one."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    fraction = Fraction(number).limit_denominator(1000)
    return fraction if float(fraction) == number else None


def root(order: Operand) -> Fraction:
    """1 / p of a p-norm, by whose power it grows with the number of copies; 0 of the greatest or least element.

    Raises:
        Cannot: there is no such norm, or the power is no simple fraction.
    """
    if not isinstance(order, int | float) or not (order > 0 or order == -math.inf):
        raise Cannot(f"a norm of order {order}")
    power = Fraction(0) if math.isinf(order) else exact(1 / order)
    if power is None:
        raise Cannot(f"a norm of order {order}")
    return power
