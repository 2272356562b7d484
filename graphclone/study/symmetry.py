"""Symmetry: how far apart the copies in a widened model's weights are, and how much of the weights is in use.

Copies that are equal compute the same forever and double the cost for nothing, so training has to drive them
apart. Three cosines say whether it does. For a weight of a clone twice as wide, ``W' = [[a, b], [c, d]]``:

- the row cosine compares ``[a, b]`` with ``[c, d]``, the column cosine ``[a; c]`` with ``[b; d]``. Both are 1 in a
  symmetric clone and 0 in a diagonal one, where each copy reads its own copy only.
- the swap cosine compares W' with ``[[d, c], [b, a]]``, the same weight with the copies of every dim exchanged at
  once. It is 1 for a symmetric *and* for a diagonal weight. Where it is 1 for all weights, exchanging the copies is a
  symmetry of the network, so the gradient has it too, and so has every step of an elementwise optimizer:
  deterministic training keeps it at 1, up to rounding. As long as it is 1 one copy's weights determine the other's,
  and half of the parameters are not free. The row cosine alone does not show that: in a diagonal clone it begins at 0.

"Up to rounding" is more than it seems. The copies of a symmetric clone take part in the same sums, bit for bit, and
stay as they are. Those of a diagonal clone are added in another order; what differs in the last digit grows from step
to step, and in single precision the swap cosine leaves 1 within some hundred steps (docs/study.md).

A weight that maps onto an axis that does not grow, as the last one of most models, is ``[W/2, W/2]`` in a symmetric
clone and ``[W, 0]`` in a diagonal one. The latter's swap cosine is 0, and it lets the copies of the whole network part.
Where it is tied to an embedding, which is replicated, it is ``[W, W]`` in both, and does not.

Every measure is taken on 2-D weights of floating point, in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.growth import PAD, Concat, IntArray, Layout, Product
from graphclone.algebra.recipes import Widening

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone

Named = tuple[str, Tensor]
"""A weight and its name in the model's state dict."""


def recipes_of(clone: Clone) -> dict[str, Widening]:
    """The recipe of every parameter and buffer, under each of its names."""
    recipes = clone.state.recipes
    return {
        name: recipes[initializer.value]
        for initializer in clone.graph.initializers
        if initializer.kind != "constant"
        for name in initializer.names
    }


@torch.no_grad()
def measure(tensors: Iterable[Named], recipes: Mapping[str, Widening]) -> dict[str, float | None]:
    """All measures of a model's weights as they are now.

    Args:
        tensors: the weights, by name: ``module.named_parameters()`` or the items of a state dict. Tensors that share
            their storage count once.
        recipes: how they were widened, by name; empty for a model that was not.

    Returns:
        ``row_cosine``, ``column_cosine`` and ``swap_cosine``, each the mean over the weights that it is defined
        for, in [-1, 1]; and ``effective_rank``, in [0, 1]. None where there is no such weight, and for all of
        them when a weight is not finite, as after training has diverged.
    """
    matrices = [(name, t.detach()) for name, t in tensors if t.ndim == 2 and t.is_floating_point()]
    once = {(t.data_ptr(), t.shape): (name, t) for name, t in reversed(matrices)}  # a tied weight has one vote
    matrices = [(name, t.double()) for name, t in once.values()]
    if not all(bool(matrix.isfinite().all()) for _, matrix in matrices):
        return dict.fromkeys(("row_cosine", "column_cosine", "swap_cosine", "effective_rank"))
    widened = [(matrix, recipes[name].axes) for name, matrix in matrices if name in recipes]
    return {
        "row_cosine": _mean(copy_cosine(matrix, axes[0]) for matrix, axes in widened),
        "column_cosine": _mean(copy_cosine(matrix.T, axes[1]) for matrix, axes in widened),
        "swap_cosine": _mean(swap_cosine(matrix, axes) for matrix, axes in widened),
        "effective_rank": effective_rank(matrix for _, matrix in matrices),
    }


