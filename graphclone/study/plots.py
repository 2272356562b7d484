"""The plots of a study, as small SVG files that are the same bytes for the same runs.

matplotlib is imported when something is drawn; it draws into files only, whatever else the process shows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphclone.study.curve_tables import PLOT
from graphclone.study.looks import GREY, STYLE, Look, looks_of, saved, thinned_places
from graphclone.study.measures import RunGroup, final_loss
from graphclone.study.recipes import RANDOM
from graphclone.study.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphclone.study.curves import CurveGroup

COSINES = {"swap_cosine": "swap cosine", "row_cosine": "row cosine"}
"""The measures that have a panel below the losses, and its label."""

_GAP = 0.046
"""Between labels beside the losses, in heights of that panel."""

Line = list[tuple[int, float, float, float]]
"""Step, then mean, least and greatest over seeds."""


def draw(groups: Sequence[RunGroup], budgets: Sequence[CurveGroup], folder: Path) -> dict[str, Path]:
    """Draw each comparison into ``<slug>.svg``, and all budgets on one page, ``budgets.svg``.

    Args:
        groups: all of a study, so that a recipe looks the same in each: losses, and how far apart the copies are.
        budgets: where budgets end, and how much sooner; nothing is drawn where there are none.
        folder: that exists.

    Returns:
        The file of each comparison, by its slug.

    Raises:
        GraphcloneError: the folder cannot be written to.
    """
    from matplotlib import rc_context

    from graphclone.study.curve_plots import page

    looks = looks_of(
        {*(name for each in groups for name in each.recipes), *(name for b in budgets for name in b.recipes)}
    )
    with rc_context(STYLE):
        figures = {each.slug: _figure(each, looks) for each in groups}
        figures |= {PLOT: page(budgets, looks)} if budgets else {}
        return {slug: saved(figure, folder / f"{slug}.svg") for slug, figure in figures.items()}


def _figure(group: RunGroup, looks: Mapping[str, Look]) -> Figure:
    from matplotlib.figure import Figure

    cosines = [name for name in COSINES if any(_measured(runs, name) for runs in group.recipes.values())]
    figure = Figure(figsize=(7.5, 4.2 + 1.9 * len(cosines)), layout="constrained")
    heights = [2.0] + [1.0] * len(cosines)
    panels = [row[0] for row in figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)]
    _losses(panels[0], group, looks)
    for axes, name in zip(panels[1:], cosines, strict=True):
        _cosine(axes, group, name, looks)
    panels[-1].set_xlabel("steps")
    panels[-1].set_xlim(left=0)
    return figure


def _losses(axes: Axes, group: RunGroup, looks: Mapping[str, Look]) -> None:
    base = f", base {group.base_label}" if group.base_label else ""
    axes.set_title(f"{group.model}, {group.factor}x{base}", loc="left")
    axes.set_ylabel("validation loss, nats per token")
    ends: list[tuple[float, str, Look]] = []
    for recipe, runs in group.recipes.items():
        line = over_seeds(runs, "loss")
        _plot(axes, line, looks[recipe])
        ends.append((line[-1][1], recipe, looks[recipe]))
    random_losses = [final_loss(run) for run in group.recipes.get(RANDOM, ())]
    base_losses = [final_loss(run) for run in group.bases]
    for losses, what, dashes in ((random_losses, "random's last", ":"), (base_losses, "base's last", "--")):
        if losses:
            axes.axhline(statistics.fmean(losses), color=GREY, linestyle=dashes, linewidth=1)
            ends.append((statistics.fmean(losses), what, (GREY, dashes)))
    _zoom(axes, group, base_losses)
    _name(axes, ends)


def _zoom(axes: Axes, group: RunGroup, base_losses: Sequence[float]) -> None:
    """Show what there is to see: all of the clones, and random weights once they are near them."""
    losses = [final_loss(run) for runs in group.recipes.values() for run in runs] + list(base_losses)
    for recipe, runs in group.recipes.items():
        if recipe != RANDOM:
            losses += [loss for run in runs for _, loss in run.curve]
    losses = [loss for loss in losses if isfinite(loss)]
    if not losses or set(group.recipes) <= {RANDOM}:
        return
    room = 0.08 * (max(losses) - min(losses) or 1)
    axes.set_ylim(min(losses) - room, max(losses) + 2 * room)


def _cosine(axes: Axes, group: RunGroup, name: str, looks: Mapping[str, Look]) -> None:
    axes.set_ylabel(COSINES[name])
    axes.axhline(1, color=GREY, linewidth=0.6)
    for recipe, runs in group.recipes.items():
        _plot(axes, over_seeds(runs, name), looks[recipe])


def _plot(axes: Axes, line: Line, look: Look) -> None:
    thin = thinned([point for point in line if isfinite(point[3])])
    steps, mean, low, high = ([point[at] for point in thin] for at in range(4))
    axes.plot(steps, mean, color=look[0], linestyle=look[1])
    if low != high:
        axes.fill_between(steps, low, high, color=look[0], alpha=0.15, linewidth=0)


def _name(axes: Axes, ends: Sequence[tuple[float, str, Look]]) -> None:
    """Write what each line is beside its end, with a piece of it, and apart from each other."""
    bottom, top = axes.get_ylim()
    ends = sorted(ends)
    places = apart([(value - bottom) / (top - bottom) for value, _, _ in ends], _GAP)
    beside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    for place, (_, text, (colour, dashes)) in zip(places, ends, strict=True):
        axes.plot([1.01, 1.045], [place, place], color=colour, linestyle=dashes, scalex=False, scaley=False, **beside)
        axes.text(1.055, place, text, color=colour, va="center", fontsize=8, **beside)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved as little as needed to be a gap apart, from 0 on; more than fit go beyond 1."""
    positions: list[float] = []
    for place in places:
        positions.append(max(place, positions[-1] + gap if positions else 0.0))
    limit = max(1.0, gap * (len(positions) - 1))
    for at in reversed(range(len(positions))):
        positions[at] = min(positions[at], limit)
        limit = positions[at] - gap
    return positions


def thinned(line: Line) -> Line:
    """At most ``POINTS`` of the points, evenly, with the first and the last."""
    return [line[at] for at in thinned_places(len(line))]


def over_seeds(runs: Sequence[Run], name: str) -> Line:
    """A measure over steps, at the steps at which every seed has it."""
    seeds = [_measured([run], name) for run in runs]
    steps = set.intersection(*(set(seed) for seed in seeds))
    together = [(step, [seed[step] for seed in seeds]) for step in sorted(steps)]
    return [(step, statistics.fmean(values), min(values), max(values)) for step, values in together]


def _measured(runs: Iterable[Run], name: str) -> dict[int, float]:
    """A measure by step, where it was taken."""
    points = ((e.step, getattr(e, name)) for run in runs for e in run.evaluations)
    return {step: value for step, value in points if value is not None}
