"""The layouts of tensors, as text and as leaves that know their dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.algebra.axes import Axis
from graphclone.graph.ir import Value
from graphclone.pipeline.printer import grown, terms
from graphclone.pipeline.state import State
from graphclone.report.page import NO_DIM, AxisLayout, Leaf


class Layouts:
    """Reads the layouts of a state.

    Args:
        state: after ``infer-dims``, or of a clone.
        numbers: the number of its group, by the axis of a dim.
        shorts: a short name, by that number.
    """

    def __init__(self, state: State, numbers: Mapping[Axis, int], shorts: Sequence[str]) -> None:
        self.state = state
        self.axes = state.facts.axes
        self.numbers = numbers
        self.shorts = shorts

    def of(self, value: Value) -> tuple[AxisLayout, ...]:
        """The layout of every axis of a value that the facts know."""
        return tuple(self._axis(axis) for axis in self.state.facts.of.get(value, ()))

    def _axis(self, axis: Axis) -> AxisLayout:
        names, sizes = terms(self.axes, axis, self._named)
        text = f"{names}={sizes}" if any(character.isalpha() for character in names) else sizes
        return AxisLayout(text, tuple(self._leaf(leaf) for leaf in self.axes.leaves(axis)))

    def _leaf(self, leaf: Axis) -> Leaf:
        return Leaf(self.numbers.get(leaf, NO_DIM), leaf.size, self.state.growth_of(leaf).new_size)

    def _named(self, leaf: Axis) -> tuple[str, str]:
        """The short name of a dim and its size."""
        number = self.numbers.get(leaf)
        return self.shorts[number] if number is not None else str(leaf.size), grown(self.state.growth_of(leaf))
