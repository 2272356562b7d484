"""Schedules that go on over the groups of an optimizer that has grown in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedules

from graphclone.api import clone
from graphclone.errors import GraphcloneError
from graphclone.optimizers.optimizers import grow_in_place
from graphclone.optimizers.schedules import check_schedule, regroup

Make = Callable[[torch.optim.Optimizer], Any]


def _chained(optimizer: torch.optim.Optimizer) -> Any:
    parts = [schedules.ConstantLR(optimizer, 0.5, 4), schedules.MultiplicativeLR(optimizer, lambda _: 0.9)]
    return schedules.ChainedScheduler(parts)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: schedules.LambdaLR(o, [lambda step: 1 / (step + 1), lambda step: 0.5**step]),
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o, 0.1, 1.0, 3), schedules.CosineAnnealingLR(o, 9)], [3]
        ),
        lambda o: schedules.StepLR(o, 2, 0.5),
        _chained,
    ],
)
def test_every_group_keeps_its_part_of_the_rate(make: Make) -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)).double()
    made = clone(module, (torch.randn(3, 6, dtype=torch.float64),), widen=2)

    def started() -> tuple[torch.optim.Optimizer, Any]:
        groups = [{"params": [module[0].weight, module[2].weight]}, {"params": [module[0].bias], "lr": 0.5}]
        optimizer = torch.optim.AdamW(groups, lr=1.0)
        schedule = make(optimizer)
        for _ in range(2):
            optimizer.step()
            schedule.step()
        return optimizer, schedule

    (plain, expected), (optimizer, schedule) = started(), started()
    check_schedule(schedule)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    grown = grow_in_place(made.parameters, optimizer, names, made.module(), rule="function", inexact="refuse")
    regroup(schedule, grown)
    assert grown.origins == [0, 0, 1] and grown.rates == [1.0, 0.5, 1.0]
    for _ in range(7):
        for one, other in ((plain, expected), (optimizer, schedule)):
            one.step()
            other.step()
        rates = [plain.param_groups[origin]["lr"] for origin in grown.origins]
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([rate * part for rate, part in zip(rates, grown.rates, strict=True)], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (schedules.ReduceLROnPlateau, "ReduceLROnPlateau: does not multiply the rate of each group"),
        (lambda o: schedules.OneCycleLR(o, 1.0, 9), "OneCycleLR: does not multiply"),
        (lambda o: schedules.SequentialLR(
            o, [schedules.ConstantLR(o), schedules.CosineAnnealingLR(o, 9, eta_min=0.1)], [3]
        ), "CosineAnnealingLR: does not multiply"),
    ],
)  # fmt: skip
def test_a_schedule_that_sets_rates_is_refused_however_deep_it_lies(make: Make, text: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=1.0)
    with pytest.raises(GraphcloneError, match=text):
        check_schedule(make(optimizer))
