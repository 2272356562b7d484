"""What runs say of each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.study import measures
from graphclone.study.measures import comparisons, dip, speedup, spread
from graphclone.study.records import Evaluation, Run

SETTINGS: dict[str, Any] = {
    "name": "one",
    "kind": "wide",
    "model": "small",
    "factor": 2,
    "seed": 0,
    "parameters": 1000,
    "steps": 1000,
    "batch": 2,
    "context": 8,
    "learning_rate": 0.001,
    "warmup": 10,
    "corpus": "c0",
    "command": "graphclone study small.toml",
    "recipe": "symmetric",
    "base": "base-0",
    "base_label": "short",
}


def made(loss: Callable[[float], float], every: int = 10, **changed: Any) -> Run:
    """A run with the loss that a function of the step gives."""
    settings = SETTINGS | changed
    steps = range(0, settings["steps"] + 1, every)
    return Run(**settings, evaluations=tuple(Evaluation(step, step * 16, loss(step)) for step in steps))


def base(loss: float = 3.0, **changed: Any) -> Run:
    kind = {"name": "base-0", "kind": "base", "factor": 1, "recipe": None, "base": None, "parameters": 250}
    return made(lambda step: loss, **(kind | changed))


def power_law(scale: float = 1.0) -> Callable[[float], float]:
    """A fall from 5 to 1 that is ``scale`` times as fast."""
    return lambda step: 1 + 4 * (1 + scale * step / 20) ** -0.5


# --- Speedups ---


@given(st.floats(1.5, 8))
def test_a_clone_that_is_as_random_in_less_time_has_that_ratio(scale: float) -> None:
    random = made(power_law(), recipe="random", base=None, base_label=None)
    found = speedup(random, made(power_law(scale), every=2), base())
    assert found.random_steps == 1000
    assert found.level == power_law()(1000)
    assert found.ratio == pytest.approx(scale, rel=1e-3)
    assert found.meaningful
    assert not found.begins_below


def test_the_base_s_training_is_counted_in_compute() -> None:
    """Random: 1000 parameters x 1000 steps; clone: 1000 x 250; base: 250 x 400, half as many tokens a step."""
    random, clone = made(power_law()), made(power_law(4.0))
    found = speedup(random, clone, base(steps=400, batch=1))
    assert found.ratio == pytest.approx(4)
    assert found.ratio_with_base == pytest.approx(1000 * 1000 / (1000 * 250 + 250 * 400 / 2))


def test_without_a_base_there_is_no_compute() -> None:
    found = speedup(made(power_law()), made(power_law(4.0)), None)
    assert found.ratio == pytest.approx(4)
    assert found.ratio_with_base is None


def test_random_gets_the_step_from_which_it_is_where_it_ends() -> None:
    """It stalls at step 500, so that a clone that is there at 250 is twice as fast, and not four times."""
    found = speedup(made(lambda s: max(2.0, 3 - s / 500)), made(lambda s: max(1.5, 3 - s / 250)), base())
    assert (found.random_steps, found.clone_steps) == pytest.approx((500, 250))
    assert found.ratio == pytest.approx(2)


def test_a_clone_that_never_gets_there_has_no_ratio() -> None:
    found = speedup(made(power_law()), made(lambda step: 2.0), base())
    assert (found.clone_steps, found.ratio, found.ratio_with_base) == (None, None, None)


def test_a_clone_that_begins_below_and_stays_has_a_ratio_of_compute_alone() -> None:
    random = made(lambda s: 4 - s / 1000)  # ends at 3
    found = speedup(random, made(lambda s: 2.9 - s / 1000), base(2.9))
    assert found.begins_below
    assert not found.meaningful
    assert (found.clone_steps, found.ratio) == (0, None)
    assert found.ratio_with_base == pytest.approx(1000 / 250)


def test_a_clone_that_begins_below_and_rises_counts_from_its_return() -> None:
    """Down again to the level of 3, between step 200, at 3.5, and step 210, at 2.5."""
    clone = made(lambda s: 2.9 if s < 50 else 3.5 if s <= 200 else 2.5)
    found = speedup(made(lambda s: 4 - s / 1000), clone, base(2.9))
    assert found.begins_below
    assert found.clone_steps == pytest.approx(205)


@pytest.mark.parametrize(("ends", "meaningful"), [(2.985, True), (2.995, False), (3.2, False)])
def test_a_ratio_means_something_where_random_ends_clearly_below_the_base(ends: float, meaningful: bool) -> None:
    random, clone = made(lambda s: 5 - (5 - ends) * s / 1000), made(lambda s: 3 - s / 500)
    assert speedup(random, clone, base()).meaningful is meaningful
    assert speedup(random, clone, None).meaningful is meaningful, "the clone begins at 3, too"


def test_a_noisy_base_asks_for_a_wider_margin() -> None:
    """Every fourth evaluation is 0.1 off, so that the noise is 0.05; 0.05 below is less than twice that."""
    noisy = replace(base(), evaluations=made(lambda s: 3.1 if s % 40 == 20 else 3.0).evaluations)
    assert measures.noise(noisy) == pytest.approx(0.05, rel=0.02)
    random, clone = made(lambda s: 5 - 2.05 * s / 1000), made(lambda s: 3 - s / 500)
    assert not speedup(random, clone, noisy).meaningful
    assert speedup(random, clone, base()).meaningful


# --- Dips, ends, spreads ---


def test_a_dip_is_the_rise_and_the_way_back() -> None:
    """From 2 up to 2.5 for one evaluation, then down by 1 in 400 steps: back after 200."""
    run = made(lambda s: 2.0 if s == 0 else 2.5 - (s - 10) / 400)
    assert dip(run) == measures.Dip(0.5, pytest.approx(210))


def test_a_run_that_only_falls_does_not_dip() -> None:
    assert dip(made(power_law())) == measures.Dip(0.0, 0)


def test_a_run_that_stays_above_its_start_never_recovers() -> None:
    assert dip(made(lambda s: 2.0 if s == 0 else 2.25)) == measures.Dip(0.25, None)


def test_what_rises_late_is_no_dip() -> None:
    assert dip(made(lambda s: 2.0 if s <= 600 else 2.5)).rise == 0


def test_the_final_loss_is_the_last() -> None:
    assert measures.final_loss(made(power_law())) == power_law()(1000)


def test_a_spread_is_of_a_sample() -> None:
    assert spread([1.0, None, 3.0]) == measures.Spread(2.0, pytest.approx(math.sqrt(2)), 2, 1.0, 3.0)
    assert spread([1.5]) == measures.Spread(1.5, None, 1, 1.5, 1.5)
    assert spread([None]) is None


# --- What is compared with what ---


def test_random_runs_without_a_base_are_part_of_every_comparison() -> None:
    random = [made(power_law(), name=f"r{seed}", seed=seed, recipe="random", base_label=None) for seed in (0, 1)]
    clones = [made(power_law(2), name=f"c-{label}", base_label=label) for label in ("short", "long")]
    bases = [base(name="base-0", base_label="short"), base(name="base-1", base_label="long")]
    found = comparisons([*random, *clones, *bases])
    assert [each.slug for each in found] == ["small-2x-long", "small-2x-short"]
    assert [run.name for run in found[0].recipes["random"]] == ["r0", "r1"]
    assert [run.name for run in found[0].bases] == ["base-1"]
    assert [list(each.recipes) for each in found] == [["random", "symmetric"]] * 2


def test_only_runs_of_one_seed_and_corpus_are_paired() -> None:
    random = [made(power_law(), name=f"r{seed}", seed=seed, recipe="random", base_label=None) for seed in (0, 1)]
    clones = [
        made(power_law(2), name="paired", seed=1),
        made(power_law(3), name="alone", seed=2),
        made(power_law(4), name="elsewhere", corpus="c1"),
    ]
    (found,) = comparisons([*random, *clones])
    assert [each.ratio for each in found.speedups("symmetric")] == [pytest.approx(2, rel=1e-3)]
    assert found.speedups("random") == []


def test_unfinished_runs_are_not_compared() -> None:
    run = made(power_law())
    assert comparisons([replace(run, steps=2000)]) == []
    assert len(comparisons([run])) == 1