def copy_cosine(matrix: Tensor, layout: Layout) -> float | None:
    """The mean cosine of two rows that are copies of one source row, over all such pairs.

    The copies of one source row have a mean over their pairs, and source rows count alike. A row of zeros has no
    direction and makes no pair. No pair is formed: the cosines of all pairs of unit vectors u are what is left of
    ``|sum u|^2`` without the vectors themselves.

    Args:
        matrix: shape (layout.new_size, any).
        layout: how the rows grew.

    Returns:
        None where no two rows can be compared.
    """
    if not layout.grows:
        return None
    norms = matrix.norm(dim=1)
    rows = np.flatnonzero((layout.index_map != PAD) & (norms > 0).cpu().numpy())
    chosen = torch.from_numpy(rows).to(matrix.device)
    source = torch.from_numpy(layout.index_map[rows]).to(matrix.device)
    units = matrix[chosen] / norms[chosen, None]
    sums = units.new_zeros(layout.size, matrix.shape[1]).index_add_(0, source, units)
    counts = torch.bincount(source, minlength=layout.size).to(matrix.dtype)
    several = counts > 1
    if not several.any():
        return None
    counts = counts[several]
    pairs = (sums[several].square().sum(dim=1) - counts) / (counts * (counts - 1))
    return float(pairs.mean())


def swap_cosine(matrix: Tensor, axes: tuple[Layout, ...]) -> float | None:
    """The cosine of a weight and the same weight after every copy took the place of the next.

    All growing axes are shifted at once, cyclically, each of their dims on its own: an axis of heads times
    channels that both grew shifts by one head and one channel copy.

    Args:
        matrix: shape (axes[0].new_size, axes[1].new_size).
        axes: how it grew.

    Returns:
        None where no axis has two copies of anything, or the weight is zero.
    """
    shifts = [shift(layout) for layout in axes]
    if all((indices == np.arange(len(indices))).all() for indices in shifts):
        return None
    rows, columns = (torch.from_numpy(indices).to(matrix.device) for indices in shifts)
    power = float(matrix.square().sum())  # the shift keeps it
    swapped = matrix.index_select(0, rows).index_select(1, columns)
    return float((matrix * swapped).sum()) / power if power else None


def shift(layout: Layout) -> IntArray:
    """For every new index of an axis, the index of the next copy, cyclically; shape (new_size,).

    It is the permutation that every dim of the layout's tree makes on its own, so that shifts of two weights that
    share a dim agree, in whatever axes the dim stands.
    """
    if isinstance(layout, Product):
        sizes = [part.new_size for part in layout.parts]
        pairs = zip((shift(part) for part in layout.parts), sizes, strict=True)
        return reduce(lambda left, right: np.add.outer(left * right[1], right[0]).ravel(), pairs, _origin())
    if isinstance(layout, Concat):
        starts = np.cumsum([0, *(part.new_size for part in layout.parts)])
        return np.concatenate([shift(part) + start for part, start in zip(layout.parts, starts, strict=False)])
    return _shift_leaf(layout)


def _origin() -> IntArray:
    return np.zeros(1, dtype=np.int64)


def _shift_leaf(leaf: Layout) -> IntArray:
    index, copies = leaf.index_map, leaf.copies
    shifted = np.arange(leaf.new_size, dtype=np.int64)
    places = np.flatnonzero(index != PAD)  # pads copy nothing and stay
    place = places[np.lexsort((copies[places], index[places]))]  # by source index, then by copy
    first = np.cumsum(leaf.multiplicity) - leaf.multiplicity
    source = index[places]
    shifted[places] = place[first[source] + (copies[places] + 1) % leaf.multiplicity[source]]
    return shifted


@torch.no_grad()
def effective_rank(tensors: Iterable[Tensor]) -> float | None:
    """The mean over the 2-D weights of their effective rank over the largest rank they could have.

    The effective rank is the exponential of the entropy of the singular values, normalised to sum to 1 (Roy and
    Vetterli, The effective rank, EUSIPCO 2007): n for n equal ones, 1 for one.

    Args:
        tensors: weights; others than 2-D ones of floating point do not count.

    Returns:
        In [0, 1]; 0 for a weight of zeros; None where there is no such weight.
    """
    return _mean(_relative_rank(t) for t in tensors if t.ndim == 2 and t.is_floating_point() and t.numel())


def _relative_rank(matrix: Tensor) -> float:
    values = torch.linalg.svdvals(matrix.detach().double())
    total = values.sum()
    if not total:
        return 0.0
    entropy = torch.special.entr(values / total).sum()
    return float(entropy.exp()) / min(matrix.shape)


def _mean(values: Iterable[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
