"""Random weights in which no error can hide."""

from __future__ import annotations

import torch
from torch import nn

_SPREAD = 0.2
"""Standard deviation of biases, and of norm weights about 1."""


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Redraws every parameter and running statistic in place, and returns the module.

    A fresh network's biases are 0 and its norm weights 1, so a clone that mixes them up would still agree
    with it. Matrices are scaled to keep the variance of what they multiply: attention is then far from
    uniform even in tiny models. Meta and fake tensors stay as they are.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in module.named_parameters():
        _redraw(name, parameter, generator)
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            _redraw(name, buffer, generator)
    return module


def _redraw(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    if tensor.ndim > 1 and tensor.numel():
        tensor.normal_(std=tensor[0].numel() ** -0.5, generator=generator)
        return
    tensor.normal_(std=_SPREAD, generator=generator)
    if name.endswith("running_var"):
        tensor.exp_()
    elif name.endswith("weight"):
        tensor.add_(1.0)
