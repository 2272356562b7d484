"""The lazy recipe of one widened parameter or buffer: everything ``kernel.widen`` needs but the numbers.

Recipes are cheap, so a whole model is planned before the first weight is read, and weights are then widened
one at a time, in any order, as they are written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from graphclone.algebra.growth import PAD, Concat, Growth, IntArray, Layout, Leaf
from graphclone.algebra.strategies import SYMMETRIC, Strategy


@dataclass(frozen=True)
class Widening:
    """``W' = scale * widened(W) + shift`` for one initializer (HyperCloning, arXiv 2409.12903, section 3).

    Attributes:
        name: the initializer's name; it seeds the noise, and error messages say it.
        axes: the layout of every source axis.
        contracted: source axes the parameter is contracted over, ascending; empty when it is added,
            multiplied or looked up, that is, plainly replicated: ``W'[i, ..] = W[g(i), ..]``.
        strategy: how the copies share a contracted weight; without effect on a replicated one.
        seed: the seed of the noise of the whole model.
        scale: factor of the result.
        shift: summand of the result, for an initializer that the model reads as, say, ``1 + w``.

    Raises:
        ValueError: when a contracted axis does not exist, repeats or drops a source index, or is shifted.
    """

    name: str
    axes: tuple[Layout, ...]
    contracted: tuple[int, ...] = ()
    strategy: Strategy = SYMMETRIC
    seed: int = 0
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        rank = len(self.axes)
        if tuple(sorted(set(self.contracted) & set(range(rank)))) != self.contracted:
            rule = f"contracted axes must ascend within [0, {rank})"
            raise ValueError(f"{self.name}: {rule}, got {self.contracted}")
        if self.contracted and self.shift:
            raise ValueError(f"{self.name}: a contracted initializer cannot be shifted")
        for axis in self.contracted:
            self._check_covered(axis)

    def _check_covered(self, axis: int) -> None:
        layout = self.axes[axis]
        if layout.grows and not layout.multiplicity.all():
            index = int((layout.multiplicity == 0).argmax())
            raise ValueError(f"{self.name}: axis {axis} is contracted, but its growth map drops source index {index}")

    @property
    def source_shape(self) -> tuple[int, ...]:
        """The shape of the initializer before it is widened."""
        return tuple(layout.size for layout in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the widened initializer."""
        return tuple(layout.new_size for layout in self.axes)

    @property
    def identity(self) -> bool:
        """Whether the source is the result, number by number."""
        return self.scale == 1.0 and self.shift == 0.0 and not any(layout.grows for layout in self.axes)

    @property
    def noisy(self) -> bool:
        """Whether noise is added: by the strategy, where something is contracted."""
        return bool(self.contracted) and self.strategy.noisy

    @property
    def noise_seed(self) -> int:
        """The seed of this initializer's own noise, whatever is widened before it."""
        return noise_seed(self.seed, self.name)


def noise_seed(seed: int, name: str) -> int:
    """The seed of the noise of one initializer, 63 bits, by that of the whole model and its name."""
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def by_multiplicity(recipe: Widening, axis: int) -> tuple[IntArray, IntArray, Widening]:
    """A recipe whose axis is a row of tiles, in the order of their multiplicity, in place of one with any map.

    Returns:
        The source indices of the axis in the order in which that recipe has them; the place that each index of its
        result belongs to; and the recipe itself.
    """
    layout = recipe.axes[axis]
    counts = layout.multiplicity
    kept = np.argsort(counts, kind="stable")[np.count_nonzero(counts == 0) :]
    is_pad = layout.index_map == PAD
    count_of = np.where(is_pad, len(is_pad) + 1, counts[layout.index_map])
    order = np.lexsort((layout.index_map, layout.copies, count_of))
    tiles = [Leaf(Growth(int(np.count_nonzero(counts == n)), int(n))) for n in np.unique(counts) if n]
    pads = Leaf(Growth.explicit(0, [PAD] * int(is_pad.sum())))
    axes = (*recipe.axes[:axis], Concat((*tiles, pads)), *recipe.axes[axis + 1 :])
    return kept, order, replace(recipe, axes=axes)
