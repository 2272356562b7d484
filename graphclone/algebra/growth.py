"""How an axis grows: the growth map of one dim, and of an axis made of several.

A growth map ``g: [0, new) -> [0, old)`` says which source index every new index repeats (HyperCloning,
arXiv 2409.12903, section 3, where it is ``g(i) = i mod old``). An axis is a tree of dims: a ``Leaf`` grows by
its own map, a ``Product`` is a row-major combination of axes, a ``Concat`` puts segments side by side. Growth
follows the tree and never the axis as a whole: tiling both halves of a concatenation is not tiling it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Kind = Literal["tile", "interleave", "explicit"]

PAD = -1
"""The entry of an explicit growth map whose new index repeats no source index."""


@dataclass(frozen=True)
class Growth:
    """The growth map of one dim.

    Attributes:
        size: size of the source dim.
        factor: copies of every source index; 1 for an explicit map, which carries its own.
        kind: ``tile`` repeats the dim as a block (0 1 2 0 1 2), ``interleave`` repeats every index in place
            (0 0 1 1 2 2), ``explicit`` reads ``entries``.
        entries: source index per new index, or ``PAD``; only for ``explicit``.
    """

    size: int
    factor: int = 1
    kind: Kind = "tile"
    entries: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"a growth factor must be at least 1, got {self.factor}")
        if any(not PAD <= entry < self.size for entry in self.entries):
            raise ValueError(f"a growth map of a dim of {self.size} has an entry outside [0, {self.size})")

    @classmethod
    def explicit(cls, size: int, entries: Iterable[int]) -> Growth:
        """The map with the given source index (or ``PAD``) for every new index."""
        return cls(size, kind="explicit", entries=tuple(int(entry) for entry in entries))

    @property
    def new_size(self) -> int:
        return len(self.entries) if self.kind == "explicit" else self.size * self.factor

    @property
    def grows(self) -> bool:
        """Whether the map is anything but the identity."""
        return self.factor != 1 or self.kind == "explicit"

    def index_map(self) -> IntArray:
        """Source index of every new index, shape (new_size,); ``PAD`` where there is none."""
        if self.kind == "explicit":
            return np.asarray(self.entries, dtype=np.int64)
        source = np.arange(self.size, dtype=np.int64)
        return np.tile(source, self.factor) if self.kind == "tile" else np.repeat(source, self.factor)


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
        """Which copy of its source index every new index is, counted leaf by leaf, shape (new_size,)."""
        raise NotImplementedError

    @cached_property
    def multiplicity(self) -> IntArray:
        """How often every source index is repeated, shape (size,)."""
        index = self.index_map
        return np.bincount(index[index != PAD], minlength=self.size).astype(np.int64)

    @property
    def uniform(self) -> int | None:
        """The one multiplicity of all source indices, or None where they differ."""
        counts = np.unique(self.multiplicity)
        return int(counts[0]) if len(counts) == 1 and self.new_size == counts[0] * self.size else None


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
        new = np.arange(self.new_size, dtype=np.int64)
        if self.growth.kind == "tile":
            return new // max(self.size, 1)
        if self.growth.kind == "interleave":
            return new % self.growth.factor
        return _occurrence(self.index_map)

    @property
    def uniform(self) -> int | None:
        return super().uniform if self.growth.kind == "explicit" else self.growth.factor


@dataclass(frozen=True)
class Product(Layout):
    """Row-major factors, outermost first: what a reshape makes of two axes."""

    parts: tuple[Layout, ...]

    @property
    def size(self) -> int:
        return prod(part.size for part in self.parts)

    @property
    def new_size(self) -> int:
        return prod(part.new_size for part in self.parts)

    @property
    def grows(self) -> bool:
        return any(part.grows for part in self.parts)

    @cached_property
    def index_map(self) -> IntArray:
        return reduce(_outer_index, ((part.index_map, part.size) for part in self.parts))[0]

    @cached_property
    def copies(self) -> IntArray:
        copies = np.zeros(1, dtype=np.int64)
        for part in self.parts:
            counts = part.multiplicity[part.index_map]
            copies = (copies[:, None] * counts[None, :] + part.copies[None, :]).ravel()
        return copies

    @property
    def uniform(self) -> int | None:
        factors = [part.uniform for part in self.parts]
        return None if None in factors else prod(factor or 0 for factor in factors)


@dataclass(frozen=True)
class Concat(Layout):
    """Segments side by side: what a concatenation makes, and a split undoes."""

    parts: tuple[Layout, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    @property
    def new_size(self) -> int:
        return sum(part.new_size for part in self.parts)

    @property
    def grows(self) -> bool:
        return any(part.grows for part in self.parts)

    @cached_property
    def index_map(self) -> IntArray:
        starts = np.cumsum([0, *(part.size for part in self.parts)])
        maps = [np.where(p.index_map == PAD, PAD, p.index_map + s) for p, s in zip(self.parts, starts, strict=False)]
        return np.concatenate(maps)

    @cached_property
    def copies(self) -> IntArray:
        return np.concatenate([part.copies for part in self.parts])

    @property
    def uniform(self) -> int | None:
        factors = {part.uniform for part in self.parts}
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
