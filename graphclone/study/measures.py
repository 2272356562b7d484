"""Numbers from the runs of a study: when one catches up with another, and what it saved."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from graphclone.study.recipes import RANDOM, RECIPES
from graphclone.study.records import Run
from graphclone.study.smoothing import crossing

MARGIN = 0.01
"""Nats per token by which the random wide model must end below the base before a speedup means anything."""


@dataclass(frozen=True)
class Speedup:
    """The speedup of a clone: how much sooner it is where the random wide model ends.

    Attributes:
        level: the loss at which the random wide model ends, in nats per token.
        random_steps: from which on the random wide model is at the level or below for good.
        clone_steps: from which on the clone is at the level or below for good; None where it ends above.
        ratio: of these steps; None where there are none, or the clone needs none.
        ratio_with_base: of the compute to get there, the base's whole training counted as the clone's; None where
            the clone never gets there, or the base is not known or not finished.
        begins_below: whether the clone is at the level or below before its first step.
        meaningful: whether the random wide model ends clearly below the base. Where it does not, what the base
            had learned is all that the level asks for, and how soon a clone has it says nothing about growing.
    """

    level: float
    random_steps: float
    clone_steps: float | None
    ratio: float | None
    ratio_with_base: float | None
    begins_below: bool
    meaningful: bool


def speedup(random: Run, clone: Run, base: Run | None) -> Speedup:
    """Compare a clone with the random wide model (HyperCloning, arXiv 2409.12903, section 4).

    Clearly below the base is ``MARGIN`` below, or twice the base's own noise if that is more. Without a base the
    loss that the clone begins with stands for it, for a clone begins as its base ended.

    Args:
        random: finished.
        clone: finished.
        base: that the clone was made from, finished; None if there is none.

    Raises:
        ValueError: a run has no evaluation.
    """
    if not random.evaluations or not clone.evaluations:
        raise ValueError("a run without evaluations cannot be compared")
    level = random.smooth[-1][1]
    random_steps = crossing(random.smooth, level) or 0.0
    clone_steps = crossing(clone.smooth, level)
    before = None if base is None else base.compute(base.steps) * clone.bases
    spent = None if clone_steps is None or before is None else clone.compute(clone_steps) + before
    base_loss = base.smooth[-1][1] if base and base.evaluations else clone.smooth[0][1]
    return Speedup(
        level=level,
        random_steps=random_steps,
        clone_steps=clone_steps,
        ratio=random_steps / clone_steps if clone_steps else None,
        ratio_with_base=random.compute(random_steps) / spent if spent else None,
        begins_below=clone.smooth[0][1] <= level,
        meaningful=level < base_loss - max(MARGIN, 2 * noise(base) if base else 0.0),
    )


def noise(run: Run) -> float:
    """The deviation of the later half of a run's losses from its smoothed curve: root mean square, nats per token."""
    half = len(run.curve) // 2
    squares = [
        (loss - smooth) ** 2
        for (_, loss), (_, smooth) in zip(run.curve[half:], run.smooth[half:], strict=True)
        if math.isfinite(loss - smooth)
    ]
    return math.sqrt(statistics.fmean(squares)) if squares else 0.0


@dataclass(frozen=True)
class Dip:
    """The rise of a clone's loss before it falls.

    Attributes:
        rise: of the loss above what it begins with, in nats per token; 0 if it never rises.
        recovered: the step from which on it is back for good; 0 if it never rises, None if it does not come back.
    """

    rise: float
    recovered: float | None


def dip(run: Run) -> Dip:
    """The highest loss in the first half of a run above its first, and when that is made up for.

    From losses as measured: a rise that lasts for one evaluation is what is looked for, not noise to be smoothed.
    """
    if not run.evaluations:
        return Dip(0.0, None)
    start = run.curve[0][1]
    early = [loss for step, loss in run.curve if 2 * step <= run.steps]
    return Dip(max(0.0, max(early, default=start) - start), crossing(run.curve, start))


