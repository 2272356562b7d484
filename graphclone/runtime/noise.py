"""The random numbers that noise is made of."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from graphclone.algebra.recipes import Widening


def normal(recipe: Widening, along: int, start: int, noise: Tensor) -> Tensor:
    """Normal numbers that are independent, or of a low rank: the sum of so many products of two independent ones."""
    generator, rank = chunk_generator(recipe, start), recipe.strategy.rank
    if rank is None:
        return noise.normal_(generator=generator)
    shared = chunk_generator(replace(recipe, name=f"{recipe.name}[columns]"), 0)
    noise.zero_()
    for _ in range(rank):  # product by product: a matrix product is not rounded alike by every number of threads
        column = torch.empty([noise.shape[along], *[1] * (noise.dim() - 1)], dtype=noise.dtype)
        row = torch.empty([1 if a == along else size for a, size in enumerate(noise.shape)], dtype=noise.dtype)
        noise.addcmul_(column.normal_(generator=generator).movedim(0, along), row.normal_(generator=shared))
    return noise.div_(math.sqrt(rank))


def chunk_generator(recipe: Widening, start: int) -> torch.Generator:
    """The generator of one chunk, whatever was drawn before it, so that any part can be made anywhere."""
    return torch.Generator().manual_seed(recipe.noise_seed + start)
