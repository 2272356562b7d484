"""Take tensors of the source to where the clone should have them: through the growth maps of their axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import torch

from graphclone.algebra.axes import Axis, Kind
from graphclone.algebra.growth import PAD, Fill, Growth, Layout
from graphclone.algebra.recipes import Widening
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Value
from graphclone.pipeline.state import State
from graphclone.runtime.kernel import widen
from graphclone.runtime.pads import Reader, as_stored
from graphclone.runtime.signed import selected


class RankError(GraphcloneError):
    """A value that has another number of axes than it was read with, as where all axes of size 1 are squeezed."""


class Maps:
    """The maps of one run, whose dynamic axes need not have the sizes of the trace."""

    def __init__(self, state: State, inputs: Sequence[torch.Tensor] = (), read: Reader = as_stored) -> None:
        """Learn the sizes of dynamic dims from the inputs of the run.

        Args:
            state: after the whole pipeline.
            inputs: of the source, one per graph input.
            read: gives the source's initializers in this run.
        """
        self.state = state
        self.read = read
        self.sizes: dict[Axis, int] = {}
        for value, tensor in zip(state.graph.inputs, inputs, strict=bool(inputs)):
            self.layouts(value, tensor.shape)

    def layouts(self, value: Value, shape: Sequence[int] | None = None) -> list[Layout]:
        """The widened layout of every axis of a value of the clone.

        Args:
            value: of the clone.
            shape: it has in the source in this run; that of the trace if not given.
        """
        axes = self.state.facts.of[value]
        sizes = [axis.size for axis in axes] if shape is None else shape
        return [self._layout(axis, size) for axis, size in zip(axes, sizes, strict=True)]

    def _layout(self, axis: Axis, size: int) -> Layout:
        axes = self.state.facts.axes
        axis = axes.find(axis)
        if size == axis.size:
            layout: Layout = self.state.layout(axis)
            return layout
        self._learn(axis, size)
        return axes.layout(axis, self._growth)

    def _learn(self, axis: Axis, size: int) -> None:
        """An axis of another size than in the trace is dynamic, or a factor of it is."""
        leaves = self.state.facts.axes.leaves(axis)
        if len(leaves) == 1:
            self.sizes[leaves[0]] = size
        elif axis.kind is Kind.PRODUCT:
            before = prod(self.sizes.get(leaf, leaf.size) for leaf in leaves)
            for leaf in leaves:
                if leaf.pin is not None and leaf not in self.sizes and leaf.size * size % before == 0:
                    self.sizes[leaf] = leaf.size * size // before
                    return

    def _growth(self, leaf: Axis) -> Growth:
        growth = self.state.growth_of(leaf)
        size = self.sizes.get(leaf, growth.size)
        return growth if size == growth.size else replace(growth, size=size)

    def widened(self, value: Value, tensor: torch.Tensor) -> torch.Tensor:
        """The source's result for a value, laid out as in the clone, without the clone's scale.

        Args:
            value: of the clone.
            tensor: of the source, in the shape that the value has there in this run.

        Returns:
            A tensor in which every axis has the new size of its layout. Pads hold what is demanded of the value; where
            they may be anything, they hold more copies.

        Raises:
            RankError: it grows, and has another number of axes in this run than it was read with.
        """
        if self._lacks_axes(value, tensor):
            if not any(self.state.layout(axis).grows for axis in self.state.facts.of[value]):
                return tensor
            rank = len(self.state.facts.of[value])
            raise RankError(f"{value.name} has {tensor.ndim} axes on these inputs, and was read with {rank}")
        layouts = self.layouts(value, tensor.shape)
        if any(layout.padded for layout in layouts):
            filled = [self._filled(value, axis) if layout.padded else layout for axis, layout in enumerate(layouts)]
            return widen(tensor, Widening(value.name, tuple(filled)), read=self.read)
        for axis, layout in enumerate(layouts):
            if layout.grows:
                tensor = selected(tensor, axis, torch.as_tensor(layout.index_map, device=tensor.device))
        return tensor

    def _lacks_axes(self, value: Value, tensor: torch.Tensor) -> bool:
        return tensor.ndim != len(self.state.facts.of[value])

    def _filled(self, value: Value, index: int, *, free: bool = False) -> Layout:
        return filled(self.state, value, index, self._growth, free=free)

    def compared(self, value: Value, tensor: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """The elements of a value of the clone, without those at pads that may hold anything.

        Args:
            value: of the clone.
            tensor: what the source computes for it.
            wide: of the shape that the value has in the clone.
        """
        if self._lacks_axes(value, tensor):
            return wide
        for axis, layout in enumerate(self.layouts(value, tensor.shape)):
            if layout.padded:
                free = self._filled(value, axis, free=True).index_map == PAD
                wide = selected(wide, axis, torch.as_tensor((~free).nonzero()[0], device=wide.device))
        return wide

    def rescaled(self, value: Value, tensor: torch.Tensor) -> torch.Tensor:
        """The source's result for a value, exactly as the clone should have it; see ``widened``."""
        wide = self.widened(value, tensor)
        scale, shift = self.state.scales.values.get(value, 1.0), self.state.scales.shifts.get(value, 0.0)
        if (scale, shift) == (1.0, 0.0):
            return wide
        return wide * scale + shift if value.is_float else wide * int(scale)  # sums of integers, of so many copies


def filled(
    state: State,
    value: Value,
    index: int,
    growth_of: Callable[[Axis], Growth] | None = None,
    *,
    free: bool = False,
) -> Layout:
    """The layout of an axis of a value, with more copies in place of pads of one sort.

    Args:
        state: of the clone.
        value: of the clone.
        index: which axis.
        growth_of: how a dim grows in this run; as in the trace if not given.
        free: whether those pads stay that may hold anything, and not those that may not.
    """

    def filled_growth(leaf: Axis) -> Growth:
        growth = (growth_of or state.growth_of)(leaf)
        fill = state.fill_of(value, index, leaf)
        return replace(growth, fill=fill) if (fill == Fill.FREE) is free else growth.unpadded()

    return state.facts.axes.layout(state.facts.of[value][index], filled_growth)


def widened_inputs(state: State, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The clone's inputs for inputs of the source: copies, replicated where they grew."""
    maps = Maps(state)
    return [maps.widened(v, tensor.clone()) for v, tensor in zip(state.graph.inputs, inputs, strict=True)]
