"""One page of small plots: where budgets end, by steps and by compute, and how much sooner a clone is by gap."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from graphclone.study.curves import PAPER, CurveGroup
from graphclone.study.looks import GREY, Look
from graphclone.study.measures import final_loss, spread
from graphclone.study.records import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def page(groups: Sequence[CurveGroup], looks: Mapping[str, Look]) -> Figure:
    """A row of three plots for every group; see ``graphclone.study.curves``.

    Args:
        groups: at least one.
        looks: colour and dashes by recipe.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.9 * len(groups) + 0.6), layout="constrained")
    rows = figure.subplots(len(groups), 3, squeeze=False)
    for (steps, compute, ratios), group in zip(rows, groups, strict=True):
        _losses(steps, group, looks, with_compute=False)
        _losses(compute, group, looks, with_compute=True)
        _ratios(ratios, group, looks)
        steps.set_title(group.title, loc="left")
        steps.set_ylabel("validation loss,\nnats per token")
        ratios.set_ylabel("times as soon as random weights")
    texts = ("steps", "training compute in FLOP, base included", "gap below the base")
    for axes, text in zip(rows[-1], texts, strict=True):
        axes.set_xlabel(text)
    shown = {name: None for group in groups for name in group.recipes}
    handles, labels = [], []
    for name in shown:
        (line,) = rows[0][0].plot([], [], color=looks[name][0], linestyle=looks[name][1], marker=".")
        handles.append(line)
        labels.append(name)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    return figure


def _losses(axes: Axes, group: CurveGroup, looks: Mapping[str, Look], *, with_compute: bool) -> None:
    """Where the budgets of each recipe end: the mean over seeds, and their range."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    for recipe, seeds in group.recipes.items():
        ended: dict[int, list[Run]] = {}
        for run in (run for runs in seeds.values() for run in runs):
            ended.setdefault(run.steps, []).append(run)
        places = [_place(runs[0], group, with_compute=with_compute) for runs in ended.values()]
        means = [spread(final_loss(run) for run in runs) for runs in ended.values()]
        found = sorted((place, mean) for place, mean in zip(places, means, strict=True) if mean)
        _line(axes, looks[recipe], [(place, mean.mean, mean.low, mean.high) for place, mean in found])
    axes.axhline(statistics.fmean(final_loss(base) for base in group.bases.values()), color=GREY, ls="--", lw=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _place(run: Run, group: CurveGroup, *, with_compute: bool) -> float:
    if not with_compute:
        return run.steps
    return run.compute(run.steps) + run.bases * statistics.fmean(group.compute.values())


def _ratios(axes: Axes, group: CurveGroup, looks: Mapping[str, Look]) -> None:
    """The ratio against the gap; what is only known to be greater is left out, as it would bend the line."""
    for recipe in group.clones:
        points = []
        for gap in group.gaps:
            found = [group.ratio(recipe, seed, gap) for seed in group.recipes[recipe]]
            values = [ratio.value for ratio in found if ratio and not ratio.least]
            if len(values) == len(found):
                points.append((gap, statistics.fmean(values), min(values), max(values)))
        _line(axes, looks[recipe], points, marker="")
    for value in PAPER:
        axes.axhline(value, color=GREY, ls=":", lw=0.8)
        axes.annotate("paper", (1, value), xycoords=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=7)
    axes.axhline(1, color="black", lw=0.6)
    axes.set_ylim(bottom=0)


def _line(axes: Axes, look: Look, points: Sequence[tuple[float, float, float, float]], marker: str = ".") -> None:
    if not points:
        return
    places, means, low, high = zip(*points, strict=True)
    axes.plot(places, means, color=look[0], linestyle=look[1], marker=marker)
    if low != high:
        axes.fill_between(places, low, high, color=look[0], alpha=0.15, linewidth=0)
