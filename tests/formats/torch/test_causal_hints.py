"""Masks of torch's Transformer: a clone applies those it is given, causal ones or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from tests.support.clones import seeded

causal = nn.Transformer.generate_square_subsequent_mask


class Tokens(nn.Module):
    """Next tokens, with a mask that is given or made here."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = causal(tokens.shape[1]) if mask is None else mask
        y: Tensor = self.head(self.layers(self.table(tokens), mask=mask))
        return y


class Translated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(20, 16), nn.Linear(16, 20)
        self.both = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = causal(target.shape[1])
        y: Tensor = self.head(self.both(self.table(source), self.table(target), tgt_mask=mask))
        return y


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 20, shape)


@pytest.mark.parametrize(
    ("make", "example", "others"),
    [
        (Tokens, (ids(3, 5),), [(ids(2, 9),), (ids(1, 5),)]),
        (Tokens, (ids(3, 5), causal(5)), [(ids(2, 9), causal(9)), (ids(2, 5), torch.randn(5, 5))]),
        (Translated, (ids(3, 5), ids(3, 7)), [(ids(2, 6), ids(2, 4))]),
    ],
)
def test_a_mask_is_applied_as_it_is(make: type[nn.Module], example: tuple[Tensor], others: list[tuple[Tensor]]) -> None:
    model: nn.Module = seeded(make).eval()
    clone = gc.clone(model, example, widen=2)
    assert clone.verify().ok
    wide = clone.module()
    assert wide.get_parameter("head.weight").shape == (20, 32)
    for inputs in (example, *others):
        torch.testing.assert_close(wide(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
