"""The cost of growing: parameters by part of the model, for a row of factors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from math import prod

from graphclone.algebra.factors import Widen
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph
from graphclone.passes.choose_widths import ChooseWidths
from graphclone.pipeline.state import State
from graphclone.report.page import Choice, Cost

MOST_PARTS = 12
"""More bars than these nobody reads."""

FACTORS = tuple(Fraction(quarters, 4) for quarters in range(4, 17))
"""From 1 to 4 in quarters."""

_WHOLE = tuple(factor for factor in FACTORS if factor.denominator == 1)


def part_of(names: Iterable[str]) -> dict[str, str]:
    """The part of the model that every parameter is counted by: a starred path, as long as there are few of them."""
    names = list(names)
    for depth in (2, 1, 0):
        parts = {name: _part(name, depth) for name in names}
        if len(set(parts.values())) <= MOST_PARTS:
            return parts
    return dict.fromkeys(names, "all")


def _part(name: str, depth: int) -> str:
    """The path of a parameter's module, with numbers starred, up to so many words behind the last number."""
    words = ["*" if word.isdigit() else word for word in name.split(".")[:-1]] or [name]
    behind = next((at for at in range(len(words), 0, -1) if words[at - 1] == "*"), 0)
    return ".".join(words[: max(behind + depth, 1)])


def by_part(counts: Mapping[str, int], parts: Sequence[str], part: Mapping[str, str]) -> tuple[int, ...]:
    """Parameters added up by part."""
    sums: Counter[str] = Counter()
    for name, count in counts.items():
        sums[part[name]] += count
    return tuple(sums[name] for name in parts)


def sizes(graph: Graph) -> dict[str, int]:
    """The number of elements of each parameter of a graph."""
    return {i.name: prod(i.value.shape or ()) for i in graph.initializers if i.kind == "parameter"}


def choices(traced: Traced, parts: Sequence[str], part: Mapping[str, str]) -> tuple[Choice, ...]:
    """The cost of each factor, for all dims that grow by default and for every group that can grow.

    The pass that chooses widths decides, so a factor that a clone would be refused is refused here, in its words.

    Args:
        traced: a model.
        parts: that parameters are counted by.
        part: of every parameter.
    """
    free = [group.name for group in traced.dims if group.pin is None]

    def cost(widen: Widen, factor: Fraction) -> Cost:
        state = replace(traced.state, request=replace(traced.state.request, widen=widen, sizes={}, depth=None))
        try:
            ChooseWidths()(state)
        except GraphcloneError as error:
            return Cost(float(factor), (), str(error))
        return Cost(float(factor), by_part(_grown_sizes(state), parts, part))

    everything = Choice("", tuple(cost(factor, factor) for factor in FACTORS))
    singles = [Choice(name, tuple(cost({name: factor}, factor) for factor in _WHOLE)) for name in dict.fromkeys(free)]
    return (everything, *singles)


def _grown_sizes(state: State) -> dict[str, int]:
    return {
        i.name: prod(state.layout(axis).new_size for axis in state.facts.of[i.value])
        for i in state.facts.graph.initializers
        if i.kind == "parameter"
    }