def final_loss(run: Run) -> float:
    """The loss at which a run ends, smoothed, in nats per token; infinite for one that diverged.

    Raises:
        ValueError: the run has no evaluation.
    """
    if not run.evaluations:
        raise ValueError(f"{run.name} has no evaluation")
    return run.smooth[-1][1]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        mean: over all values.
        deviation: of the sample (n - 1); None for a single value.
        count: how many values.
        low: the least.
        high: the greatest.
    """

    mean: float
    deviation: float | None
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        """The mean, and the deviation where there is one."""
        return f"{self.mean:.3f}" + (f" ± {self.deviation:.3f}" if self.deviation is not None else "")


def spread(values: Iterable[float | None]) -> Spread | None:
    """The mean of the values that are there, None where there are none."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    finite = len(numbers) > 1 and all(math.isfinite(value) for value in numbers)
    deviation = statistics.stdev(numbers) if finite else None
    return Spread(statistics.fmean(numbers), deviation, len(numbers), min(numbers), max(numbers))


# --- What is compared with what ---


@dataclass(frozen=True)
class RunGroup:
    """Wide runs of one model, one factor and one way to train the base; finished ones only.

    Attributes:
        model: label of the architecture.
        factor: how much wider.
        base_label: of how the base was trained; None where no run depends on a base.
        bases: the base runs, over seeds.
        recipes: the wide runs by recipe, each over seeds; see ``in_order``.
    """

    model: str
    factor: int
    base_label: str | None
    bases: tuple[Run, ...]
    recipes: Mapping[str, tuple[Run, ...]]

    @property
    def slug(self) -> str:
        """The stem of the names of files about the group."""
        parts = (self.model, f"{self.factor}x", self.base_label)
        return "-".join(part for part in parts if part is not None)

    def speedups(self, recipe: str) -> list[Speedup]:
        """The speedup of every clone by a recipe over the random run with its seed and corpus, where there is one."""
        partners = {(run.seed, run.corpus): run for run in self.recipes.get(RANDOM, ())}
        bases = {run.name: run for run in self.bases}
        return [
            speedup(partners[run.seed, run.corpus], run, bases.get(run.base or ""))
            for run in self.recipes[recipe]
            if recipe != RANDOM and (run.seed, run.corpus) in partners
        ]


def comparisons(runs: Iterable[Run]) -> list[RunGroup]:
    """Group the finished runs by model, factor and label of the base.

    A random run that depends on no base is part of every comparison of its model and factor. Runs with a budget or a
    rate of their own are compared elsewhere, in ``graphclone.study.curves``, and so are random runs that none but those
    are compared with.
    """
    runs = list(runs)
    finished = [run for run in runs if run.finished and run.kind != "control" and run.budget is None and run.rate == 1]
    wide = [run for run in finished if run.kind == "wide"]
    places = {(run.model, run.factor, run.base_label) for run in wide}
    compared = {(model, factor) for model, factor, label in places if label is not None}
    compared |= {(run.model, run.factor) for run in runs if run.kind == "wide" and run.budget is not None}
    shown = [place for place in places if place[2] is not None or place[:2] not in compared]
    return [_comparison(finished, *place) for place in sorted(shown, key=lambda place: (*place[:2], place[2] or ""))]


def _comparison(finished: Iterable[Run], model: str, factor: int, label: str | None) -> RunGroup:
    recipes: dict[str, list[Run]] = {}
    bases = []
    for run in finished:
        if run.model != model or run.base_label not in {None, label}:
            continue
        if run.kind == "base":
            bases.append(run)
        elif run.factor == factor:
            recipes.setdefault(run.recipe or "", []).append(run)
    return RunGroup(model, factor, label, tuple(bases), {name: tuple(recipes[name]) for name in in_order(recipes)})


def in_order(names: Iterable[str]) -> list[str]:
    """Names of recipes in the order of ``RECIPES``, which begins with random; a user's own come last."""
    places = {name: at for at, name in enumerate(RECIPES)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
