"""The part of a study's report that compares budgets: where each ends, and how much sooner at which gap."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from graphclone.study.curves import GAPS, CurveGroup, Ratio
from graphclone.study.markdown import files, table, with_error
from graphclone.study.measures import final_loss, spread
from graphclone.study.recipes import CONTINUED, RANDOM
from graphclone.study.records import Run

PLOT = "budgets"
"""What the plot of this part is called."""

_LEGEND = """\
Every budget is a run of its own with a whole schedule, at the best of the rates that were tried. The *gap* is how far
a loss lies below the base's last one, in nats per token. *Times as soon* is the random model's budget over the clone's
at that gap, between budgets by interpolation: the mean over seeds (least..greatest); ≥ where the clone's least budget
ends below the gap, or the random model's greatest above it. An empty cell was not reached. *With base* counts training
compute, 6 × parameters × tokens, and all of the base's as the clone's. *Continued* is the control: the base itself,
trained on under the clone's schedule, for as many steps or for as much compute."""


def results_by_gap(groups: Sequence[CurveGroup], names: Sequence[str], plots: Mapping[str, str]) -> list[str]:
    """The sections of a report, in Markdown; none where no recipe was run at several budgets.

    Args:
        groups: of the study.
        names: of all its runs.
        plots: files by what they show.
    """
    if not groups:
        return []
    sections = ["## How much sooner, at which gap", _LEGEND]
    sections += [f"![Loss by budget, and times as soon by gap]({plots[PLOT]})"] if PLOT in plots else []
    for group in groups:
        sections += [f"### {group.title}", _gaps(group), _ends(group, names)]
    return sections


def _gaps(group: CurveGroup) -> str:
    rows = []
    for recipe in group.clones:
        for what, of in (("times as soon", group.ratio), ("with base", group.ratio_with_base)):
            rows.append([recipe, what, *(_ratios(group, recipe, gap, of) for gap in GAPS)])
    return table(["recipe", "", *(f"gap {gap:.2f}" for gap in GAPS)], rows, left=(0, 1))


def _ratios(group: CurveGroup, recipe: str, gap: float, of: Callable[[str, int, float], Ratio | None]) -> str:
    found = [ratio for seed in group.recipes[recipe] if (ratio := of(recipe, seed, gap))]
    mean = spread(ratio.value for ratio in found)
    if mean is None:
        return ""
    text = f"{'≥ ' if any(ratio.least for ratio in found) else ''}{mean.mean:.2f}"
    return text if mean.count == 1 else f"{text} ({mean.low:.2f}..{mean.high:.2f})"


def _ends(group: CurveGroup, names: Sequence[str]) -> str:
    """The losses at which the budgets end, a row a recipe, those of the controls beside them."""
    budgets = sorted({run.steps for seeds in group.recipes.values() for runs in seeds.values() for run in runs})
    bases = [*group.bases.values()]
    level = spread(final_loss(run) for run in bases)
    assert level is not None, "a group has a base"
    rows = [["*base*", f"{level.mean:.3f}", *[""] * len(budgets), files(bases, names)]]
    for recipe, seeds in group.recipes.items():
        runs = [run for own in seeds.values() for run in own]
        cells = [_mean(final_loss(run) for run in runs if run.steps == budget) for budget in budgets]
        rows.append([recipe, _rates(runs), *cells, files(runs, names)])
    if CONTINUED in group.recipes and RANDOM in group.recipes:
        cells = [
            _mean(group.control(RANDOM, seed, budget, equal_compute=True) for seed in group.recipes[RANDOM])
            for budget in budgets
        ]
        rows.append([f"{CONTINUED}, equal compute", "", *cells, ""])
    return table(["recipe", "loss or rate", *(f"{budget:,} steps" for budget in budgets), "runs"], rows, left=(0,))


def _rates(runs: Iterable[Run]) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted({run.learning_rate for run in runs}))


def _mean(losses: Iterable[float | None]) -> str:
    mean = spread(losses)
    return "" if mean is None else str(mean)


def downstream(runs: Sequence[Run]) -> list[str]:
    """The section on downstream tasks, in Markdown; none where no run was scored."""
    scored: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.scores and run.finished:
            base = run.base_label or ""
            recipe, rate = run.recipe or "base", f"{run.learning_rate:g}"
            scored[run.model, f"{run.factor}x", base, recipe, f"{run.steps:,}", rate].append(run)
    if not scored:
        return []
    tasks = list(dict.fromkeys(name for same in scored.values() for run in same for name in run.scores))
    rows = [[*place, str(len(same)), *(_accuracy(same, task) for task in tasks)] for place, same in scored.items()]
    text = (
        "Accuracy on tasks made of the validation text, which are choices by likelihood: of four, but two for *lines*. "
        "± is the standard error of one model's score; a mean over seeds where there are several."
    )
    headings = ["model", "growth", "base", "recipe", "steps", "learning rate", "seeds", *tasks]
    return ["## Downstream", text, table(headings, sorted(rows), left=(0, 2, 3))]


def _accuracy(runs: Sequence[Run], task: str) -> str:
    found = [run.scores[task] for run in runs if task in run.scores]
    if not found:
        return ""
    accuracies, errors = zip(*found, strict=True)
    return with_error(statistics.fmean(accuracies), None if None in errors else statistics.fmean(errors))
