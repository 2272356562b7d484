"""Any part of a widened initializer, made without the rest, and bit for bit what the whole has there.

A block is what one process holds of a tensor that many share: some new indices of every axis. Where growth maps are
slices, each is a product of slices again; only what a block repeats is read. Noise is drawn chunk by chunk, and a chunk
is the same whoever draws it, so those that the block has a part of are made whole, one at a time. The level of the
noise alone depends on all of it, which the processes that share a tensor find out together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import product
from math import prod
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.growth import PAD, Fill, IntArray, Layout
from graphclone.algebra.recipes import Widening, by_multiplicity
from graphclone.graph.ir import Initializer, Stored
from graphclone.runtime import kernel
from graphclone.runtime.pads import (
    Region,
    as_stored,
    chunk_length,
    has_means,
    numbered,
    random_numbers,
    regions,
    sampled_size,
)
from graphclone.runtime.precision import power
from graphclone.runtime.signed import selected
from graphclone.runtime.writes import add, write

BLOCK = 16 << 20
"""Bytes of a block of widened rows."""

Wanted: TypeAlias = Sequence[IntArray]
"""The new indices of every axis that a block has, ascending."""

Map = Callable[[Callable[[int], float], int], Sequence[float]]
"""Gives the values of a function of 0, 1, .. below a number; processes may share them out."""


def alone(function: Callable[[int], float], count: int) -> Sequence[float]:
    """All values, computed here."""
    return [function(i) for i in range(count)]


@runtime_checkable
class Rows(Stored, Protocol):
    """Data that can be read in parts."""

    def rows(self, first: int, end: int) -> Stored:
        """The part between two indices of its first axis."""
        ...


class Source:
    """An initializer of the source, read in parts where that can be.

    Attributes:
        stored: where the data is.
        nbytes: how many bytes of it have been read so far.
    """

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.nbytes = 0
        self._in_parts = stored if isinstance(stored, Rows) else None
        self._whole: Tensor | None = None

    def whole(self) -> Tensor:
        """The tensor, which is kept."""
        if self._whole is None:
            self._whole = self._read(self.stored)
        return self._whole

    def rows(self, first: int, end: int) -> Tensor:
        """A part of its first axis, which is not kept."""
        if self._whole is None and self._in_parts is not None:
            return self._read(self._in_parts.rows(first, end))
        return self.whole()[first:end]

    @cached_property
    def size(self) -> float:
        """The size of its numbers; see ``pads.sampled_size``."""
        return sampled_size(lambda first, end: self.rows(first, end).cpu(), self.stored.shape)

    def _read(self, stored: Stored) -> Tensor:
        tensor: Tensor = stored.read().detach()
        self.nbytes += tensor.nbytes
        return tensor


@torch.no_grad()
def widen_block(source: Source, recipe: Widening, wanted: Wanted, out: Tensor, together: Map = alone) -> None:
    """Write a block of a widened initializer; see ``kernel.widen`` for what the whole is.

    Args:
        source: shape ``recipe.source_shape``.
        recipe: how it grows.
        wanted: the new indices of every axis that the block has, ascending.
        out: shape ``[len(indices) for indices in wanted]``, of the source's dtype.
        together: evaluates a function of whole numbers. It is called equally often by all that give equal recipes.

    Raises:
        ValueError: when a shape does not fit, or a user's strategy gives an unfit matrix.
    """
    if tuple(out.shape) != tuple(len(indices) for indices in wanted) or len(wanted) != len(recipe.axes):
        raise ValueError(f"{recipe.name}: a block of {[len(w) for w in wanted]} does not fit {tuple(out.shape)}")
    if not wanted:
        out.copy_(kernel.widen(source.whole(), recipe))
        return
    if out.is_complex():
        parts = Source(InMemory(torch.view_as_real(source.whole())))
        widen_block(parts, kernel.in_parts(recipe), [*wanted, np.arange(2)], torch.view_as_real(out), together)
        return
    axis = kernel.first_irregular(recipe)
    if axis is not None:
        _fill_sorted(source, recipe, wanted, out, axis, together)
    elif recipe.noisy:
        _fill_noisy(source, recipe, wanted, out, together)
    else:
        _fill(source, recipe, wanted, out)
    if any(layout.padded for layout in recipe.axes):
        _fill_pads(source, recipe, wanted, out, together)


def _fill_sorted(source: Source, recipe: Widening, wanted: Wanted, out: Tensor, axis: int, together: Map) -> None:
    """As the kernel does it: in the order in which the axis is a row of tiles."""
    kept, order, sorted_recipe = by_multiplicity(recipe, axis)
    places = np.argsort(order)[wanted[axis]]
    ascending = np.argsort(places)
    whole = source.whole()
    kept_source = Source(InMemory(selected(whole, axis, torch.from_numpy(kept).to(whole.device))))
    there = [places[ascending] if a == axis else indices for a, indices in enumerate(wanted)]
    part = torch.empty_like(out)
    widen_block(kept_source, sorted_recipe, there, part, together)
    out.index_copy_(axis, torch.from_numpy(ascending).to(out.device), part)


@dataclass(frozen=True)
class InMemory:
    """A tensor as an initializer has it."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def read(self) -> Tensor:
        return self.tensor


