"""Growth maps: of one dim, and of an axis made of several dims.

A growth map ``g: [0, new) -> [0, old)`` says which source index every new index repeats (HyperCloning,
arXiv 2409.12903, section 3, where it is ``g(i) = i mod old``). An axis is a tree of dims: a ``Leaf`` grows by
its own map, a ``Product`` is a row-major combination of axes, a ``Concat`` puts segments side by side. Growth
follows the tree and never the axis as a whole: tiling both halves of a concatenation is not tiling it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Kind = Literal["tile", "interleave", "explicit"]

PAD = -1
"""The entry of an explicit growth map whose new index repeats no source index."""


@dataclass(frozen=True)
class Fill:
    """The content of a tensor at the pads of an axis's growth map.

    Attributes:
        text: in words.
        weights: the initializers, each a vector over the dim, by which elements are multiplied before their mean is
            taken; empty but for a mean.
    """

    text: str
    weights: tuple[Any, ...] = ()

    ZERO: ClassVar[Fill]
    ONE: ClassVar[Fill]
    MEAN: ClassVar[Fill]
    FREE: ClassVar[Fill]

    def weighted(self, *weights: Any) -> Fill:
        """The mean that is also weighted by these initializers."""
        return replace(self, weights=(*self.weights, *weights))

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean, be it weighted or not."""
        return self.text == Fill.MEAN.text


Fill.ZERO, Fill.ONE, Fill.MEAN, Fill.FREE = map(Fill, ("0", "1", "the mean over the dim", "anything"))


