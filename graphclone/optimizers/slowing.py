"""Train what a clone has from its source at a lower rate than what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from graphclone.algebra.growth import PAD
from graphclone.algebra.recipes import Widening
from graphclone.optimizers.optimizers import plain


def slow_copies(
    optimizer: Any, parameters: Mapping[str, torch.nn.Parameter], recipes: Mapping[str, Widening], factor: float
) -> None:
    """Let an optimizer move what a clone has from its source by a part of each step only.

    A rate belongs to a whole parameter, and a parameter of a clone by ``fresh`` is old in one corner and new beside it.
    So each step is taken back in part, where that is the corner. All parameters are held twice while a step is taken.

    Args:
        optimizer: of the clone's parameters, which no process shares with others.
        parameters: of the clone, by name.
        recipes: of these, by name. A parameter without one moves as far as before.
        factor: of each step, from 0 (what is the source's stays as it is) to 1.
    """
    old = {name: _is_old(recipes[name]).to(p.device) for name, p in parameters.items() if name in recipes}
    before: dict[str, torch.Tensor] = {}

    def remember(*_: Any) -> None:
        before.update((name, parameters[name].detach().clone()) for name in old)

    @torch.no_grad()
    def take_back(*_: Any) -> None:
        for name, mask in old.items():
            parameter, start = parameters[name], before.pop(name)
            parameter.copy_(torch.where(mask, torch.lerp(start, parameter, factor), parameter))

    own = plain(optimizer)
    own.register_step_pre_hook(remember)
    own.register_step_post_hook(take_back)


def _is_old(recipe: Widening) -> torch.Tensor:
    """Which entries are the source's, of the widened shape, bool: the first copy of each, along every dim."""
    mask = torch.ones((), dtype=torch.bool)
    for layout in recipe.axes:
        mask = mask[..., None] & torch.from_numpy((layout.index_map != PAD) & (layout.copies == 0))
    return mask
