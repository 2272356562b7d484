"""Factors as people write them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from graphclone.algebra.factors import fraction
from graphclone.errors import GraphcloneError


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (2, Fraction(2)),
        (1, Fraction(1)),
        (1.5, Fraction(3, 2)),
        (4 / 3, Fraction(4, 3)),
        (5 / 3, Fraction(5, 3)),
        ("4/3", Fraction(4, 3)),
        ("1.25", Fraction(5, 4)),
        (Fraction(7, 4), Fraction(7, 4)),
    ],
)
def test_a_factor_is_the_simple_fraction_that_it_stands_for(factor: object, expected: Fraction) -> None:
    assert fraction(factor, "hidden") == expected


@pytest.mark.parametrize("factor", [0, -2, 0.5, "1/2", True, None, "two", "1/0", float("nan"), float("inf"), [2]])
def test_anything_else_is_refused(factor: object) -> None:
    with pytest.raises(GraphcloneError) as refusal:
        fraction(factor, "hidden")
    assert str(refusal.value) == f"hidden={factor}: a factor is a number such as 2, 1.5 or 4/3, and at least 1"


def test_integers_of_numpy() -> None:
    assert fraction(np.uint8(3), "hidden") == 3
