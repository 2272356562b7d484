"""Ways to begin a wide model that others have proposed and that change what it computes: here for comparison alone.

None of them passes as a clone. Their names say ``inexact`` wherever they appear.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import PAD, Layout
from graphclone.algebra.recipes import Widening
from graphclone.clones.clone import Clone
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Initializer
from graphclone.study.symmetry import recipes_of

Tensors = Mapping[str, Tensor]

_LEARNING_STEPS, _LEARNING_RATE, _SPREAD = 100, 3e-3, 0.02
"""Steps in which growth is learned, Adam's rate, and the size of the noise that tells copies apart before them."""

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
"""A part of a name that is a number: that of a block in a list of blocks."""


@dataclass(frozen=True)
class Beginning:
    """What an initialisation may draw on.

    Attributes:
        clone: the clone of the base by the strategy that ``graphclone.study.recipes.INEXACT`` names.
        small: the base's tensors, by name.
        wide: those of the clone, by name.
        other: those of such a clone of a second base, where one is asked for.
        loss: of the wide model, in nats per token, with the tensors given, on the training batch of a number.
        seed: of what is random.
    """

    clone: Clone
    small: Tensors
    wide: Tensors
    loss: Callable[[Tensors, int], Tensor]
    seed: int = 0
    other: Tensors | None = None


def aki(beginning: Beginning) -> dict[str, Tensor]:
    """Advanced knowledge: new outputs come from the block above (Chen et al. 2022, arXiv 2110.07143, section 3.3).

    The first copy of every output is what a symmetric clone has, so are all that the last block has, and what lies in
    no block.

    Returns:
        The tensors to begin with, by name.
    """
    begun, recipes, tensors = {}, recipes_of(beginning.clone), beginning.wide
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


def ligo(beginning: Beginning) -> dict[str, Tensor]:
    """Learned growth in width: W' = B W C, with B and C trained by the loss (Wang et al. 2023, arXiv 2303.00980).

    Every dim has one matrix B, shape (new size, size), for weights that give it, and one C, shape (size, new size), for
    weights that sum over it; all blocks share them. They begin as what makes the symmetric clone, with a little noise,
    and take 100 steps of Adam.

    Returns:
        The tensors to begin with, by name.
    """
    operators = _Operators(beginning)
    optimizer = torch.optim.Adam(operators.matrices.values(), _LEARNING_RATE)
    for step in range(_LEARNING_STEPS):
        optimizer.zero_grad()
        beginning.loss(operators.grown(), step).backward()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in operators.grown().items()}


class _Operators:
    """The matrices of learned growth.

    Attributes:
        matrices: shape (new size, size), by axis and by whether it is summed over.
    """

    def __init__(self, beginning: Beginning) -> None:
        state = beginning.clone.state
        self._beginning = beginning
        self._recipes = state.recipes
        self._facts = state.facts
        self._grown = [i for i in beginning.clone.graph.initializers if i.kind == "parameter"]
        self.matrices: dict[tuple[Axis, bool], Tensor] = {}
        generator = torch.Generator().manual_seed(beginning.seed)
        for initializer in self._grown:
            layouts = self._recipes[initializer.value].axes
            for key, layout in zip(self._keys(initializer), layouts, strict=True):
                if layout.grows and key not in self.matrices:
                    matrix = _duplication(layout, averages=key[1])
                    noise = _SPREAD * torch.randn(matrix.shape, generator=generator)
                    self.matrices[key] = (matrix + noise).requires_grad_()

    def grown(self) -> dict[str, Tensor]:
        """Every tensor of the wide model, by name."""
        begun = dict(self._beginning.wide)
        for initializer in self._grown:
            recipe = self._recipes[initializer.value]
            tensor = self._beginning.small[initializer.names[0]]
            for axis, key in enumerate(self._keys(initializer)):
                if key in self.matrices:
                    tensor = torch.tensordot(self.matrices[key], tensor, ([1], [axis])).movedim(0, axis)
            begun |= dict.fromkeys(initializer.names, tensor * recipe.scale + recipe.shift)
        return begun

    def _keys(self, initializer: Initializer) -> list[tuple[Axis, bool]]:
        contracted = self._recipes[initializer.value].contracted
        axes = self._facts.of[initializer.value]
        return [(self._facts.axes.find(axis), index in contracted) for index, axis in enumerate(axes)]


def _duplication(layout: Layout, *, averages: bool) -> Tensor:
    """What copies the indices of an axis, or shares each among its copies; shape (new size, size)."""
    index_map = torch.from_numpy(np.ascontiguousarray(layout.index_map))
    matrix = (index_map[:, None] == torch.arange(layout.size)).float()
    assert PAD not in layout.index_map, "a study's factors are whole numbers"
    return matrix / matrix.sum(0) if averages else matrix


def merge(beginning: Beginning) -> dict[str, Tensor]:
    """Two bases side by side: W' = diag(W1, W2), and half of each in the last layer.

    In a staged clone each copy reads itself alone. Here every second copy is that of the second base. The outputs would
    be the means of both bases' if no norm took the copies together.

    Returns:
        The tensors to begin with, by name.
    """
    assert beginning.other is not None
    recipes = recipes_of(beginning.clone)
    return {
        name: torch.where(_is_second(recipes[name]).to(tensor.device), beginning.other[name], tensor)
        if name in recipes
        else tensor
        for name, tensor in beginning.wide.items()
    }


def _is_second(recipe: Widening) -> Tensor:
    """Which entries are of an odd copy along the last axis that grows, broadcast over the recipe's shape."""
    grown = [axis for axis, layout in enumerate(recipe.axes) if layout.grows]
    if not grown:
        return torch.zeros([1] * len(recipe.axes), dtype=torch.bool)
    odd = torch.from_numpy(np.ascontiguousarray(recipe.axes[grown[-1]].copies % 2 > 0))
    return odd.view([-1 if axis == grown[-1] else 1 for axis in range(len(recipe.axes))])


def stack(beginning: Beginning) -> dict[str, Tensor]:
    """All blocks, and then all of them again (Du et al. 2024, arXiv 2405.15319, G_stack).

    Returns:
        The tensors to begin with, by name.

    Raises:
        GraphcloneError: the model grew in width.
    """
    blocks = Counter(map(_place, beginning.small))

    def below(name: str) -> str:
        count = blocks[_place(name)]
        return _NUMBER.sub(lambda found: str(int(found[0]) % count), name, count=1)

    begun = {name: beginning.small[below(name)] for name in beginning.wide}
    if any(begun[name].shape != tensor.shape for name, tensor in beginning.wide.items()):
        raise GraphcloneError("inexact-stack: takes a model that grows in depth; give it grows = 'depth'")
    return begun


def _place(name: str) -> str:
    """The name in any block."""
    return _NUMBER.sub("#", name, count=1)


INITIALISATIONS: Mapping[str, Callable[[Beginning], dict[str, Tensor]]] = {
    "inexact-aki": aki,
    "inexact-ligo": ligo,
    "inexact-merge": merge,
    "inexact-stack": stack,
}
"""What each of ``graphclone.study.recipes.INEXACT`` makes of a clone."""
