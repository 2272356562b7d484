"""The looks of a study's plots: colours by recipe, and small SVG files, the same bytes for the same runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphclone.runtime.files import written
from graphclone.study.measures import in_order
from graphclone.study.recipes import CONTINUED, RANDOM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours for all eyes (Okabe and Ito 2008), without their yellow, which is too light for lines on white."""

DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
"""When the colours are used up they come again with the next of these."""

POINTS = 80
"""A line is drawn through at most this many evaluations, so that files stay small."""

GREY = "#555555"
"""Of what is no clone."""

_FINER = re.compile(r"(\d\.\d\d)\d+")
"""Decimals that no eye can see, and that are half of a file."""

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text as text: small, and found by a search
    "svg.hashsalt": "graphclone",
}

Look = tuple[str, "str | tuple[float, tuple[float, ...]]"]
"""The colour and the dashes of a line."""


def looks_of(recipes: Iterable[str]) -> dict[str, Look]:
    """The style of each recipe, the same in all plots of a study."""
    pairs = [(colour, dash) for dash in DASHES for colour in COLOURS]
    clones = in_order(set(recipes) - {RANDOM, CONTINUED})
    return {RANDOM: ("black", "-"), CONTINUED: (GREY, "-."), **dict(zip(clones, cycle(pairs), strict=False))}


def saved(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all; returns where.

    Raises:
        GraphcloneError: the place cannot be written to.
    """
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    with written(path) as target:
        target.write_text(_FINER.sub(r"\1", text.getvalue()), encoding="utf-8")
    return path


def thinned_places(count: int) -> list[int]:
    """At most ``POINTS`` of so many places, evenly, with the first and the last."""
    if count <= POINTS:
        return list(range(count))
    return [round(at * (count - 1) / (POINTS - 1)) for at in range(POINTS)]
