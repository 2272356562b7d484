"""Times as soon against the gap, on ends that are known."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from graphclone.study.curve_tables import results_by_gap
from graphclone.study.curves import Reach, at_best_rates, curves, interpolated, ratio, steps_to
from graphclone.study.measures import comparisons
from graphclone.study.records import Run, read_runs
from graphclone.study.tables import report, write_report
from tests.study.test_measures import base, made

RANDOM_ENDS = [(1000, 2.0), (2000, 1.6), (4000, 1.2)]
CLONE_ENDS = [(250, 2.0), (500, 1.6), (1000, 1.2)]


def ended(steps: int, loss: float, recipe: str, seed: int = 0, rate: float = 0.001, **changed: object) -> Run:
    """A run that ends at a loss."""
    settings = {"name": f"{recipe}-b{steps}-r{rate}-s{seed}", "recipe": recipe, "seed": seed, "budget": steps}
    settings |= {"steps": steps, "learning_rate": rate, "base": f"base-{seed}", **changed}
    return made(lambda step: loss + (steps - step) / steps, every=steps, **settings)


def family(seeds: tuple[int, ...] = (0,), *, level: float = 2.05) -> list[Run]:
    """A base, random weights, and a clone that is four times as soon at every loss."""
    runs = []
    for seed in seeds:
        runs.append(base(level, name=f"base-{seed}", seed=seed))
        plain = {"base": None, "base_label": None}
        runs += [ended(steps, loss, "random", seed, **plain) for steps, loss in RANDOM_ENDS]
        runs += [ended(steps, loss, "diagonal", seed) for steps, loss in CLONE_ENDS]
    return runs


# --- Numbers ---


def test_a_loss_between_two_budgets_lies_on_the_line_over_their_logarithms() -> None:
    found = steps_to(RANDOM_ENDS, 1.8)
    assert found is not None
    assert found.steps == pytest.approx(1000 * math.sqrt(2))
    assert not found.bound
    assert interpolated(RANDOM_ENDS, found.steps) == pytest.approx(1.8)


def test_the_least_budget_is_a_bound() -> None:
    assert steps_to(RANDOM_ENDS, 2.0) == Reach(1000.0, bound=True)
    assert steps_to(RANDOM_ENDS, 1.1) is None


def test_a_budget_that_ends_higher_than_a_lesser_one_does_not_undo_it() -> None:
    found = steps_to([(100, 2.0), (200, 1.5), (400, 1.9)], 1.6)
    assert found is not None
    assert 100 < found.steps < 200


@pytest.mark.parametrize("level", [1.9, 1.6, 1.21])
def test_a_clone_that_is_four_times_as_soon_at_every_loss_is_so_at_every_gap(level: float) -> None:
    found = ratio(RANDOM_ENDS, CLONE_ENDS, level)
    assert found is not None
    assert found.value == pytest.approx(4)
    assert not found.least


def test_where_only_the_clone_arrives_the_ratio_is_at_least_that_of_the_greatest_budget() -> None:
    found = ratio(RANDOM_ENDS[:2], CLONE_ENDS, 1.2)
    assert found is not None
    assert (found.value, found.least) == (2.0, True)


def test_a_greater_budget_at_too_high_a_rate_says_nothing_of_when_random_weights_arrive() -> None:
    ends = [*RANDOM_ENDS[:2], (4 * RANDOM_ENDS[1][0], 3.0)]
    assert ratio(ends, CLONE_ENDS, 1.2) == ratio(RANDOM_ENDS[:2], CLONE_ENDS, 1.2)


def test_where_the_least_budget_of_random_weights_is_enough_nothing_is_said() -> None:
    assert ratio(RANDOM_ENDS, CLONE_ENDS, 2.0) is None
    assert ratio(RANDOM_ENDS, [(300, 2.1)], 2.05) is None


def test_outside_of_what_was_run_there_is_no_loss() -> None:
    assert interpolated(RANDOM_ENDS, 999) is None
    assert interpolated(RANDOM_ENDS, 4001) is None
    assert interpolated([(5, 1.0)], 5) == 1.0


# --- Rates ---


def test_the_rate_is_chosen_where_all_were_tried_and_kept_for_other_seeds() -> None:
    tried = [ended(100, 1.5, "random", 0, 0.001), ended(100, 1.4, "random", 0, 0.002)]
    others = [ended(100, 1.0, "random", 1, 0.002), ended(100, 1.7, "random", 2, 0.002)]
    assert {(run.seed, run.learning_rate) for run in at_best_rates(tried + others)} == {
        (0, 0.002),
        (1, 0.002),
        (2, 0.002),
    }


def test_rates_that_no_seed_shares_are_not_compared() -> None:
    runs = [ended(100, 1.0, "random", 0, 0.001), *(ended(100, 2.0, "random", seed, 0.002) for seed in (1, 2))]
    assert {run.learning_rate for run in at_best_rates(runs)} == {0.002}


def test_each_budget_has_its_own_best_rate() -> None:
    runs = [
        ended(steps, loss, "random", 0, rate)
        for steps, loss, rate in ((100, 1.5, 0.001), (100, 1.6, 0.002), (200, 1.3, 0.001), (200, 1.2, 0.002))
    ]
    assert [(run.steps, run.learning_rate) for run in at_best_rates(runs)] == [(100, 0.001), (200, 0.002)]


# --- Groups ---


def test_compute_counts_the_whole_training_of_the_base() -> None:
    (group,) = curves(family())
    plain, counted = group.ratio("diagonal", 0, 0.45), group.ratio_with_base("diagonal", 0, 0.45)
    assert plain is not None
    assert counted is not None
    assert plain.value == pytest.approx(4)
    # the clone has 1000 parameters and takes 500 steps, the base a quarter of them for 1000 steps
    assert counted.value == pytest.approx(4 * 500 / (500 + 250))


def test_compute_counts_the_training_of_every_base() -> None:
    merged = [replace(run, other_bases=["base-1"]) if run.recipe == "diagonal" else run for run in family()]
    (group,) = curves(merged)
    counted = group.ratio_with_base("diagonal", 0, 0.45)
    assert counted is not None
    assert counted.value == pytest.approx(4 * 500 / (500 + 2 * 250))


def test_a_base_may_be_measured_from_another() -> None:
    runs = [*family(), base(3.0, name="base-9", base_label="open", measured_from="short")]
    runs += [ended(steps, loss, "uneven", base="base-9", base_label="open") for steps, loss in CLONE_ENDS]
    groups = {group.base_label: group for group in curves(runs)}
    assert groups["open"].bases[0].name == "base-0"
    assert groups["open"].ratio("uneven", 0, 0.45) == groups["short"].ratio("diagonal", 0, 0.45)


def test_the_base_trained_on_is_compared_at_equal_steps_and_at_equal_compute() -> None:
    control = {"kind": "control", "factor": 1, "parameters": 250}
    runs = family() + [ended(steps, loss, "continued", **control) for steps, loss in ((500, 2.1), (2000, 2.0))]
    (group,) = curves(runs)
    assert group.control("diagonal", 0, 500, equal_compute=False) == pytest.approx(2.1)
    assert group.control("diagonal", 0, 500, equal_compute=True) == pytest.approx(2.0)
    assert group.control("diagonal", 0, 1000, equal_compute=True) is None


def test_a_run_that_diverged_ends_nowhere() -> None:
    (group,) = curves([*family(), ended(750, math.inf, "diagonal")])
    assert [steps for steps, _ in group.ends("diagonal", 0)] == [250, 500, 1000]


def test_one_budget_is_no_curve() -> None:
    assert curves([base(), ended(100, 2.0, "diagonal"), ended(100, 2.0, "random", base=None, base_label=None)]) == []


def test_budgets_are_not_mixed_with_runs_of_the_studys_own_steps() -> None:
    assert comparisons(family()) == []


# --- Reports ---


def saved_runs(folder: Path, runs: list[Run]) -> Path:
    for run in runs:
        place = folder / "runs" / run.name
        place.mkdir(parents=True)
        fields = {key: value for key, value in vars(run).items() if key != "evaluations"}
        (place / "run.json").write_text(json.dumps(fields))
        lines = [json.dumps({"step": e.step, "tokens": e.tokens, "loss": e.loss}) for e in run.evaluations]
        (place / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_report_says_how_much_sooner_at_which_gap(tmp_path: Path) -> None:
    text = report(saved_runs(tmp_path, family((0, 1))))
    assert "| diagonal | times as soon |" in text
    assert "4.00 (4.00..4.00)" in text
    assert "small, 2x, base short" in text


def test_a_mean_of_which_a_part_is_a_bound_says_so() -> None:
    runs = [run for run in family((0, 1)) if not (run.recipe == "random" and run.seed == 1 and run.steps == 4000)]
    sections = "\n".join(results_by_gap(curves(runs), [run.name for run in runs], {}))
    assert not re.search(r"≥ \d", sections)  # gaps of the report lie above what the lesser budgets reach
    runs = family((0, 1), level=1.25)
    runs = [run for run in runs if not (run.recipe == "random" and run.seed == 1 and run.steps == 4000)]
    assert re.search(r"≥ \d", "\n".join(results_by_gap(curves(runs), [run.name for run in runs], {})))


def test_a_study_without_budgets_has_no_such_part() -> None:
    assert results_by_gap([], [], {}) == []


def test_the_page_of_budgets_is_the_same_bytes_again_and_small(tmp_path: Path) -> None:
    folder = saved_runs(tmp_path, family((0, 1)))
    write_report(folder)
    path = folder / "plots" / "budgets.svg"
    first = path.read_bytes()
    write_report(folder)
    assert path.read_bytes() == first
    assert len(first) < 200_000
    assert "![Loss by budget" in (folder / "report.md").read_text()
    assert b"times as soon as random weights" in first


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    runs = read_runs(saved_runs(tmp_path, family()))
    assert {run.budget for run in runs} == {None, 250, 500, 1000, 2000, 4000}
