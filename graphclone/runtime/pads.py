"""The pads of a recipe: where its growth maps have them, and what to write there."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.growth import Concat, Fill, Growth, Layout, Leaf, Product
from graphclone.algebra.recipes import Widening
from graphclone.runtime.precision import root_mean_square


@dataclass(frozen=True)
class Region:
    """The pads of one leaf of an axis: a part of the output, and what makes it.

    Attributes:
        out: a view of the output.
        source: a view of the source of the same rank.
        axes: the layout of every dim of the two, with the axis of the recipe that it is a part of.
        at: the dim that has the pads.
        fill: what they hold.
    """

    out: Tensor
    source: Tensor
    axes: tuple[tuple[int, Layout], ...]
    at: int
    fill: Fill

    def mean(self, recipe: Widening) -> tuple[Tensor, Widening]:
        """The mean of the source over the dim, and the recipe by which it is repeated over the pads."""
        layouts = [layout for _, layout in self.axes]
        layouts[self.at] = Leaf(Growth(1, self.out.shape[self.at]))
        contracted = tuple(dim for dim, (axis, _) in enumerate(self.axes) if axis in recipe.contracted)
        mean = self.source.double().mean(self.at, keepdim=True).to(self.source.dtype)
        name = f"{recipe.name}[pads of {self.at}]"
        return mean, replace(recipe, name=name, axes=tuple(layouts), contracted=contracted)


def regions(source: Tensor, recipe: Widening, out: Tensor) -> list[Region]:
    """All pads of a recipe, in the order in which they are to be written: what is free, then what is demanded."""
    axes = tuple(enumerate(recipe.axes))
    pads = [region for at in range(len(axes)) for region in _regions(out, source, axes, at)]
    return sorted(pads, key=lambda region: region.fill is not Fill.FREE)


def _regions(out: Tensor, source: Tensor, axes: tuple[tuple[int, Layout], ...], at: int) -> Iterator[Region]:
    axis, layout = axes[at]
    if not layout.padded:
        return
    if isinstance(layout, Leaf):
        growth = layout.growth
        for pads in growth.pad_slices():
            yield Region(out[(slice(None),) * at + (pads,)], source, axes, at, growth.fill)
    elif isinstance(layout, Product):
        parts = layout.parts
        out = torch.unflatten(out, at, tuple(part.new_size for part in parts))
        source = torch.unflatten(source, at, tuple(part.size for part in parts))
        split = (*axes[:at], *((axis, part) for part in parts), *axes[at + 1 :])
        for place in range(len(parts)):
            yield from _regions(out, source, split, at + place)
    elif isinstance(layout, Concat):
        new = old = 0
        for part in layout.parts:
            segment = out.narrow(at, new, part.new_size), source.narrow(at, old, part.size)
            yield from _regions(*segment, (*axes[:at], (axis, part), *axes[at + 1 :]), at)
            new, old = new + part.new_size, old + part.size


def free_size(source: Tensor, recipe: Widening, found: Sequence[Region]) -> float:
    """The root mean square of random pads: the source's own, which takes a pass to find; 0 if none are free."""
    is_free = any(region.fill is Fill.FREE for region in found)
    return recipe.scale * root_mean_square(source) if is_free else 0.0


def random_numbers(recipe: Widening, start: int, shape: Sequence[int], size: float) -> Tensor:
    """The numbers in one chunk of free pads, in float32.

    They are independent and uniform, as those that torch's own layers begin with. A layer adds up so many that its
    outputs are as good as normal, and drawing them takes less than half as long. Each is an odd number of 16 bits, so
    that their mean is 0 and none is. They come from Philox (Salmon et al. 2011), which counts: a chunk is the same
    whatever was drawn before it, and no two have a number of the sequence in common.

    Args:
        recipe: whose seed and name say which numbers these are.
        start: where the chunk begins.
        shape: of the chunk.
        size: their root mean square.
    """
    count = prod(shape)
    words = _counters.at(recipe.noise_seed, start).random_raw(-(-count // 4))
    odd = torch.from_numpy(words.view(np.int16)[:count] | np.int16(1))
    return odd.to(torch.float32).mul_(size / _SPREAD).view(*shape)


class _Counters(threading.local):
    """The generator of each thread: to make one takes as long as to draw ten thousand numbers, to set one does not."""

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)
        self._state = self._philox.state

    def at(self, key: int, place: int) -> np.random.Philox:
        """What ``numpy.random.Philox(key=key, counter=place << 64)`` is."""
        words = {"counter": np.array([0, place, 0, 0], np.uint64), "key": np.array([key, 0], np.uint64)}
        state: Any = {**self._state, "state": words}
        self._philox.state = state
        return self._philox


_counters = _Counters()

_SPREAD = math.sqrt(((1 << 30) - 1) / 3)
"""The root mean square of all odd numbers of 16 bits, signs included."""
