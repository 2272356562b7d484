"""The layouts of tensors, as text and as leaves that know their dims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphclone.algebra.axes import Axis, Kind
from graphclone.algebra.growth import Growth
from graphclone.graph.ir import Value
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
        names, sizes = self._terms(axis)
        text = f"{names}={sizes}" if any(character.isalpha() for character in names) else sizes
        return AxisLayout(text, tuple(self._leaf(leaf) for leaf in self.axes.leaves(axis)))

    def _leaf(self, leaf: Axis) -> Leaf:
        return Leaf(self.numbers.get(leaf, NO_DIM), leaf.size, self.state.growth_of(leaf).new_size)

    def _terms(self, axis: Axis, *, inside: bool = False) -> tuple[str, str]:
        """The names and the sizes of an axis; a concat inside a product stands in parentheses."""
        axis = self.axes.find(axis)
        if axis.kind is Kind.DIM:
            number = self.numbers.get(axis)
            size = grown(self.state.growth_of(axis))
            return (self.shorts[number] if number is not None else str(axis.size)), size
        is_product = axis.kind is Kind.PRODUCT
        parts = self.axes.factors(axis) if is_product else self.axes.segments(axis)
        terms = [self._terms(part, inside=is_product) for part in parts]
        sign, form = ("*" if is_product else "+"), ("({})" if inside and not is_product else "{}")
        return form.format(sign.join(name for name, _ in terms)), form.format(sign.join(size for _, size in terms))


def grown(growth: Growth) -> str:
    """The size of a dim and how it grows: ``12``, ``12x2`` for whole copies, ``12>16`` else."""
    if not growth.grows:
        return str(growth.size)
    return f"{growth.size}x{growth.factor}" if growth.whole else f"{growth.size}>{growth.new_size}"
