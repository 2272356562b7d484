"""Flex attention: a clone applies what the model makes of scores, and their masks, at every length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

import graphclone as gc
from graphclone.runtime.sessions import Session
from tests.support.clones import seeded

_compiled = torch.compile(flex_attention, backend="eager")


class Attends(nn.Module):
    """Two queries for each key."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.q, self.k, self.v = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 8), nn.Linear(16, 8)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 20)
        self.slopes, self.near = nn.Parameter(torch.rand(4)), nn.Parameter(torch.randn(4, 63))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return q, k, v

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        y: Tensor = self.head(x + self.out(self.attended(*self.heads(x), tokens).transpose(1, 2).flatten(2)))
        return y

    def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        del tokens
        return flex_attention(q, k, v, enable_gqa=True)


class Capped(Attends):
    """Scores are bounded, and fall with the distance, in each head by another slope."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        del tokens

        def score(score: Tensor, _: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return 7 * torch.tanh(score / 7) - self.slopes[head] * (query - key).abs()

        return flex_attention(q, k, v, score, enable_gqa=True, scale=0.4)


class Near(Attends):
    """A table of distances, indexed one axis after the other."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        del tokens
        return flex_attention(q, k, v, lambda score, b, h, i, j: score + self.near[h][i - j + 31], enable_gqa=True)


class Padded(Attends):
    """Causal, and 0 is no token; a row of paddings attends to nothing."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        mask = create_block_mask(
            lambda b, h, i, j: (i >= j) & (tokens[b, j] != 0), batch, None, length, length, device="cpu"
        )
        return _compiled(q, k, v, block_mask=mask, enable_gqa=True)  # type: ignore[no-any-return]


class Summed(Attends):
    """The sum of scores is returned besides."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
        del tokens
        out, sums = flex_attention(q, k, v, enable_gqa=True, return_aux=AuxRequest(lse=True))
        return out * torch.sigmoid(sums.lse)[..., None]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"widen": 2}) for kind in (Capped, Near, Padded)),
        *(pytest.param(kind, {"widen": 2}, marks=pytest.mark.slow) for kind in (Attends, Summed)),
        pytest.param(Capped, {"widen": 3, "strategy": "orthogonal"}, marks=pytest.mark.slow),
    ],
)
def test_a_clone_attends_as_the_model_does(kind: type[Attends], options: dict[str, Any], tmp_path: Path) -> None:
    module, tokens = seeded(kind).double(), torch.arange(14).view(2, 7) % 11
    clone = gc.clone(module, (tokens,), **options)
    assert clone.state_dict()["out.weight"].shape == (16 * options["widen"],) * 2
    others = [tokens, torch.randint(0, 20, (3, 17)), torch.zeros(1, 5, dtype=torch.long), tokens[:1, :1]]
    clone.save(tmp_path / "wide.onnx")
    if kind is not Near:  # whose table is too short
        others.append(torch.randint(0, 20, (1, 150)))  # longer than a block of the mask
    wide, session = clone.module(), Session(tmp_path / "wide.onnx")
    for given in others:
        with torch.no_grad():
            wanted = module(given)
            torch.testing.assert_close(wide(given), wanted, rtol=0, atol=1e-12)
        np.testing.assert_allclose(*session.run({"tokens": given.numpy()}).values(), wanted, rtol=0, atol=1e-6)


def test_under_autocast_operands_are_rounded_and_scores_are_not() -> None:
    class Mixed(Attends):
        def attended(self, q: Tensor, k: Tensor, v: Tensor, tokens: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().attended(q, k, v, tokens).to(q.dtype)

    module, tokens = seeded(Mixed), torch.arange(14).view(2, 7) % 11
    wide = gc.clone(module, (tokens,), widen=2).module()
    with torch.no_grad():
        for given in (tokens, torch.randint(0, 20, (3, 9))):
            torch.testing.assert_close(wide(given), module(given), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "pinned"), [(Attends, False), (Padded, False), (Capped, True), (Near, True)])
def test_heads_grow_unless_a_function_of_scores_asks_for_theirs(kind: type[Attends], pinned: bool) -> None:
    """The four heads are two for each of the two keys, which may grow by themselves."""
    dims = gc.trace(seeded(kind), (torch.arange(14).view(2, 7),)).dims
    free = {group.size for group in dims if group.pin is None}
    assert free == ({16, 4} if pinned else {16, 4, 2})
