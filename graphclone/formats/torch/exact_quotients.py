"""Quotients of sizes that leave no remainder, which code computes with fractions and makes integers of again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import sympy
from torch.utils._sympy import functions

_TO_INTEGER = (functions.TruncToInt, functions.FloorToInt, functions.CeilToInt, functions.RoundToInt)
_QUOTIENTS = (functions.FloatTrueDiv, functions.IntTrueDiv)
_OF_FRACTIONS = (*_TO_INTEGER, *_QUOTIENTS, functions.ToFloat)


@contextmanager
def exact_quotients() -> Iterator[None]:
    """Let ``int(4 * n / 4)`` be ``n``.

    torch takes it for a number of its own, so that in ``x.view(int(4 * n / 4), 3, -1)`` the last axis would vary
    with ``n``.
    """
    with ExitStack() as stack:
        for function in _TO_INTEGER:
            stack.enter_context(mock.patch.object(function, "eval", classmethod(_simplified(function.eval))))
        yield


def has_fractions(size: sympy.Basic) -> bool:
    """Whether a size is computed by way of numbers that are no integers."""
    return bool(size.has(*_OF_FRACTIONS))


def _simplified(evaluate: Callable[[Any], Any]) -> Callable[[type, Any], Any]:
    def simplified(_: type, number: Any) -> Any:
        quotient = _exact(number)
        return evaluate(number) if quotient is None else quotient

    return simplified


def _exact(number: sympy.Basic) -> sympy.Basic | None:
    """The integer that a quotient is for all sizes; None where it may have a remainder."""
    if not isinstance(number, _QUOTIENTS):
        return None
    dividend, divisor = (_whole(argument) for argument in number.args)
    if dividend is None or divisor is None or not divisor.is_Integer or divisor.is_zero:
        return None
    terms = sympy.expand(dividend / divisor).as_coefficients_dict()
    whole = all(factor.is_Integer and term.is_integer for term, factor in terms.items())
    return sympy.Add(*(factor * term for term, factor in terms.items())) if whole else None


def _whole(number: sympy.Basic) -> sympy.Basic | None:
    """A number as an integer; None where it need not be one."""
    if isinstance(number, functions.ToFloat):
        return number.args[0]
    if isinstance(number, sympy.Float) and float(number).is_integer():
        return sympy.Integer(int(number))
    return number if number.is_integer else None
