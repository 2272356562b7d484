"""What models are verified on: inputs like the examples, in other sizes where sizes are free."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.input_sets import candidates
from graphclone.runtime.drawing import drawn_like
from tests.support.clones import features, spoilable, zoo_clone


@pytest.mark.parametrize("sizes", [{0: 5, 1: 7}, {0: 1, 1: 2}, {}], ids=str)
def test_integers_are_rearranged_examples(sizes: dict[int, int]) -> None:
    ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    drawn = drawn_like(ids, sizes, torch.Generator().manual_seed(0))
    assert drawn.shape == (sizes.get(0, 2), sizes.get(1, 3))
    assert drawn.dtype == ids.dtype
    assert set(drawn.flatten().tolist()) <= {1, 3, 4, 5, 9}


def test_masks_stay_masks_and_floats_are_drawn_like_the_example() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.tensor([[0.0, -math.inf, 0.0], [0.0, 0.0, -math.inf]])
    drawn = drawn_like(mask, {0: 4}, generator)
    assert all(sorted(row.tolist()) == [-math.inf, 0.0, 0.0] for row in drawn)
    image = features(2, 3, 30, 30).half() * 5 + 100
    drawn = drawn_like(image, {0: 9}, generator)
    assert drawn.shape == (9, 3, 30, 30)
    assert drawn.dtype == torch.float16
    assert abs(float(drawn.float().mean()) - 100) < 1
    assert abs(float(drawn.float().std()) - 5) < 0.5


def test_equal_sizes_change_together_and_fixed_ones_stay() -> None:
    made = zoo_clone("bert-classifier")
    examples = [torch.full((2, 7), 3)] * 3
    sets = list(candidates(made.graph, examples, 1, seed=4))
    assert [each.shapes for each in sets] == [((4, 10),) * 3, ((2, 7),) * 3]
    assert str(sets[0]) == "4x10, 4x10, 4x10 (seed 4)"
    smaller = list(candidates(made.graph, examples, 2, seed=4))
    assert [each.shapes[0] for each in smaller] == [(1, 4), (2, 4), (2, 7)]


def test_sizes_that_the_source_refuses_are_not_used() -> None:
    """Positions end at 8: a longer sequence is refused, a shorter one is not."""

    class Short(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(20, 10), nn.Embedding(8, 10)
            self.head = nn.Linear(10, 5)

        def forward(self, ids: Tensor) -> Tensor:
            y: Tensor = self.head(self.words(ids) + self.places(torch.arange(ids.shape[1])))
            return y

    report = spoilable(Short(), torch.arange(16).reshape(2, 8)).verify(onnx=False, sets=5)
    assert report.ok
    lengths = [int(text.split(" ")[0].split("x")[1]) for text in report.inputs]
    assert max(lengths) == 8
    assert min(lengths) < 8


def test_masks_that_hide_nothing_hide_something_in_one_set() -> None:
    """A trace may be wrong of what no example shows: padding, above all."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, tokens: Tensor, mask: Tensor, kinds: Tensor) -> Tensor:
            h = self.table(tokens) * mask[..., None]
            if not torch.compiler.is_exporting() and not bool(mask.all()):
                h = h * 2
            return self.last(h)

    tokens = torch.arange(10).view(2, 5)
    clone = gc.clone(Padded().eval(), (tokens, torch.ones(2, 5, dtype=torch.long), torch.zeros(2, 5, dtype=torch.long)))
    report = clone.verify(onnx=False)
    assert "(seed 1) the model computes something else" in str(report.checks[0])
