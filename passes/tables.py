"""Tables that a model's code computes, such as rotary frequencies: what they say about a wide model's dims.

The wide model's tables are given. Where one is the narrow model's repeated, the dim is repeated; where it holds the
narrow model's columns among others, the dim has its copies there, and pads at the others (SHAPES: rotary pairs of a
larger head). Tables are compared and never recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

import torch

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import PAD, Growth
from graphclone.algebra.scales import Expression, ratio
from graphclone.analysis.facts import Facts
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Initializer, Value
from graphclone.pipeline.state import State
from graphclone.runtime.maps import Maps
from graphclone.runtime.tensors import data_of


class OtherTableError(GraphcloneError):
    """A table of the target is not the source's as its dims grow, which no weights can make up for."""


Pairs = Mapping[Initializer, Initializer]
"""The target's table for every table of the source."""

_ROUNDING = 4
"""Units in the last place that two computations of one number may be apart."""


def paired(graph: Graph, values: Mapping[Value, Value], target: Graph) -> dict[Initializer, Initializer]:
    """The tensors that are part of the code and not of the weights: tables, masks, factors."""
    theirs = target.initializer_of()
    return {i: theirs[values[i.value]] for i in graph.initializers if i.kind == "constant" and i.value in values}


# Places


def placed(facts: Facts, growths: Mapping[Axis, Growth], pairs: Pairs) -> dict[Axis, Growth]:
    """The growths, with copies where the target's tables have the columns of the source's.

    A dim whose tables are repeated stays as it is, and so does one whose columns are not all there.
    """
    found = dict(growths)
    for dim, growth in growths.items():
        columns = [columns for table in pairs.items() for columns in _columns(facts, growths, dim, *table)]
        if columns and not all(_holds(growth, old, new) for old, new in columns):
            entries = _entries(growth, columns)
            found[dim] = Growth.explicit(growth.size, entries) if entries is not None else growth
    return found


def _columns(
    facts: Facts, growths: Mapping[Axis, Growth], dim: Axis, old: Initializer, new: Initializer
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The parts of a table that have the dim as an axis, in source and target, with the dim first."""
    ours, theirs = data_of(old), data_of(new)
    axes = facts.of[old.value]
    if ours is None or theirs is None or ours.ndim != theirs.ndim or not ours.is_floating_point():
        return
    for index, axis in enumerate(axes):
        others = [leaf for i, other in enumerate(axes) if i != index for leaf in facts.axes.leaves(other)]
        if dim not in facts.axes.leaves(axis) or any(leaf in growths for leaf in others):
            continue
        before = after = 0
        for segment in facts.axes.segments(axis):
            layout = facts.axes.layout(segment, lambda leaf: growths.get(leaf) or Growth(leaf.size))
            if facts.axes.find(segment) is dim and after + layout.new_size <= theirs.shape[index]:
                yield (
                    ours.narrow(index, before, layout.size).movedim(index, 0),
                    theirs.narrow(index, after, layout.new_size).movedim(index, 0),
                )
            before, after = before + layout.size, after + layout.new_size


def _holds(growth: Growth, old: torch.Tensor, new: torch.Tensor) -> bool:
    """Whether the target's columns are the source's repeated, times a number."""
    index = torch.from_numpy(growth.index_map())
    copies = (index != PAD).nonzero()[:, 0]
    return factor_between(old[index[copies]], new[copies]) is not None


def _entries(growth: Growth, columns: list[tuple[torch.Tensor, torch.Tensor]]) -> list[int] | None:
    """For every column of the target that of the source that it is, or ``PAD``; None where one is nowhere."""
    old, new = (
        torch.cat([part.double().reshape(len(part), -1) for part in side], 1) for side in zip(*columns, strict=True)
    )
    dtype = columns[0][0].dtype
    entries = [PAD] * growth.new_size
    for source, column in enumerate(old):
        near = ((new[:, -1] - column[-1]).abs() <= _off(column[-1], dtype)).nonzero()[:, 0].tolist()
        same = (j for j in near if entries[j] == PAD and _close(new[j], column, dtype))
        if (place := next(same, None)) is None:
            return None
        entries[place] = source
    return entries


# Scales


def table_scales(state: State, pairs: Pairs) -> dict[Value, Expression]:
    """The scale of every table.

    Raises:
        GraphcloneError: one is not the source's, as its dims grow, times a number; or has no data to be compared.
    """
    return {old.value: _table_scale(state, old, new) for old, new in pairs.items()}


def _table_scale(state: State, table: Initializer, wide: Initializer) -> Expression:
    old, new = data_of(table), data_of(wide)
    if old is None or new is None:
        raise GraphcloneError(
            f"{table.name} is not saved with the model and has no data, so that it cannot be compared; "
            "build the model with its buffers"
        )
    maps = Maps(state)
    expected = maps.widened(table.value, old)
    scale = None
    if expected.shape == new.shape:
        scale = factor_between(*(maps.compared(table.value, old, tensor) for tensor in (expected, new)))
    if scale is None:
        raise OtherTableError(
            f"{table.name}: the wide model computes this table from its widths, and it is not the narrow model's "
            "repeated; no weights can make up for that"
        )
    return scale


def factor_between(old: torch.Tensor, new: torch.Tensor) -> Expression | None:
    """The logarithm of the number that makes one table the other, up to rounding; None if there is none."""
    if torch.equal(old, new) or (old.is_floating_point() and torch.equal(old.nan_to_num(), new.nan_to_num())):
        return {}
    if not old.is_floating_point() or not old.numel() or old.shape != new.shape:
        return None
    if _close(old, new, old.dtype):
        return {}
    place = old.abs().nan_to_num(posinf=0.0).flatten().argmax()
    a, b = float(old.flatten()[place]), float(new.flatten()[place])
    if not isfinite(b) or a * b <= 0 or not _close(old.double() * (b / a), new, old.dtype):
        return None
    return ratio(a, b)


def _close(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two tables differ by no more than what computing a power of a number in that dtype is off."""
    return bool((torch.isclose(a.double(), b.double(), 0.0, 0.0) | ((a - b).double().abs() <= _off(b, dtype))).all())


def _off(table: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """How far off numbers may be: the rounding of an exponent counts as often as the exponent is large."""
    size = table.double().abs()
    return _ROUNDING * torch.finfo(dtype).eps * size * (1 + size.log().abs().nan_to_num(posinf=0.0))
