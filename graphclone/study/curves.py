"""Curves of the ratio against the gap: how much sooner a clone is depends on how far it has to come.

A run that stops in the middle of its schedule says little about a shorter one, as a loss falls most while the rate
does. So every budget of steps is a run of its own with a whole schedule, and both sides are taken at the best of the
rates that were tried. What is asked for is a *gap*: a loss that lies so many nats per token below the base's last.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from graphclone.study.measures import final_loss, in_order
from graphclone.study.recipes import CONTINUED, RANDOM
from graphclone.study.records import Run

PAPER = (2.2, 3.0, 4.0)
"""How many times as soon the paper's three clones were (HyperCloning, arXiv 2409.12903, section 4.1 and figure 1)."""

GAPS = (0.03, 0.05, 0.07, 0.10, 0.13, 0.20)
"""Nats per token below the base's last loss at which reports compare."""

_POINTS, _LEAST_GAP = 60, 0.01
"""Gaps at which a line is drawn, and the least that the last of them is."""

Ends = Sequence[tuple[int, float]]
"""Budgets in steps, ascending, and the loss at which a run of each ends."""


@dataclass(frozen=True)
class Reach:
    """When a loss is reached.

    Attributes:
        steps: the least budget that ends there, between two that were run by interpolation.
        bound: whether the least budget that was run ends there already, so that fewer steps may do.
    """

    steps: float
    bound: bool


@dataclass(frozen=True)
class Ratio:
    """The ratio by which a clone is sooner than random weights.

    Attributes:
        value: the random model's budget over the clone's.
        least: whether it is at least that: the clone's least budget got there, or the random model's greatest did not.
    """

    value: float
    least: bool


@dataclass(frozen=True)
class CurveGroup:
    """Runs of all budgets of one model, one factor and one way to train the base; finished ones only.

    Attributes:
        model: label of the architecture.
        factor: how much wider.
        base_label: of how the base was trained.
        bases: the base that gaps are measured from, by seed.
        compute: floating point operations that went into the base that was cloned, by seed.
        recipes: the runs at the chosen rates, by recipe and seed, ascending by steps; see ``at_best_rates``.
    """

    model: str
    factor: int
    base_label: str
    bases: Mapping[int, Run]
    compute: Mapping[int, float]
    recipes: Mapping[str, Mapping[int, Sequence[Run]]] = field(repr=False)

    @property
    def title(self) -> str:
        """Its title in a report."""
        return f"{self.model}, {self.factor}x, base {self.base_label}"

    @property
    def clones(self) -> list[str]:
        """Its recipes but for random weights and the base trained on."""
        return [recipe for recipe in self.recipes if recipe not in (RANDOM, CONTINUED)]

    @cached_property
    def gaps(self) -> list[float]:
        """Gaps at which a line is drawn, up to where the best run of any clone ends."""
        losses = [(seed, loss) for recipe, seed in self.places for _, loss in self.ends(recipe, seed)]
        deepest = max((final_loss(self.bases[seed]) - loss for seed, loss in losses), default=0.0)
        return [max(deepest, _LEAST_GAP) * at / _POINTS for at in range(1, _POINTS + 1)]

    @property
    def places(self) -> list[tuple[str, int]]:
        """Every clone and every seed of it."""
        return [(recipe, seed) for recipe in self.clones for seed in self.recipes[recipe]]

    def ends(self, recipe: str, seed: int) -> Ends:
        """The steps and final losses of a recipe's runs, without those that diverged."""
        ends = [(run.steps, final_loss(run)) for run in self.recipes.get(recipe, {}).get(seed, ())]
        return [(steps, loss) for steps, loss in ends if math.isfinite(loss)]

    def ratio(self, recipe: str, seed: int, gap: float) -> Ratio | None:
        """The ratio by which a recipe is this far below the base sooner than random weights; None if unknown."""
        level = final_loss(self.bases[seed]) - gap
        return ratio(self.ends(RANDOM, seed), self.ends(recipe, seed), level)

    def ratio_with_base(self, recipe: str, seed: int, gap: float) -> Ratio | None:
        """The same in compute, all of the base's training counted as the clone's."""
        plain, reach = self.ratio(recipe, seed, gap), None
        if plain is not None:
            reach = steps_to(self.ends(recipe, seed), final_loss(self.bases[seed]) - gap)
        if plain is None or reach is None:
            return None
        run = self.recipes[recipe][seed][0]
        spent, before = run.compute(reach.steps), self.compute[seed] * run.bases
        return Ratio(plain.value * spent / (spent + before), plain.least)

    def control(self, recipe: str, seed: int, steps: int, *, equal_compute: bool) -> float | None:
        """The final loss of a base that trained on for as long as a clone; None where no such budgets were run.

        Args:
            recipe: of the clone.
            seed: of both.
            steps: of the clone.
            equal_compute: whether for as much compute, in place of as many steps.
        """
        controls, clones = self.recipes.get(CONTINUED, {}).get(seed), self.recipes[recipe].get(seed)
        if not controls or not clones:
            return None
        larger = clones[0].parameters / controls[0].parameters if equal_compute else 1.0
        return interpolated(self.ends(CONTINUED, seed), steps * larger)


