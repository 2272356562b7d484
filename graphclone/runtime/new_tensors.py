"""The data of new parameters, made when they are read: one number throughout, or random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from graphclone.algebra.recipes import noise_seed
from graphclone.graph.ir import Stored


@dataclass(frozen=True)
class NewTensor:
    """A tensor like one of the source, which is read for no more than it takes.

    Attributes:
        like: a tensor, or where one is stored.
    """

    like: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.like.shape)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.like.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        return getattr(self.like, "device", torch.device("cpu"))

    @property
    def requires_grad(self) -> bool:
        return getattr(self.like, "requires_grad", True)


@dataclass(frozen=True)
class Filled(NewTensor):
    """One number throughout."""

    number: float

    def read(self) -> torch.Tensor:
        if isinstance(self.like, torch.Tensor):
            return torch.full_like(self.like, self.number, requires_grad=False)
        return torch.full(self.shape, self.number, dtype=self.dtype)


@dataclass(frozen=True)
class Drawn(NewTensor):
    """Normal numbers of the mean and the spread of the source's, always the same ones for a name and a seed."""

    name: str
    seed: int

    def read(self) -> torch.Tensor:
        source = (self.like.read() if isinstance(self.like, Stored) else self.like).detach()
        noise = torch.empty(self.shape, dtype=torch.float32)
        noise.normal_(generator=torch.Generator().manual_seed(noise_seed(self.seed, self.name)))
        spread = float(source.double().std(correction=0)) if source.numel() else 0.0
        return noise.mul_(spread).add_(float(source.double().mean()) if source.numel() else 0.0).to(source)


def original(tensor: Any) -> Any:
    """The tensor of the source that a new one is like; any other is itself."""
    return tensor.like if isinstance(tensor, NewTensor) else tensor


def made(tensor: Any) -> tuple[Any, ...]:
    """The key that tells a new tensor from others like the same one; empty for a tensor of the source."""
    if isinstance(tensor, Filled):
        return ("filled", tensor.number)
    return ("drawn", tensor.name, tensor.seed) if isinstance(tensor, Drawn) else ()
