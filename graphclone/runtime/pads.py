"""The pads of a recipe: where its growth maps have them, and what to write there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.growth import Concat, Fill, Growth, Layout, Leaf, Product
from graphclone.algebra.recipes import Widening
from graphclone.graph.ir import Initializer
from graphclone.runtime.precision import root_mean_square

Reader = Callable[[Initializer], Tensor]
"""Gives the data of an initializer of the source, not to be written into."""


def as_stored(initializer: Initializer) -> Tensor:
    """The data as it is stored, on the CPU, where sums are made."""
    data: Tensor = initializer.read()
    return data.detach().cpu()


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

    def mean(self, recipe: Widening, read: Reader) -> tuple[Tensor, Widening]:
        """The mean of the source over the dim, and the recipe by which it is repeated over the pads.

        Args:
            recipe: of the whole.
            read: gives the initializers that weight the mean.
        """
        layouts = [layout for _, layout in self.axes]
        layouts[self.at] = Leaf(Growth(1, self.out.shape[self.at]))
        contracted = tuple(dim for dim, (axis, _) in enumerate(self.axes) if axis in recipe.contracted)
        source = self.source.double()
        for weight in self.fill.weights:
            source = source * along(read(weight).to(source), self.at, source.dim())
        mean = source.mean(self.at, keepdim=True).to(self.source.dtype)
        name = f"{recipe.name}[pads of {self.at}]"
        return mean, replace(recipe, name=name, axes=tuple(layouts), contracted=contracted)

    def number(self, recipe: Widening) -> float:
        """The number that pads of 0 or 1 hold, by the recipe of the whole."""
        return recipe.shift + (recipe.scale if self.fill == Fill.ONE else 0)


def along(vector: Tensor, at: int, rank: int) -> Tensor:
    """The elements of a tensor, in order, along one of so many dims."""
    return vector.reshape([-1 if dim == at else 1 for dim in range(rank)])


def regions(source: Tensor, recipe: Widening, out: Tensor) -> list[Region]:
    """All pads of a recipe, in the order in which they are to be written: what is free, then what is demanded."""
    axes = tuple(enumerate(recipe.axes))
    pads = [region for at in range(len(axes)) for region in _regions(out, source, axes, at)]
    return sorted(pads, key=lambda region: region.fill != Fill.FREE)


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


def has_means(recipe: Widening) -> bool:
    """Whether some pads of a recipe hold a mean, which takes all of the source."""
    source, out = (torch.empty(shape, device="meta") for shape in (recipe.source_shape, recipe.shape))
    return any(region.fill.is_mean for region in regions(source, recipe, out))


def sampled_size(rows: Callable[[int, int], Tensor], shape: Sequence[int]) -> float:
    """The root mean square of some rows of a source, which is how large random pads beside it are, but for the scale.

    Args:
        rows: gives the part of the source between two indices of its first axis.
        shape: of the source.
    """
    count, inner = shape[0], max(1, prod(shape[1:]))
    length = max(1, min(count, _SAMPLE // inner // _SAMPLE_PARTS))
    if count <= length * _SAMPLE_PARTS:
        return root_mean_square([rows(0, count)])
    starts = ((count - length) * part // (_SAMPLE_PARTS - 1) for part in range(_SAMPLE_PARTS))
    return root_mean_square([rows(start, start + length) for start in starts])


_SAMPLE, _SAMPLE_PARTS = 1 << 16, 6
"""About how many numbers of a source are looked at to learn how large they are, and in how many places."""


CHUNK = 1 << 17
"""Random numbers that are drawn at once, if a row is no longer. Part of what a seed means, so never change it."""


def numbered(recipe: Widening, number: int) -> Widening:
    """The recipe by which one of several regions is drawn, so that none has the numbers of another."""
    return replace(recipe, name=f"{recipe.name}[{number}]")


def chunk_length(out: Tensor) -> int:
    """The number of rows of a region that are drawn at once."""
    return max(1, CHUNK * out.shape[0] // max(1, out.numel()))


def random_numbers(recipe: Widening, start: int, shape: Sequence[int], size: float) -> Tensor:
    """The numbers in one chunk of free pads, in float32.

    They are independent and uniform, as those that torch's own layers begin with. A layer adds up so many that its
    outputs are as good as normal, and drawing them takes less than half as long. Each is an odd number of 16 bits,
    so that their mean is 0 and none is. They come from SFC64 (Doty-Humphrey's PractRand), which is made anew for
    each chunk, from the seed of the recipe and the place of the chunk: it is the same whatever was drawn before it.

    Args:
        recipe: whose seed and name say which numbers these are.
        start: where the chunk begins.
        shape: of the chunk.
        size: their root mean square.
    """
    count = prod(shape)
    words = np.random.SFC64([recipe.noise_seed, start]).random_raw(-(-count // 4))
    odd = words.view(np.int16)[:count] | np.int16(1)
    return torch.from_numpy(np.multiply(odd, np.float32(size / _SPREAD), dtype=np.float32)).view(*shape)


_SPREAD = math.sqrt(((1 << 30) - 1) / 3)
"""The root mean square of all odd numbers of 16 bits, signs included."""
