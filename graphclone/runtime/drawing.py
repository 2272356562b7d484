"""Random tensors that may stand for an example."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from graphclone.runtime.signed import alike, selected, signed

_FEW = 3
"""A float tensor with this many different values or fewer is a mask or a flag, and is rearranged."""


def drawn_since(seed: int) -> torch.Tensor | None:
    """The state of the global generator, if numbers have been drawn since it got a seed; None if none have."""
    state = torch.get_rng_state()
    return None if torch.equal(state, torch.Generator().manual_seed(seed).get_state()) else state


def drawn_like(example: torch.Tensor, sizes: Mapping[int, int], generator: torch.Generator) -> torch.Tensor:
    """A random tensor that may stand for the example, some of its axes in other sizes.

    Args:
        example: of any shape.
        sizes: by axis, where they are not those of the example.
        generator: draws it, on the CPU.
    """
    if example.is_floating_point() and example.unique().numel() > _FEW:
        shape = [sizes.get(axis, size) for axis, size in enumerate(example.shape)]
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        values = example.to(torch.float64)
        return (noise * float(values.std()) + float(values.mean())).to(example)
    # Repeated before it is rearranged and cut off after, so that every value of the example has its chance.
    larger = resized(example, {axis: max(size, example.shape[axis]) for axis, size in sizes.items()})
    for axis in sorted({0, larger.ndim - 1}) if larger.ndim else ():
        larger = _shuffled(larger, axis, generator)
    return resized(larger, dict(sizes))


def _shuffled(tensor: torch.Tensor, axis: int, generator: torch.Generator) -> torch.Tensor:
    """The tensor with the order of an axis drawn anew, for every row its own where it is the last axis."""
    if tensor.shape[axis] < 2:
        return tensor
    if axis == 0:
        return tensor[torch.randperm(tensor.shape[0], generator=generator).to(tensor.device)]
    order = torch.rand(tensor.shape, generator=generator).argsort(axis)
    return alike(signed(tensor).gather(axis, order.to(tensor.device)), tensor)


def resized(tensor: torch.Tensor, sizes: dict[int, int]) -> torch.Tensor:
    """The tensor with some axes cut off or repeated to the given sizes."""
    for axis, size in sizes.items():
        if tensor.shape[axis] not in (0, size):
            index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
            tensor = selected(tensor, axis, index)
    return tensor