@dataclass(frozen=True)
class Growth:
    """The growth map of one dim.

    Attributes:
        size: size of the source dim.
        factor: copies of every source index; 1 for an explicit map, which carries its own.
        kind: ``tile`` repeats the dim as a block (0 1 2 0 1 2), ``interleave`` repeats every index in place
            (0 0 1 1 2 2), ``explicit`` reads ``entries``.
        entries: source index per new index, or ``PAD``; only for ``explicit``.
        extra: how many source indices, the first ones, have one copy more (0 1 2 0 1 2 0).
        pads: how many new indices at the end repeat none.
        fill: what an initializer holds at its pads.

    Examples:
        >>> Growth(3, 2).index_map()
        array([0, 1, 2, 0, 1, 2])
        >>> Growth.between(3, 5).index_map()
        array([0, 1, 2, 0, 1])
        >>> Growth.between(3, 5, padded=True).index_map()
        array([ 0,  1,  2, -1, -1])

    Raises:
        ValueError: the factor is below 1, or there is an entry that is no source index.
    """

    size: int
    factor: int = 1
    kind: Kind = "tile"
    entries: tuple[int, ...] = ()
    extra: int = 0
    pads: int = 0
    fill: Fill = Fill.ZERO

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"a growth factor must be at least 1, got {self.factor}")
        if any(not PAD <= entry < self.size for entry in self.entries):
            raise ValueError(f"a growth map of a dim of {self.size} has an entry outside [0, {self.size})")
        if not 0 <= self.extra < max(self.size, 1) or self.pads < 0:
            raise ValueError(f"a dim of {self.size} cannot have {self.extra} more copies and {self.pads} pads")

    @classmethod
    def explicit(cls, size: int, entries: Iterable[int]) -> Growth:
        """The map with the given source index (or ``PAD``) for every new index."""
        return cls(size, kind="explicit", entries=tuple(int(entry) for entry in entries))

    @classmethod
    def between(cls, size: int, new_size: int, kind: Kind = "tile", *, padded: bool = False) -> Growth:
        """The map from a size to a size that is at least as large: whole copies, and the places that are left over.

        Args:
            size: of the source dim.
            new_size: of the new dim.
            kind: ``tile`` or ``interleave``.
            padded: whether the places that are left over repeat nothing. If not, they repeat the first source indices.

        Raises:
            ValueError: the new size is smaller.
        """
        factor, rest = divmod(new_size, size) if size else (1, new_size)
        return cls(size, factor, kind, pads=rest) if padded else cls(size, factor, kind, extra=rest)

    @property
    def new_size(self) -> int:
        return len(self.entries) if self.kind == "explicit" else self.size * self.factor + self.extra + self.pads

    @property
    def grows(self) -> bool:
        """Whether the map is anything but the identity."""
        return self.factor != 1 or self.kind == "explicit" or bool(self.extra or self.pads)

    @property
    def whole(self) -> bool:
        """Whether every source index is repeated ``factor`` times, and nothing else is there."""
        return self.kind != "explicit" and not (self.extra or self.pads)

    @property
    def padded(self) -> bool:
        """Whether some new index repeats no source index."""
        return self.pads > 0 or PAD in self.entries

    def unpadded(self) -> Growth:
        """The map with more copies in place of its pads; all other entries stay where they are."""
        if not self.padded:
            return self
        if self.kind == "tile":
            return self.between(self.size, self.new_size)
        index = self.index_map()
        return self.explicit(self.size, np.where(index == PAD, np.arange(len(index)) % self.size, index))

    def pad_slices(self) -> list[slice]:
        """The runs of pads among the new indices."""
        if self.kind != "explicit":
            return [slice(self.new_size - self.pads, self.new_size)] if self.pads else []
        places = np.flatnonzero(self.index_map() == PAD)
        if len(places) > 1 and len(steps := np.unique(np.diff(places))) == 1:
            return [slice(int(places[0]), int(places[-1]) + 1, int(steps[0]))]
        runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
        return [slice(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]

    def index_map(self) -> IntArray:
        """Source index of every new index, shape (new_size,); ``PAD`` where there is none."""
        if self.kind == "explicit":
            return np.asarray(self.entries, dtype=np.int64)
        source = np.arange(self.size, dtype=np.int64)
        if self.kind == "tile":
            held = np.arange(self.new_size - self.pads, dtype=np.int64) % max(self.size, 1)
        else:
            held = np.repeat(source, self.factor + (source < self.extra))
        return np.concatenate([held, np.full(self.pads, PAD, dtype=np.int64)])


class Layout:
    """The widened form of an axis, a tree of leaves: what the kernel, the checks and the reports read."""

    @property
    def size(self) -> int:
        raise NotImplementedError

    @property
    def new_size(self) -> int:
        raise NotImplementedError

    @property
    def grows(self) -> bool:
        raise NotImplementedError

    @cached_property
    def index_map(self) -> IntArray:
        """Source index of every new index, shape (new_size,)."""
        raise NotImplementedError

    @cached_property
    def copies(self) -> IntArray:
        """The number of the copy that each new index is of its source index, leaf by leaf, shape (new_size,)."""
        raise NotImplementedError

    @cached_property
    def multiplicity(self) -> IntArray:
        """The number of copies of each source index, shape (size,)."""
        index = self.index_map
        return np.bincount(index[index != PAD], minlength=self.size).astype(np.int64)

    @property
    def even(self) -> int | None:
        """The one multiplicity of all source indices, pads apart, or None where they differ."""
        counts = np.unique(self.multiplicity)
        return int(counts[0]) if len(counts) == 1 else None

    @property
    def uniform(self) -> int | None:
        """The one multiplicity of all source indices, or None where they differ or there are pads."""
        copies = self.even
        return copies if copies is not None and self.new_size == copies * self.size else None

    @property
    def padded(self) -> bool:
        """Whether some new index repeats no source index."""
        return bool((self.index_map == PAD).any())


@dataclass(frozen=True)
class Leaf(Layout):
    """An indivisible dim and its growth."""

    growth: Growth

    @property
    def size(self) -> int:
        return self.growth.size

    @property
    def new_size(self) -> int:
        return self.growth.new_size

    @property
    def grows(self) -> bool:
        return self.growth.grows

    @cached_property
    def index_map(self) -> IntArray:
        return self.growth.index_map()

    @cached_property
    def copies(self) -> IntArray:
        if not self.growth.whole:
            return _occurrence(self.index_map)
        new = np.arange(self.new_size, dtype=np.int64)
        return new // max(self.size, 1) if self.growth.kind == "tile" else new % self.growth.factor

    @property
    def even(self) -> int | None:
        return super().even if self.growth.kind == "explicit" or self.growth.extra else self.growth.factor

    @property
    def padded(self) -> bool:
        return self.growth.padded


@dataclass(frozen=True)
class _Parts(Layout):
    """Several layouts that make one."""

    parts: tuple[Layout, ...]

    @property
    def grows(self) -> bool:
        return any(part.grows for part in self.parts)

    @property
    def padded(self) -> bool:
        return any(part.padded for part in self.parts)


@dataclass(frozen=True)
class Product(_Parts):
    """Row-major factors, outermost first: what a reshape makes of two axes."""

    @property
    def size(self) -> int:
        return prod(part.size for part in self.parts)

    @property
    def new_size(self) -> int:
        return prod(part.new_size for part in self.parts)

    @cached_property
    def index_map(self) -> IntArray:
        return reduce(_outer_index, ((part.index_map, part.size) for part in self.parts))[0]

    @cached_property
    def copies(self) -> IntArray:
        copies = np.zeros(1, dtype=np.int64)
        for part in self.parts:
            counts = part.multiplicity[part.index_map]  # at pads, whose number says nothing, that of the last index
            copies = (copies[:, None] * counts[None, :] + part.copies[None, :]).ravel()
        return copies

    @property
    def even(self) -> int | None:
        factors = [part.even for part in self.parts]
        return None if None in factors else prod(factor or 0 for factor in factors)


@dataclass(frozen=True)
class Concat(_Parts):
    """Segments side by side: what a concatenation makes, and a split undoes."""

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def new_size(self) -> int:
        return sum(part.new_size for part in self.parts)

    @cached_property
    def index_map(self) -> IntArray:
        starts = np.cumsum([0, *(part.size for part in self.parts)])
        maps = [np.where(p.index_map == PAD, PAD, p.index_map + s) for p, s in zip(self.parts, starts, strict=False)]
        return np.concatenate(maps)

    @cached_property
    def copies(self) -> IntArray:
        return np.concatenate([part.copies for part in self.parts])

    @property
    def even(self) -> int | None:
        factors = {part.even for part in self.parts}
        return factors.pop() if len(factors) == 1 else None


def rigid(size: int) -> Leaf:
    """The layout of an axis that does not grow."""
    return Leaf(Growth(size))


def _outer_index(left: tuple[IntArray, int], right: tuple[IntArray, int]) -> tuple[IntArray, int]:
    """Row-major combination of two index maps, each with the size of its source axis."""
    (a, a_size), (b, b_size) = left, right
    index = a[:, None] * b_size + b[None, :]
    pads = (a[:, None] == PAD) | (b[None, :] == PAD)
    return np.where(pads, PAD, index).ravel(), a_size * b_size


def _occurrence(values: IntArray) -> IntArray:
    """For each position, how many earlier positions hold the same value."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1]
    lengths = np.diff(np.r_[starts, len(values)])
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return rank
