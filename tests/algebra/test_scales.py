"""Exact solving over logarithms."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.algebra.scales import Expression, Infeasible, System, add, exp, log

COSTS = {"cheap": 0, "middling": 1, "dear": 2}


def system() -> System:
    return System(lambda unknown: (COSTS[str(unknown)],))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_log_and_exp_are_inverse(a: int, b: int) -> None:
    assert exp(log(Fraction(a, b))) == a / b


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_log_of_a_product_is_a_sum(a: int, b: int) -> None:
    total = log(a)
    add(total, log(b))
    assert total == log(a * b)


def test_irrational_powers() -> None:
    assert exp({2: Fraction(1, 2)}) == pytest.approx(math.sqrt(2), rel=1e-15)


def test_the_cheapest_unknown_changes() -> None:
    solver = system()
    solver.zero({"dear": Fraction(1), "cheap": Fraction(1), **log(2)})
    assert exp(solver.value("cheap")) == 0.5
    assert exp(solver.value("dear")) == 1.0


def test_a_dear_unknown_changes_if_nothing_else_may() -> None:
    solver = system()
    solver.zero({"cheap": Fraction(1)})
    solver.zero({"dear": Fraction(2), "cheap": Fraction(1), **log(9)})
    assert exp(solver.value("dear")) == pytest.approx(1 / 3)


def test_a_contradiction_is_named() -> None:
    solver = system()
    solver.zero({"cheap": Fraction(1)})
    with pytest.raises(Infeasible) as problem:
        solver.zero({"cheap": Fraction(1), **log(6)})
    assert problem.value.args == (6.0,)


@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(-2, 2)), max_size=3),
    st.integers(1, 12),
)
def test_solutions_satisfy_every_equation(rows: list[tuple[int, int, int]], n: int) -> None:
    solver = system()
    kept: list[Expression] = []
    for row in rows:
        equation: Expression = {key: Fraction(c) for key, c in zip(COSTS, row, strict=True) if c}
        add(equation, log(n))
        try:
            solver.zero(equation)
        except Infeasible:
            continue
        kept.append(equation)
    values = {key: solver.value(key) for key in COSTS}
    for equation in kept:
        total: Expression = {key: c for key, c in equation.items() if isinstance(key, int)}
        for key in COSTS:
            add(total, values[key], equation.get(key, Fraction(0)))
        assert not total
