"""Writes one widened initializer: the only place where weights are touched.

The layout of every axis splits the output into blocks in which the copies have dims of their own. Two tiled
axes, for instance, make one block, and a single broadcast multiply fills it without a temporary:

    out  (n_o, o, n_i, i)   =   source (1, o, 1, i)  *  1 / n_i

Noise is laid into the output first, a few rows at a time, so no tensor of its size is ever held beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import pairwise
from math import prod

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.growth import PAD, Concat, Fill, Growth, IntArray, Layout, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening, by_multiplicity
from graphclone.runtime.memory import empty
from graphclone.runtime.noise import normal
from graphclone.runtime.pads import Reader, as_stored, chunk_length, numbered, random_numbers, regions, sampled_size
from graphclone.runtime.precision import power, units
from graphclone.runtime.signed import selected
from graphclone.runtime.writes import add, write

CHUNK = 1 << 15
"""Elements of noise held at once, if a row is no longer: as many as torch handles in one thread. Many small ops that
each wait for all threads took ten times as long on a busy machine. Part of what a seed means, so never change it."""

MAX_SLICES = 32
"""An explicit map of at most this many arithmetic runs is written by slices, any other by index."""


@torch.no_grad()
def widen(source: Tensor, recipe: Widening, out: Tensor | None = None, read: Reader = as_stored) -> Tensor:
    """The widened initializer, in the source's dtype (HyperCloning, arXiv 2409.12903, section 3).

    With g the growth maps, o over the replicated axes and k over the contracted ones, it is

        W'[o', k'] = scale * (A[copy of o', copy of k'] * W[g(o'), g(k')] + N[o', k'])

    where A sums to 1 over the copies of each k, and N to 0. Without contracted axes, where nothing has to be
    shared, it is ``scale * W[g(o')] + shift``. Pads are 0, 1 or a mean over their dim, before scale and shift; where
    they may be anything they are as random as the source is large.

    Args:
        source: shape ``recipe.source_shape``; floating point or complex, or anything if it is replicated as it is.
        recipe: how it grows.
        out: written in place if given, shape ``recipe.shape``, of any strides, not overlapping the source.
        read: gives the initializers that weight the means in pads.

    Raises:
        ValueError: when a shape or a dtype does not fit, or a user's strategy gives an unfit matrix.
        TypeError: when a source that is not floating point would be multiplied by a fraction, shifted or contracted; or
            complex numbers shifted.
    """
    if out is None:
        out = empty(recipe.shape, source.dtype, source.device)
    _check(source, recipe, out)
    if source.is_complex():
        widen(torch.view_as_real(source.resolve_conj()), in_parts(recipe), torch.view_as_real(out), read)
        return out
    if not (out.is_cpu or out.is_meta or is_exact(recipe)):
        return out.copy_(widen(source.cpu(), recipe, read=read))
    _fill_any(source, recipe, out)
    if any(layout.padded for layout in recipe.axes):
        _fill_pads(source, recipe, out, read)
    return out


def is_exact(recipe: Widening) -> bool:
    """Whether every device computes the same bits: numbers are drawn, and sums rounded, on the CPU only."""
    return not recipe.noisy and not any(layout.padded for layout in recipe.axes)


def in_parts(recipe: Widening) -> Widening:
    """The recipe of complex numbers as pairs of real ones, along a last axis that does not grow."""
    return replace(recipe, axes=(*recipe.axes, rigid(2)))


def _check(source: Tensor, recipe: Widening, out: Tensor) -> None:
    if tuple(source.shape) != recipe.source_shape:
        raise ValueError(f"{recipe.name}: expected a source of {recipe.source_shape}, got {tuple(source.shape)}")
    if tuple(out.shape) != recipe.shape or out.dtype != source.dtype:
        expected, got = f"{recipe.shape} {source.dtype}", f"{tuple(out.shape)} {out.dtype}"
        raise ValueError(f"{recipe.name}: expected an out of {expected}, got {got}")
    computed = recipe.contracted or recipe.scale % 1 or recipe.shift
    if source.is_complex():
        if recipe.shift:
            raise TypeError(f"{recipe.name}: {source.dtype} cannot be shifted")
    elif computed and not source.is_floating_point():
        how = "multiplied by a fraction, shifted or contracted"
        raise TypeError(f"{recipe.name}: {source.dtype} can be replicated, but not {how}")


def _fill_any(source: Tensor, recipe: Widening, out: Tensor) -> None:
    axis = first_irregular(recipe)
    if axis is not None:
        _fill_sorted(source, recipe, out, axis)
    elif recipe.noisy:
        _fill_noisy(source, recipe, out)
    else:
        _fill(source, recipe, out)


def _fill(source: Tensor, recipe: Widening, out: Tensor) -> None:
    if recipe.shift:  # rounded once, at full precision, before it is spread
        source = (source.double() * recipe.scale + recipe.shift).to(source.dtype)
    for share in _shares(source, recipe, out):
        write(share.out, share.source, 1.0 if recipe.shift else share.factor)


@dataclass(frozen=True)
class _Share:
    """A part of the output that is ``factor`` times a part of the source, broadcast; one of ``columns``."""

    out: Tensor
    source: Tensor
    factor: float
    columns: int

    @property
    def power(self) -> float:
        """The sum of the squares of what it adds to the output."""
        repeats = self.out.numel() // max(1, self.source.numel())
        return repeats * self.factor**2 * power(self.source)


def _shares(source: Tensor, recipe: Widening, out: Tensor) -> Iterator[_Share]:
    matrix = cache(recipe.strategy.matrix)
    rows = max_copies(recipe)
    for block in _blocks(out, source, recipe.axes):
        columns = block.copies_of(recipe.contracted)
        if recipe.strategy.uniform or not recipe.contracted:
            yield _Share(block.out, block.source, recipe.scale / columns, columns)
            continue
        for copy in _copies(block, recipe.contracted):
            factor = recipe.scale * float(matrix(rows, columns)[copy.row, copy.column])
            yield _Share(copy.out, copy.source, factor, columns)


def max_copies(recipe: Widening) -> int:
    """The rows of A: the most copies that an index of the replicated axes has."""
    free = (layout for axis, layout in enumerate(recipe.axes) if axis not in recipe.contracted and layout.grows)
    return prod(int(layout.multiplicity.max(initial=1)) for layout in free)


# --- Blocks: the output cut along the layout trees ---


@dataclass(frozen=True)
class _Digit:
    """Which copy a new index is, for one leaf: what a dim of the views counts, or a fixed value."""

    axis: int
    count: int
    dim: int | None = None  # counted from the end, where splitting the dims before it does not move it
    value: int = 0


@dataclass(frozen=True)
class _Block:
    """Views of equal rank; the source's has size 1 where the output's runs over copies."""

    out: Tensor
    source: Tensor
    digits: tuple[_Digit, ...] = ()

    def with_digit(self, out: Tensor, source: Tensor, digit: _Digit) -> _Block:
        return _Block(out, source, (digit, *self.digits))

    def copies_of(self, axes: Sequence[int]) -> int:
        return prod(digit.count for digit in self.digits if digit.axis in axes)


def _blocks(out: Tensor, source: Tensor, axes: Sequence[Layout]) -> Iterator[_Block]:
    yield from _split_all(_Block(out, source), list(enumerate(axes)), 0)


def _split_all(block: _Block, layouts: list[tuple[int, Layout]], first: int) -> Iterator[_Block]:
    """Splits the dims from ``first`` on, one per (axis, layout); the last first, as it moves no other."""
    if not layouts:
        yield block
        return
    *before, (axis, layout) = layouts
    for part in _split(block, axis, first + len(before), layout):
        yield from _split_all(part, before, first)


def _split(block: _Block, axis: int, at: int, layout: Layout) -> Iterator[_Block]:
    if not layout.grows:
        yield block
    elif isinstance(layout, Product):
        out = torch.unflatten(block.out, at, tuple(part.new_size for part in layout.parts))
        source = torch.unflatten(block.source, at, tuple(part.size for part in layout.parts))
        yield from _split_all(replace(block, out=out, source=source), [(axis, part) for part in layout.parts], at)
    elif isinstance(layout, Concat):
        yield from _split_concat(block, axis, at, layout)
    elif isinstance(layout, Leaf):
        yield from _split_leaf(block, axis, at, layout.growth)


def _split_concat(block: _Block, axis: int, at: int, layout: Concat) -> Iterator[_Block]:
    new = old = 0
    for part in layout.parts:
        out, source = block.out.narrow(at, new, part.new_size), block.source.narrow(at, old, part.size)
        yield from _split(replace(block, out=out, source=source), axis, at, part)
        new, old = new + part.new_size, old + part.size


def _split_leaf(block: _Block, axis: int, at: int, growth: Growth) -> Iterator[_Block]:
    if not growth.whole:
        for run in _runs(growth):
            out, source = _slice(block.out, at, run.new), _slice(block.source, at, run.old)
            yield block.with_digit(out, source, _Digit(axis, run.count, value=run.copy))
        return
    tiled = growth.kind == "tile"
    sizes = (growth.factor, growth.size) if tiled else (growth.size, growth.factor)
    copies = at if tiled else at + 1
    out, source = torch.unflatten(block.out, at, sizes), block.source.unsqueeze(copies)
    yield block.with_digit(out, source, _Digit(axis, growth.factor, copies - out.dim()))


def _slice(tensor: Tensor, dim: int, part: slice) -> Tensor:
    return tensor[(slice(None),) * dim + (part,)]


@dataclass(frozen=True)
class _Copy:
    """One copy of a block: row and column of A, of so many columns."""

    out: Tensor
    source: Tensor
    row: int
    column: int
    columns: int


def _copies(block: _Block, contracted: Sequence[int]) -> Iterator[_Copy]:
    """The block copy by copy, numbered in mixed radix as ``Layout.copies`` does, over all axes together."""
    columns = block.copies_of(contracted)
    for values in np.ndindex(*(1 if digit.dim is None else digit.count for digit in block.digits)):
        row = column = 0
        out_at: list[slice | int] = [slice(None)] * block.out.dim()
        source_at = list(out_at)
        for digit, moving in zip(block.digits, values, strict=True):
            value = digit.value + moving
            if digit.dim is not None:
                out_at[digit.dim], source_at[digit.dim] = value, 0
            if digit.axis in contracted:
                column = column * digit.count + value
            else:
                row = row * digit.count + value
        yield _Copy(block.out[tuple(out_at)], block.source[tuple(source_at)], row, column, columns)


# --- Explicit maps ---


@dataclass(frozen=True)
class _Run:
    """New indices, evenly spaced, that are the same copy of source indices, evenly spaced as well."""

    new: slice
    old: slice
    copy: int
    count: int


@lru_cache(maxsize=256)
def _runs(growth: Growth) -> tuple[_Run, ...]:
    leaf = Leaf(growth)
    counts = leaf.multiplicity[leaf.index_map] if growth.size else leaf.index_map
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for new, (old, copy, count) in enumerate(zip(leaf.index_map, leaf.copies, counts, strict=True)):
        if old != PAD:
            groups.setdefault((int(copy), int(count)), []).append((new, int(old)))
    return tuple(
        _Run(_progression([new for new, _ in run]), _progression([old for _, old in run]), *group)
        for group, pairs in groups.items()
        for run in _arithmetic(pairs)
    )


def _arithmetic(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cuts ascending (new, old) pairs into runs that slices can express: constant and positive steps."""
    run, step = pairs[:1], None
    for last, pair in pairwise(pairs):
        ahead = (pair[0] - last[0], pair[1] - last[1])
        if ahead[1] < 1 or step not in (None, ahead):
            yield run
            run, step = [pair], None
        else:
            run.append(pair)
            step = ahead
    yield run


def _progression(indices: list[int]) -> slice:
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    return slice(indices[0], indices[-1] + 1, step)


def first_irregular(recipe: Widening) -> int | None:
    """The first axis with an explicit map in its tree that is not worth cutting into slices."""
    return next((axis for axis, layout in enumerate(recipe.axes) if _irregular(layout)), None)


def _irregular(layout: Layout) -> bool:
    if isinstance(layout, Leaf):
        return not layout.growth.whole and len(_runs(layout.growth)) > MAX_SLICES
    return isinstance(layout, Product | Concat) and any(_irregular(part) for part in layout.parts)


def _fill_sorted(source: Tensor, recipe: Widening, out: Tensor, axis: int) -> None:
    """Sorts an irregular axis by multiplicity, where it is a row of tiles, and scatters the result."""
    kept, order, sorted_recipe = by_multiplicity(recipe, axis)
    wide = widen(selected(source, axis, _index(kept, source)), sorted_recipe)
    out.index_copy_(axis, _index(order, out), wide)


def _index(indices: IntArray, like: Tensor) -> Tensor:
    return torch.from_numpy(indices).to(like.device)


def _clear_pads(tensor: Tensor, axis: int, index_map: IntArray) -> None:
    pads = np.flatnonzero(index_map == PAD)
    if len(pads):
        tensor.index_fill_(axis, _index(pads, tensor), 0.0)


# --- Pads ---


def _fill_pads(source: Tensor, recipe: Widening, out: Tensor, read: Reader) -> None:
    found = regions(source, recipe, out)
    is_free = any(region.fill == Fill.FREE for region in found)
    size = recipe.scale * sampled_size(lambda first, end: source[first:end], source.shape) if is_free else 0.0
    for number, region in enumerate(found):
        if region.fill == Fill.FREE:
            _randomise(region.out, numbered(recipe, number), size)
        elif region.fill.is_mean:
            widen(*region.mean(recipe, read), region.out, read)  # which may have pads of other dims
        else:
            region.out.fill_(region.number(recipe))


def _randomise(out: Tensor, recipe: Widening, size: float) -> None:
    length = chunk_length(out)
    for number, part in enumerate(out.split(length)):
        part.copy_(random_numbers(recipe, number * length, part.shape, size))


# --- Noise ---


def _fill_noisy(source: Tensor, recipe: Widening, out: Tensor) -> None:
    """Lays N into ``out``, where it needs no room of its own, and adds ``A (x) W`` to it."""
    if len(recipe.contracted) == out.dim():
        recipe, source, out = one_row(recipe), source[None], out[None]
    along = chunked_axis(recipe)
    out.mul_(gain(_lay_noise(recipe, out, along), source, recipe, out))
    for share in _shares(source, recipe, out):
        add(share.out, share.source, share.factor)
    if out.dtype.itemsize < 4:
        for start, part in chunks(out, along):
            restore_sums(source, recipe, part, along, start)


def one_row(recipe: Widening) -> Widening:
    """The recipe of an initializer all of whose axes are contracted, with an axis of 1 before them that is not."""
    contracted = tuple(axis + 1 for axis in recipe.contracted)
    return replace(recipe, axes=(rigid(1), *recipe.axes), contracted=contracted)


def chunked_axis(recipe: Widening) -> int:
    """The axis along which noise is drawn in chunks."""
    free = (axis for axis in range(len(recipe.axes)) if axis not in recipe.contracted)
    return max(free, key=lambda axis: recipe.shape[axis])


def gain(energy: float, source: Tensor, recipe: Widening, out: Tensor) -> float:
    """The factor of noise Z, B being the columns that have copies: Z is 0 elsewhere.

    That is ``sqrt(|B|^2 / |Z|^2 * 10^(-dB / 10))``, or ``spread / sqrt(inputs)`` over the root mean square of Z.
    """
    duplicated = [share for share in _shares(source, recipe, out) if share.columns > 1]
    if recipe.strategy.spread is not None:
        inputs = prod(recipe.shape[axis] for axis in recipe.contracted)
        wanted = recipe.strategy.spread**2 / max(1, inputs) * sum(share.out.numel() for share in duplicated)
    else:
        wanted = sum(share.power for share in duplicated) * 10 ** (-(recipe.strategy.snr_db or 0.0) / 10)
    return math.sqrt(wanted / energy) if energy else 0.0


def _lay_noise(recipe: Widening, out: Tensor, along: int) -> float:
    """Normal noise that sums to 0 over the copies of every contracted index; returns the sum of its squares.

    Drawn on the CPU in fixed chunks, so the same on every device and for every number of threads.
    """
    energy = 0.0
    for start, part in chunks(out, along):
        noise = chunk_of_noise(recipe, out, along, start)
        energy += power(noise)
        part.copy_(noise)
    return energy


def chunk_of_noise(recipe: Widening, out: Tensor, along: int, start: int) -> Tensor:
    """The noise of the chunk that begins there; of ``out``, which may be on the meta device, shape and dtype count."""
    part = next(chunks(out, along, start))[1]
    dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
    noise = normal(recipe, along, start, torch.empty(part.shape, dtype=dtype))
    for axis, (layout, index_map) in enumerate(zip(recipe.axes, _chunk_maps(recipe, along, start, part), strict=True)):
        if layout.padded:
            _clear_pads(noise, axis, index_map)
    _subtract_means(noise, recipe)
    return noise


def _subtract_means(noise: Tensor, recipe: Widening) -> None:
    """Leaves exactly 0 of an entry with one copy. Element-wise, so no thread count changes the rounding."""
    axes = _contracted_axes(noise, recipe)
    blocks = list(_blocks(noise, noise.new_zeros([layout.size for layout in axes]), axes))
    for block in blocks:
        for copy in _copies(block, recipe.contracted):
            copy.source.add_(copy.out)
    for block in blocks:
        block.out.sub_(block.source, alpha=1 / block.copies_of(recipe.contracted))


def restore_sums(source: Tensor, recipe: Widening, part: Tensor, along: int, start: int) -> None:
    """Adds what the copies in a chunk leave of the source to the smallest, as far as the dtype can hold that.

    All are rounded to what the largest copy is rounded to. If the source is, too, nothing is left to round. If
    not, the smallest copy alone can hold the last digits of the source, and does if it is no more than the source's own
    power of two. Where noise makes every copy larger the sum is off by what that copy is rounded to: no numbers of the
    dtype as large as these have another sum.
    """
    left = _rows(source, recipe, along, _chunk_maps(recipe, along, start, part))
    largest, least = torch.zeros_like(left), torch.full_like(left, math.inf)
    smallest = torch.zeros_like(left, dtype=torch.int64)
    for copy, most, few, which in _contracted_copies(part, recipe, left, largest, least, smallest):
        size = copy.out.abs().float()
        reach = size * (1 + copy.columns * torch.finfo(part.dtype).eps)  # the last may yet grow
        most.source.copy_(torch.maximum(most.source, reach))
        which.source.masked_fill_(size < few.source, copy.column)
        few.source.copy_(torch.minimum(few.source, size))
    last_places = units(largest, part.dtype)
    for copy, unit in _contracted_copies(part, recipe, left, last_places):
        copy.out.copy_(torch.round(copy.out / unit.source).mul_(unit.source))
        copy.source.sub_(copy.out)
    for copy, which in _contracted_copies(part, recipe, left, smallest):
        copy.out.add_(copy.source.masked_fill(which.source != copy.column, 0))


def _contracted_copies(chunk: Tensor, recipe: Widening, *sources: Tensor) -> Iterator[tuple[_Copy, ...]]:
    """The copies of a chunk, each once for every tensor that is laid out as the source is."""
    axes = _contracted_axes(chunk, recipe)
    for blocks in zip(*(_blocks(chunk, source, axes) for source in sources), strict=True):
        yield from zip(*(_copies(block, recipe.contracted) for block in blocks), strict=True)


def _rows(source: Tensor, recipe: Widening, along: int, maps: Sequence[IntArray]) -> Tensor:
    """The scaled source, in float32, read through the (part of the) maps of the replicated axes."""
    free = set(range(source.dim())) - set(recipe.contracted)
    order = sorted(free, key=lambda axis: axis != along)  # the chunk's axis first, so that the rest is small
    for axis in order:
        source = selected(source, axis, _index(maps[axis].clip(0), source))
    rows = source.float() * recipe.scale
    for axis in order:
        _clear_pads(rows, axis, maps[axis])
    return rows


def chunks(out: Tensor, along: int, first: int = 0) -> Iterator[tuple[int, Tensor]]:
    """The parts of a tensor that random numbers are drawn for at once, each with where it begins along the axis."""
    length = max(1, CHUNK * out.shape[along] // max(1, out.numel()))
    for start in range(first, out.shape[along], length):
        yield start, out.narrow(along, start, min(length, out.shape[along] - start))


def _chunk_maps(recipe: Widening, along: int, start: int, part: Tensor) -> list[IntArray]:
    maps = [layout.index_map for layout in recipe.axes]
    maps[along] = maps[along][start : start + part.shape[along]]
    return maps


def _contracted_axes(chunk: Tensor, recipe: Widening) -> list[Layout]:
    """The layouts of a chunk whose replicated axes are taken as they are."""
    layouts = enumerate(recipe.axes)
    return [layout if axis in recipe.contracted else rigid(chunk.shape[axis]) for axis, layout in layouts]