def stored(initializer: Initializer) -> Stored:
    """The data of an initializer, be it in a file or in memory."""
    tensor = initializer.tensor
    return tensor if isinstance(tensor, Stored) else InMemory(tensor)


# --- Without noise ---


def _fill(source: Source, recipe: Widening, wanted: Wanted, out: Tensor) -> None:
    """Some rows at a time, so that few of the source's are in memory at once."""
    if not out.numel():
        return
    step = max(1, BLOCK * len(wanted[0]) // out.nbytes)
    columns = [
        _all_pieces(layout) if len(indices) == layout.new_size else _pieces(layout, indices)
        for layout, indices in zip(recipe.axes[1:], wanted[1:], strict=True)
    ]
    factor = _factors(recipe)
    for start in range(0, len(wanted[0]), step):
        part = out[start : start + step]
        for rows in _pieces(recipe.axes[0], wanted[0][start : start + step]):
            data, rows = _read(source, rows)
            data = data.to(out.device)
            if recipe.shift:  # rounded once, at full precision, before it is spread
                data = (data.double() * recipe.scale + recipe.shift).to(data.dtype)
            for pieces in product([rows], *columns):
                _apply(write, part, data, pieces, 1.0 if recipe.shift else factor(pieces))


@dataclass(frozen=True)
class _Piece:
    """Places in a block that are the same copy of source indices, repeated as often.

    Attributes:
        new: places in the block.
        old: source indices.
        copy: which copy they are.
        count: of how many.
    """

    new: slice | IntArray
    old: slice | IntArray
    copy: int
    count: int


def _pieces(layout: Layout, wanted: IntArray) -> list[_Piece]:
    """What a block has of one axis, by slices where these are few."""
    index = layout.index_map[wanted]
    real = np.flatnonzero(index != PAD)
    old = index[real]
    copies, counts = layout.copies[wanted][real], layout.multiplicity[old]
    kinds = copies * (layout.new_size + 1) + counts
    pieces = []
    for kind in np.unique(kinds):
        at = np.flatnonzero(kinds == kind)
        copy, count = copies[at[0]], counts[at[0]]
        runs = list(_runs(real[at], old[at]))
        if len(runs) > kernel.MAX_SLICES:
            pieces.append(_Piece(real[at], old[at], int(copy), int(count)))
        else:
            pieces += [_Piece(_slice(new), _slice(olds), int(copy), int(count)) for new, olds in runs]
    return pieces


@lru_cache(maxsize=64)
def _all_pieces(layout: Layout) -> list[_Piece]:
    """The pieces of a whole axis, which all blocks of rows of a tensor ask for, and many tensors have."""
    return _pieces(layout, np.arange(layout.new_size))


def _runs(new: IntArray, old: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """Cut places and indices where either does not go on by its commonest step."""
    ahead = np.diff(old)
    steps = np.diff(new) * (1 + ahead.max(initial=0)) + ahead  # one number for both, where both go ahead
    found, counts = np.unique(steps[ahead > 0], return_counts=True)
    usual = found[counts.argmax()] if len(found) else -1
    cuts = np.flatnonzero((steps != usual) | (ahead < 1)) + 1
    yield from zip(np.split(new, cuts), np.split(old, cuts), strict=True)


def _slice(indices: IntArray) -> slice:
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    return slice(int(indices[0]), int(indices[-1]) + 1, step)


def _read(source: Source, rows: _Piece) -> tuple[Tensor, _Piece]:
    """What a piece repeats of the source's first axis, and the piece as it is within that."""
    if isinstance(rows.old, slice):
        first, end = rows.old.start, rows.old.stop
        return source.rows(first, end), _Piece(rows.new, slice(0, None, rows.old.step), rows.copy, rows.count)
    first, end = int(rows.old.min()), int(rows.old.max()) + 1
    return source.rows(first, end), _Piece(rows.new, rows.old - first, rows.copy, rows.count)


def _factors(recipe: Widening) -> Callable[[Sequence[_Piece]], float]:
    """What the source is multiplied by where pieces of all axes meet."""
    matrix = cache(recipe.strategy.matrix)
    rows = kernel.max_copies(recipe)

    def factor(pieces: Sequence[_Piece]) -> float:
        columns = prod(pieces[axis].count for axis in recipe.contracted)
        if recipe.strategy.uniform or not recipe.contracted:
            return recipe.scale / columns
        row = column = 0
        for axis, piece in enumerate(pieces):
            if axis in recipe.contracted:
                column = column * piece.count + piece.copy
            else:
                row = row * piece.count + piece.copy
        return recipe.scale * float(matrix(rows, columns)[row, column])

    return factor


def _apply(
    write: Callable[[Tensor, Tensor, float], None], out: Tensor, source: Tensor, pieces: Sequence[_Piece], factor: float
) -> None:
    """Write, or add, a multiple of the source where pieces of all axes meet."""
    for axis, piece in enumerate(pieces):
        if isinstance(piece.old, slice):
            source = source[(slice(None),) * axis + (piece.old,)]
        else:
            source = selected(source, axis, torch.from_numpy(piece.old).to(source.device))
    if all(isinstance(piece.new, slice) for piece in pieces):
        write(out[tuple(piece.new for piece in pieces)], source, factor)
        return
    at = tuple(indices.to(out.device) for indices in _crossed([piece.new for piece in pieces], out.shape))
    part = out[at]
    write(part, source, factor)
    out[at] = part


def _indices(part: slice | IntArray, size: int) -> IntArray:
    return np.arange(size)[part] if isinstance(part, slice) else part


# --- Noise ---


def _fill_noisy(source: Source, recipe: Widening, wanted: Wanted, out: Tensor, together: Map) -> None:
    data = source.whole().cpu()
    if len(recipe.contracted) == len(recipe.axes):
        recipe, data, out, wanted = kernel.one_row(recipe), data[None], out[None], [np.zeros(1, np.int64), *wanted]
    along = kernel.chunked_axis(recipe)
    like = torch.empty(recipe.shape, dtype=out.dtype, device="meta")
    starts = [start for start, _ in kernel.chunks(like, along)]
    energies = together(lambda i: power(kernel.chunk_of_noise(recipe, like, along, starts[i])), len(starts))
    level = kernel.gain(sum(energies), data, recipe, like)
    factor = _factors(recipe)
    covered = [np.arange(size) for size in recipe.shape]
    pieces = [_pieces(layout, indices) for layout, indices in zip(recipe.axes, covered, strict=True)]
    for start, part in kernel.chunks(like, along):
        covered[along] = np.arange(start, start + part.shape[along])
        if not _meet(covered[along], wanted[along]):
            continue
        pieces[along] = _pieces(recipe.axes[along], covered[along])
        chunk = kernel.chunk_of_noise(recipe, like, along, start).to(out.dtype).mul_(level)
        for corner in product(*pieces):
            _apply(add, chunk, data, corner, factor(corner))
        if out.dtype.itemsize < 4:
            kernel.restore_sums(data, recipe, chunk, along, start)
        _place(out, wanted, chunk, covered)


def _meet(covered: IntArray, wanted: IntArray) -> bool:
    """Whether two ascending lists have an index in common."""
    return _common(covered, wanted) is not None


def _place(out: Tensor, wanted: Wanted, part: Tensor, covered: Sequence[IntArray]) -> None:
    """Copy what a part of the whole, which covers these indices, has of a block."""
    here, there = [], []
    for indices, having in zip(wanted, covered, strict=True):
        common = _common(indices, having)
        if common is None:
            return
        here.append(common[0])
        there.append(common[1])
    if all(isinstance(places, slice) for places in (*here, *there)):
        out[tuple(here)] = part[tuple(there)].to(out.device, out.dtype)
    else:
        taken = part[_crossed(there, part.shape)]
        out[tuple(at.to(out.device) for at in _crossed(here, out.shape))] = taken.to(out.device, out.dtype)


def _common(one: IntArray, other: IntArray) -> tuple[slice | IntArray, slice | IntArray] | None:
    """Where each of two ascending lists has what both have, by slices where both are without gaps; None for nothing."""
    if not len(one) or not len(other):
        return None
    if one[-1] - one[0] == len(one) - 1 and other[-1] - other[0] == len(other) - 1:
        first, end = max(one[0], other[0]), min(one[-1], other[-1]) + 1
        return (slice(first - one[0], end - one[0]), slice(first - other[0], end - other[0])) if first < end else None
    places = np.searchsorted(other, one).clip(0, len(other) - 1)
    hits = np.flatnonzero(other[places] == one)
    return (hits, places[hits]) if len(hits) else None


def _crossed(parts: Sequence[slice | IntArray], shape: Sequence[int]) -> tuple[Tensor, ...]:
    """The indices of all axes, each broadcast over the others."""
    indices = (_indices(part, size) for part, size in zip(parts, shape, strict=True))
    return tuple(map(torch.from_numpy, np.ix_(*indices)))


# --- Pads ---


def _fill_pads(source: Source, recipe: Widening, wanted: Wanted, out: Tensor, together: Map) -> None:
    """Write pads region by region as the kernel does."""
    is_read = has_means(recipe)
    data = source.whole().cpu() if is_read else torch.empty(recipe.source_shape, device="meta")
    for number, (region, covered) in enumerate(_covered(data, recipe)):
        if region.fill == Fill.FREE:
            _randomise(region, numbered(recipe, number), recipe.scale * source.size, wanted, out, covered)
        elif region.fill.is_mean:
            _repeat_mean(region, recipe, wanted, out, covered, together)
        else:
            held = out.new_full((), region.number(recipe))
            _place(out, wanted, held.expand([*map(len, covered)]), covered)


def _covered(data: Tensor, recipe: Widening) -> Iterator[tuple[Region, list[IntArray]]]:
    """All regions, each with the new indices of every axis of the recipe that it covers."""
    full = [np.arange(size) for size in recipe.shape]
    by_axis = []
    for axis, indices in enumerate(full):
        sizes = [len(indices) if a == axis else 1 for a in range(len(full))]
        by_axis.append(regions(data, recipe, torch.from_numpy(indices).view(sizes).expand(recipe.shape)))
    for same in zip(*by_axis, strict=True):
        axis = same[0].axes[same[0].at][0]
        own = tuple(slice(None) if of == axis else 0 for of, _ in same[0].axes)
        pads = same[axis].out[own].reshape(-1).numpy() if same[0].out.numel() else np.empty(0, np.int64)
        yield same[0], [pads if a == axis else indices for a, indices in enumerate(full)]


def _randomise(
    region: Region, recipe: Widening, size: float, wanted: Wanted, out: Tensor, covered: Sequence[IntArray]
) -> None:
    rows, length = region.out.shape[0], chunk_length(region.out)
    inner = len(covered[0]) // max(1, rows)
    first, end = np.searchsorted(covered[0], (wanted[0][0], wanted[0][-1] + 1)) if out.numel() else (0, 0)
    for start in range(first // inner // length * length, -(-end // inner), length):
        chunk = slice(start, min(start + length, rows))
        having = [covered[0][chunk.start * inner : chunk.stop * inner], *covered[1:]]
        if _meet(having[0], wanted[0]):
            numbers = random_numbers(recipe, start, [chunk.stop - start, *region.out.shape[1:]], size)
            _place(out, wanted, numbers.reshape([*map(len, having)]), having)


def _repeat_mean(
    region: Region, recipe: Widening, wanted: Wanted, out: Tensor, covered: Sequence[IntArray], together: Map
) -> None:
    """The block of the region that encloses what is wanted of it, and of that what is."""
    mean, repeated = region.mean(recipe, as_stored)
    inside: list[IntArray] = []
    having: list[IntArray] = []
    for axis, (indices, all_of) in enumerate(zip(wanted, covered, strict=True)):
        shape = [size for size, (of, _) in zip(region.out.shape, region.axes, strict=True) if of == axis]
        hits = np.flatnonzero(np.isin(all_of, indices))
        parts = [np.unique(part) for part in np.unravel_index(hits, shape)]
        inside += parts
        having.append(all_of[np.ravel_multi_index(np.meshgrid(*parts, indexing="ij"), shape).reshape(-1)])
    part = torch.empty([*map(len, inside)], dtype=out.dtype)
    widen_block(Source(InMemory(mean)), repeated, inside, part, together)
    _place(out, wanted, part.reshape([*map(len, having)]), having)
