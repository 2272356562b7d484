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

    Only parameters that have no state yet are measured; those that have one are left as they are, and no parameter
    moves. Batch norm's running statistics, which training mode updates, are the caller's to keep.

        graphclone.warm_moments(optimizer, (model(**batch).loss for batch in batches))

    Args:
        optimizer: over the clone's parameters.
        losses: one scalar per batch; each is computed once the one before is done with. Some 30 do.

    Returns:
        How many losses there were.

    Raises:
        GraphcloneError: there was none, or one that is no finite number.
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
