"""Ways to begin a wide model that others have proposed and that change what it computes: here for comparison alone.

None of them passes as a clone. Their names say ``inexact`` wherever they appear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.recipes import Widening

Tensors = Mapping[str, Tensor]

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A part of a name that is a number: that of a block in a list of blocks."""


def aki(tensors: Tensors, recipes: Mapping[str, Widening]) -> dict[str, Tensor]:
    """Advanced knowledge: new outputs come from the block above (Chen et al. 2022, arXiv 2110.07143, section 3.3).

    The first copy of every output is what a symmetric clone has, so are all that the last block has, and what lies in
    no block.

    Args:
        tensors: of a symmetric clone, by name.
        recipes: how they were widened, by name.

    Returns:
        The tensors to begin with, by name.
    """
    begun = {}
    for name, tensor in tensors.items():
        above = _above(name)
        recipe = recipes.get(name)
        if recipe is None or above not in tensors or tensors[above].shape != tensor.shape:
            begun[name] = tensor
        else:
            begun[name] = torch.where(_is_new(recipe).to(tensor.device), tensors[above], tensor)
    return begun


def _above(name: str) -> str:
    """The name in the next block; the name itself outside of blocks."""
    return _NUMBER.sub(lambda found: str(int(found[0]) + 1), name, count=1)


def _is_new(recipe: Widening) -> Tensor:
    """Which entries are of another output copy than the first, broadcast over the recipe's shape."""
    is_new = torch.zeros([1] * len(recipe.axes), dtype=torch.bool)
    for axis, layout in enumerate(recipe.axes):
        if axis not in recipe.contracted:
            copies = torch.from_numpy(np.ascontiguousarray(layout.copies > 0))
            is_new = is_new | copies.view([-1 if a == axis else 1 for a in range(len(recipe.axes))])
    return is_new


INITIALISATIONS: Mapping[str, Callable[[Tensors, Mapping[str, Widening]], dict[str, Tensor]]] = {"inexact-aki": aki}
"""What each of ``graphclone.study.recipes.INEXACT`` makes of a symmetric clone."""
