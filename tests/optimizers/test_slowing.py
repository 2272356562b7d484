"""What a clone has from its source learns at a part of the rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphclone as gc
from graphclone.errors import GraphcloneError
from tests.support.study_models import tiny


def test_copies_move_a_part_of_each_step_and_new_entries_all_of_it() -> None:
    torch.manual_seed(0)
    model, inputs = tiny(1)
    clone = gc.clone(model.eval(), inputs, widen="3/2", strategy="fresh")
    tokens = torch.randint(0, 256, (4, 9))
    moved: list[dict[str, torch.Tensor]] = []
    for factor in (1.0, 0.25, 0.0):
        wide = clone.module()
        before = {name: parameter.detach().clone() for name, parameter in wide.named_parameters()}
        optimizer = torch.optim.AdamW(wide.parameters(), lr=1e-2)
        gc.slow_copies(clone, optimizer, wide, factor)
        wide(tokens).logsumexp(-1).mean().backward()
        optimizer.step()
        moved.append({name: parameter.detach() - before[name] for name, parameter in wide.named_parameters()})
    whole, quarter, none = moved
    corners = {"embed.weight": (256, 12), "up.weight": (20, 12), "up.bias": (20,), "head.weight": (256, 12)}
    for name, corner in corners.items():
        old = torch.zeros_like(whole[name], dtype=torch.bool)
        old[tuple(slice(size) for size in corner)] = True
        assert not old.all()
        assert whole[name][old].abs().max() > 1e-3
        torch.testing.assert_close(quarter[name][old], whole[name][old] / 4, rtol=1e-4, atol=1e-6)
        assert not none[name][old].any()
        for other in (quarter, none):
            assert torch.equal(other[name][~old], whole[name][~old])


@pytest.mark.parametrize(
    ("strategy", "widen", "factor", "message"),
    [
        ("fresh", 2, 1.5, "factor=1.5: give one from 0 to 1"),
        ("diagonal", 2, 0.5, "only a clone by strategy='fresh' has parts that are new"),
        ("fresh", 3, 0.5, "the module is not Tiny as it was widened"),
    ],
)
def test_what_means_nothing_is_refused(strategy: str, widen: Any, factor: float, message: str) -> None:
    model, inputs = tiny(1)
    clone = gc.clone(model.eval(), inputs, widen=widen, strategy=strategy)
    wide = gc.clone(model, inputs, widen=2, strategy=strategy).module()
    optimizer = torch.optim.AdamW(wide.parameters())
    with pytest.raises(GraphcloneError, match=message):
        gc.slow_copies(clone, optimizer, wide, factor)
