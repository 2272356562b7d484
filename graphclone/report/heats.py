"""Weights before and after: a corner of each, with all the copies of what is there."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import torch

from graphclone.algebra.growth import PAD, IntArray, Layout
from graphclone.algebra.recipes import Widening
from graphclone.graph.ir import Initializer
from graphclone.pipeline.state import State
from graphclone.report.page import Heat
from graphclone.runtime.blocks import Source, stored, widen_block

CORNER = 24
"""So many source indices of each axis."""

MOST_SIDE = 96
"""So many rows and columns of the clone at most."""

MOST_WEIGHTS = 12

_DIGITS = 3


def heats(state: State) -> Iterator[Heat]:
    """The first weight of each name, layer numbers apart, that grows and has two axes; those that are shared out first.

    Only blocks of the clone's weights are made.

    Args:
        state: of a clone, whose source has data.
    """
    recipes = state.recipes
    named: dict[str, Initializer] = {}
    for initializer in state.graph.initializers:
        recipe = recipes[initializer.value]
        if initializer.kind == "parameter" and len(recipe.axes) >= 2 and not recipe.identity:
            named.setdefault(re.sub(r"\d+", "*", initializer.name), initializer)
    ordered = sorted(named.values(), key=lambda initializer: not recipes[initializer.value].contracted)
    for initializer in ordered[:MOST_WEIGHTS]:
        if initializer.value.is_float:
            yield _heat(initializer, recipes[initializer.value])


def _heat(initializer: Initializer, recipe: Widening) -> Heat:
    source = Source(stored(initializer))
    rows, columns = (_corner(layout) for layout in recipe.axes[:2])
    first = [_first(layout) for layout in recipe.axes[2:]]
    block = source.rows(0, min(CORNER, recipe.axes[0].size))[:, :CORNER]
    wanted = [rows, columns, *first]
    out = torch.empty([len(indices) for indices in wanted], dtype=block.dtype)
    widen_block(source, recipe, wanted, out)
    return Heat(
        name=initializer.name,
        shape=recipe.source_shape,
        new_shape=recipe.shape,
        before=_numbers(block),
        after=_numbers(out),
        row_edges=_edges(recipe.axes[0], rows),
        column_edges=_edges(recipe.axes[1], columns),
        whole=len(rows) == recipe.shape[0] and len(columns) == recipe.shape[1] and len(recipe.axes) == 2,
    )


def _corner(layout: Layout) -> IntArray:
    """The new indices that repeat the first source indices, and the first of those that repeat none."""
    index = layout.index_map
    held = np.flatnonzero((index != PAD) & (index < CORNER))
    pads = np.flatnonzero(index == PAD)[:CORNER]
    return np.sort(np.concatenate([held, pads]))[:MOST_SIDE]


def _first(layout: Layout) -> IntArray:
    """The place of the first source index of an axis that is not drawn."""
    return np.flatnonzero(layout.index_map == 0)[:1]


def _numbers(block: torch.Tensor) -> tuple[tuple[float | None, ...], ...]:
    """The rows of a block, rounded to what a colour can tell, None where not finite; further axes at their first."""
    matrix = block.detach().double().reshape(*block.shape[:2], -1)[:, :, 0]
    return tuple(
        tuple(float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None for number in row)
        for row in matrix.tolist()
    )


def _edges(layout: Layout, indices: IntArray) -> tuple[int, ...]:
    """Where another copy, or the pads, begin."""
    copies = np.where(layout.index_map[indices] == PAD, PAD, layout.copies[indices])
    return tuple(int(edge) + 1 for edge in np.flatnonzero(np.diff(copies)))
