"""Smoothed curves, and curves whose crossings are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.study.smoothing import crossing, smoothed
from tests.study.test_measures import made, power_law

# --- Smoothing ---


def test_smoothing_leaves_a_falling_curve_as_it_is() -> None:
    run = made(power_law())
    assert smoothed(run.curve) == run.curve


@pytest.mark.parametrize("length", [1, 2])
def test_a_short_spike_leaves_no_trace(length: int) -> None:
    curve = [(step, 2.0) for step in range(20)]
    spiked = [(step, 9.0 if 8 <= step < 8 + length else loss) for step, loss in curve]
    assert smoothed(spiked) == curve


def test_a_rise_of_half_a_window_stays() -> None:
    curve = [(step, 9.0 if 8 <= step < 11 else 2.0) for step in range(20)]
    assert smoothed(curve) == curve


@given(st.lists(st.floats(0, 10), max_size=30))
def test_smoothing_is_the_median_of_a_window_within_the_curve(losses: list[float]) -> None:
    found = [loss for _, loss in smoothed(list(enumerate(losses)))]
    for at, loss in enumerate(found):
        near = min(2, at, len(losses) - 1 - at)
        assert loss == sorted(losses[at - near : at + near + 1])[near]


# --- Crossings ---


def test_a_crossing_of_a_power_law_is_where_it_is() -> None:
    """It is at 2 where (1 + s / 20) ** -0.5 = 1 / 4, that is, at step 300, which no evaluation hits."""
    found = crossing(made(power_law(), every=8).curve, 2.0)
    assert found == pytest.approx(300, abs=0.05)


def test_a_crossing_between_evaluations_is_interpolated() -> None:
    assert crossing([(0, 4.0), (100, 2.0)], 3.5) == 25


def test_the_last_crossing_counts() -> None:
    """Below the level from the start, above it at 20 and 30, back at the middle of 30 and 40."""
    assert crossing([(0, 1.0), (10, 1.9), (20, 3.0), (30, 3.0), (40, 1.0), (50, 1.0)], 2.0) == 35


@pytest.mark.parametrize(
    ("losses", "found"),
    [([3.0, 2.5, 2.1], None), ([1.0, 2.5], None), ([2.0, 1.0], 0), ([2.0], 0), ([], None), ([math.inf, 1.0], 10)],
)
def test_crossings_at_the_ends(losses: list[float], found: float | None) -> None:
    assert crossing([(10 * at, loss) for at, loss in enumerate(losses)], 2.0) == found
