"""Train what a clone has from its source at a lower rate than what is new."""

from __future__ import annotations

from typing import Any

import torch

from graphclone.algebra.growth import PAD
from graphclone.algebra.recipes import Widening
from graphclone.errors import GraphcloneError
from graphclone.optimizers.optimizers import plain
from graphclone.optimizers.parameters import Parameters


def slow(parameters: Parameters, optimizer: Any, module: torch.nn.Module, factor: float) -> None:
    """Take back a part of each step of an optimizer, where a parameter is the source's; see ``graphclone.slow_copies``.

    Args:
        parameters: of source and clone.
        optimizer: of the parameters of the module.
        module: the clone.
        factor: what is left of each step.

    Raises:
        GraphcloneError: the factor is not between 0 and 1, or the module is another.
    """
    if not 0 <= factor <= 1:
        raise GraphcloneError(f"slow_copies: factor={factor}: give one from 0 to 1")
    recipes, own = parameters.recipes, dict(module.named_parameters())
    old = {name: _is_old(recipes[name]) for name in own if name in recipes}
    if not old or any(mask.shape != own[name].shape for name, mask in old.items()):
        raise GraphcloneError(f"slow_copies: the module is not {parameters.model} as it was widened")
    before: dict[str, torch.Tensor] = {}

    def remember(*_: Any) -> None:
        before.update((name, own[name].detach().clone()) for name in old)

    @torch.no_grad()
    def take_back(*_: Any) -> None:
        for name, mask in old.items():
            parameter, start = own[name], before.pop(name)
            old[name] = mask = mask.to(parameter.device)  # where the module may have been moved since
            parameter.copy_(torch.where(mask, torch.lerp(start, parameter, factor), parameter))

    taking = plain(optimizer)
    taking.register_step_pre_hook(remember)
    taking.register_step_post_hook(take_back)


def _is_old(recipe: Widening) -> torch.Tensor:
    """Which entries are the source's, of the widened shape, bool: the first copy of each, along every dim."""
    mask = torch.ones((), dtype=torch.bool)
    for layout in recipe.axes:
        mask = mask[..., None] & torch.from_numpy((layout.index_map != PAD) & (layout.copies == 0))
    return mask
