"""A clone in numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any

from graphclone.algebra.growth import Growth, Leaf
from graphclone.pipeline.state import State

if TYPE_CHECKING:
    from graphclone.analysis.dims import Group
    from graphclone.clones.traced import Traced
    from graphclone.verification.checks import Report


def factors(state: State, group: Group) -> tuple[int | Fraction, ...]:
    """By how much every dim of a group grew; a whole number is an int."""
    find = state.facts.axes.find
    exact = (Fraction(state.growth_of(find(dim.axis)).new_size, dim.size) for dim in group.dims)
    return tuple(int(factor) if factor.denominator == 1 else factor for factor in exact)


def clone_rows(clone: Traced) -> list[dict[str, Any]]:
    """The dims of a clone, one row per group, or several where its dims grew differently."""
    rows = []
    for group in clone.dims:
        growths = Counter(clone.state.growth_of(dim.axis) for dim in group.dims)
        rows += [
            {
                "name": group.name,
                "size": group.size,
                "new_size": growth.new_size,
                "growth": described(growth),
                "count": count,
                "pinned": str(group.pin) if group.pin is not None else None,
            }
            for growth, count in growths.items()
        ]
    return rows


def new_blocks(clone: Traced) -> list[str]:
    """The names of the blocks that the source does not have."""
    state = clone.state
    return [addition.name for addition in state.depth.additions] if state.has(State.depth) else []


def described(growth: Growth) -> str:
    """The growth of a dim, in words: copies of the source, and pads that hold none."""
    counts = sorted({int(count) for count in Leaf(growth).multiplicity})
    copies = f"{' or '.join(map(str, counts))} {'copy' if counts == [1] else 'copies'}"
    pads = growth.new_size - int(Leaf(growth).multiplicity.sum())
    return f"{copies}, {pads} pads" if pads else copies


def clone_record(
    clone: Traced, output: str, notes: Sequence[str], graphs: Mapping[str, str], verification: Report | None
) -> dict[str, Any]:
    """The record of a clone and of where it was written, as a tree of plain values."""
    before, after = parameters(clone)
    return {
        "output": output,
        "strategy": clone.state.request.strategy.name,
        "seed": clone.state.request.seed,
        "parameters": {"source": before, "clone": after},
        "dims": clone_rows(clone),
        "new_blocks": new_blocks(clone),
        "timings": [dataclasses.asdict(timing) for timing in clone.timings],
        "notes": list(notes),
        "graphs": dict(graphs),
        "verification": verification.to_dict() if verification is not None else None,
    }


def parameters(clone: Traced) -> tuple[int, int]:
    """The number of parameters of source and clone."""
    source, wide = (
        sum(prod(i.value.shape or ()) for i in graph.initializers if i.kind == "parameter")
        for graph in (clone.state.model, clone.graph)
    )
    return source, wide
