"""Quotients of sizes: integers where they leave no remainder for any size, and else what torch takes them for."""

from __future__ import annotations

import pytest
import sympy
from torch.utils._sympy.functions import CeilToInt, FloatTrueDiv, FloorToInt, IntTrueDiv, ToFloat, TruncToInt

from graphclone.formats.torch.exact_quotients import exact_quotients, has_fractions

m, n = sympy.symbols("m n", integer=True, positive=True)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (FloatTrueDiv(ToFloat(4 * n), sympy.Float(4.0)), n),
        (FloatTrueDiv(ToFloat(6 * n * m + 4), sympy.Float(2.0)), 3 * n * m + 2),
        (IntTrueDiv(12 * n, sympy.Integer(4)), 3 * n),
    ],
)
@pytest.mark.parametrize("function", [TruncToInt, FloorToInt, CeilToInt])
def test_what_leaves_no_remainder_is_an_integer(number: sympy.Basic, expected: sympy.Basic, function: type) -> None:
    with exact_quotients():
        assert sympy.expand(function(number) - expected) == 0  # type: ignore[call-arg, operator]


@pytest.mark.parametrize(
    "number",
    [
        FloatTrueDiv(ToFloat(3 * n), sympy.Float(2.0)),
        FloatTrueDiv(ToFloat(4 * n), sympy.Float(2.5)),
        FloatTrueDiv(ToFloat(4 * n + 1), sympy.Float(4.0)),
        FloatTrueDiv(ToFloat(4 * n), ToFloat(m)),
        IntTrueDiv(n, m),
        0.5 * ToFloat(n),
    ],
)
def test_what_may_leave_one_stays(number: sympy.Basic) -> None:
    with exact_quotients():
        assert has_fractions(TruncToInt(number))


def test_what_torch_simplifies_is_as_it_was_afterwards() -> None:
    before = TruncToInt.eval
    with exact_quotients():
        assert TruncToInt.eval != before
        assert TruncToInt(sympy.Float(2.7)) == 2
    assert TruncToInt.eval == before
