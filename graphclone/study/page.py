"""The page of a study as plain data: every run with its curve, and the ratio at each gap."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from graphclone.study.curves import PAPER, CurveGroup, curves
from graphclone.study.looks import thinned_places
from graphclone.study.measures import final_loss
from graphclone.study.records import Run
from graphclone.version import __version__

_DIGITS = 6


def page_of_study(runs: Sequence[Run]) -> dict[str, Any]:
    """The data of the page of a study, in types that JSON has; for ``graphclone.report.write_study``.

    Args:
        runs: of one study; those under way, too.
    """
    bases = {run.name: run for run in runs if run.kind == "base"}
    return {
        "version": __version__,
        "commands": sorted({run.command for run in runs}),
        "corpora": sorted({run.corpus[:12] for run in runs}),
        "paper": list(PAPER),
        "runs": [_run(run, bases.get(run.base or "")) for run in runs if run.evaluations],
        "ratios": [line for group in curves(runs) for line in _ratios(group)],
    }


def _run(run: Run, base: Run | None) -> dict[str, Any]:
    kept = [run.evaluations[at] for at in thinned_places(len(run.evaluations))]
    last = final_loss(run)

    def over_time(name: str) -> list[float | None]:
        return [_short(getattr(evaluation, name)) for evaluation in kept]

    return {
        "name": run.name,
        "kind": run.kind,
        "model": run.model,
        "factor": run.factor,
        "base": run.base_label,
        "recipe": run.recipe or "base",
        "seed": run.seed,
        "steps": run.steps,
        "rate": run.learning_rate,
        "parameters": run.parameters,
        "finished": run.finished,
        "done": run.evaluations[-1].step / run.steps if run.steps else 1.0,
        "last": _short(last),
        "compute_per_step": run.compute(1),
        "base_compute": base.compute(base.steps) * run.bases if base else 0.0,
        "steps_at": [evaluation.step for evaluation in kept],
        "loss": over_time("loss"),
        "accuracy": over_time("accuracy"),
        "swap": over_time("swap_cosine"),
        "rank": over_time("effective_rank"),
    }


def _ratios(group: CurveGroup) -> list[dict[str, Any]]:
    """A line for every clone and seed; what is only known to be greater is left out."""
    lines = []
    for recipe, seed in group.places:
        found = [(gap, group.ratio(recipe, seed, gap)) for gap in group.gaps]
        points = [[_short(gap), _short(ratio.value)] for gap, ratio in found if ratio and not ratio.least]
        place = {"title": group.title, "model": group.model, "recipe": recipe, "seed": seed}
        lines += [{**place, "points": points}] if points else []
    return lines


def _short(value: float | None) -> float | None:
    """A number with as many digits as can be seen; None where it is none."""
    return None if value is None or not isfinite(value) else float(f"{value:.{_DIGITS}g}")