# --- Numbers ---


def steps_to(ends: Ends, level: float) -> Reach | None:
    """The least budget that ends at a level or below, between two budgets on the line over the logarithm of steps.

    Only budgets that end below all smaller ones count; see ``falling``.

    Returns:
        None where no budget ends so low.
    """
    before: tuple[int, float] | None = None
    for steps, loss in falling(ends):
        if loss <= level:
            if before is None:
                return Reach(float(steps), bound=True)
            share = (before[1] - level) / (before[1] - loss)
            return Reach(before[0] * (steps / before[0]) ** share, bound=False)
        before = (steps, loss)
    return None


def falling(ends: Ends) -> Ends:
    """The budgets that end below all smaller ones. Any other was not run at its best rate, and says nothing."""
    lowest, kept = math.inf, []
    for steps, loss in ends:
        if loss < lowest:
            kept.append((steps, loss))
            lowest = loss
    return kept


def ratio(random: Ends, clone: Ends, level: float) -> Ratio | None:
    """The budget at which random weights end at a level over the one at which a clone does.

    Returns:
        None where the clone never ends there, or where even the least budget of random weights does: fewer steps may
        be enough for them, and then the ratio would be less than what could be said.
    """
    sooner, later = steps_to(clone, level), steps_to(random, level)
    if sooner is None or not random or (later is not None and later.bound):
        return None
    if later is None:
        return Ratio(falling(random)[-1][0] / sooner.steps, least=True)
    return Ratio(later.steps / sooner.steps, least=sooner.bound)


def interpolated(ends: Ends, steps: float) -> float | None:
    """The loss at which a budget ends, on the line over the logarithm of steps; None outside of what was run."""
    for (low, above), (high, below) in pairwise(ends):
        if low <= steps <= high:
            return above + (below - above) * math.log(steps / low) / math.log(high / low)
    return next((loss for budget, loss in ends if budget == steps), None)


# --- What is compared with what ---


def curves(runs: Iterable[Run]) -> list[CurveGroup]:
    """Group the finished runs of several budgets by model, factor and label of the base."""
    finished = [run for run in runs if run.finished]
    places = {(run.model, run.factor, run.base_label) for run in finished if run.kind == "wide" and run.base_label}
    groups = [_group(finished, *place) for place in sorted(places, key=str) if place[2] is not None]
    return [group for group in groups if any(len(group.ends(name, seed)) > 1 for name, seed in group.places)]


def _group(finished: Sequence[Run], model: str, factor: int, label: str) -> CurveGroup:
    bases = {(run.base_label, run.seed): run for run in finished if run.model == model and run.kind == "base"}
    own = {seed: run for (of, seed), run in bases.items() if of == label}
    reference = {seed: bases.get((run.measured_from, seed), run) for seed, run in own.items()}
    recipes: dict[str, list[Run]] = defaultdict(list)
    for run in finished:
        mine = run.model == model and run.base_label in {None, label} and run.seed in own
        if mine and (run.kind == "control" or (run.kind == "wide" and run.factor == factor)):
            recipes[run.recipe or ""].append(run)
    chosen = {name: _by_seed(at_best_rates(recipes[name])) for name in in_order(recipes)}
    compute = {seed: run.compute(run.steps) for seed, run in own.items()}
    return CurveGroup(model, factor, label, reference, compute, chosen)


def _by_seed(runs: Iterable[Run]) -> dict[int, list[Run]]:
    seeds: dict[int, list[Run]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.seed, run.steps)):
        seeds[run.seed].append(run)
    return dict(seeds)


def at_best_rates(runs: Iterable[Run]) -> list[Run]:
    """Keep one rate for each budget of a recipe: that of the lowest mean loss over the seeds that tried most.

    The rate is chosen where all were tried and kept for the other seeds, so that no seed takes the best of more tries.
    """
    budgets: dict[int, dict[float, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        budgets[run.steps][run.learning_rate][run.seed] = run
    kept: list[Run] = []
    for rates in budgets.values():
        common = set.intersection(*(set(seeds) for seeds in rates.values()))
        judged = {rate: [final_loss(seeds[seed]) for seed in common] for rate, seeds in rates.items() if common}
        best = min(judged or rates, key=lambda rate: statistics.fmean(judged[rate]) if judged else -len(rates[rate]))
        kept += rates[best].values()
    return kept
