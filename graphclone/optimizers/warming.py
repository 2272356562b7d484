"""Measure what an optimizer would have kept of its gradients, where it cannot be had from the source's."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from graphclone.errors import GraphcloneError
from graphclone.optimizers.optimizers import plain


def warm_moments(optimizer: Any, losses: Iterable[torch.Tensor]) -> int:
    """Let an optimizer see the gradients of some batches at rate 0, so that its first step knows how large they are.

    Only parameters without a state are measured. No parameter moves, and a state that is there stays as it is. In
    training mode batch norm updates its running statistics: to restore them is up to the caller.

    Args:
        optimizer: of the clone's parameters.
        losses: an iterable with one scalar for each batch, best a generator, so that one loss is computed at a time. 30
            batches are enough.

    Returns:
        The number of losses.

    Raises:
        GraphcloneError: there is no loss, or one is not finite.

    Examples:
        >>> wide = clone.module()
        >>> optimizer = torch.optim.AdamW(wide.parameters(), lr=1e-3)
        >>> gc.warm_moments(optimizer, (wide(torch.randn(3, 4)).square().mean() for _ in range(5)))
        5
    """
    own = plain(optimizer)
    cold = {p for group in own.param_groups for p in group["params"] if not own.state.get(p)}
    count = 0
    try:
        for loss in losses:
            _see(own, loss, cold)
            count += 1
    finally:
        own.zero_grad(set_to_none=True)
    if not count:
        raise GraphcloneError("warm_moments: there is no loss; give those of a few batches")
    return count


def _see(optimizer: Optimizer, loss: torch.Tensor, cold: Collection[torch.Tensor]) -> None:
    """One step at rate 0; the rates are as they were afterwards."""
    if not torch.isfinite(loss):
        raise GraphcloneError(f"warm_moments: a loss is {float(loss)}; give batches that the model can learn from")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * 0
        for parameter in group["params"]:
            if parameter not in cold:
                parameter.grad = None
    try:
        optimizer.step()
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
