"""What a module does in one run: the notes of two runs are equal only if they compute the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.formats.huggingface.operations import Recorder, Run

Forward = Callable[["Layers", Tensor], Tensor]


class Layers(nn.Module):
    """Two weights of one shape, and a table that is real among them."""

    def __init__(self, forward: Forward, table: float) -> None:
        super().__init__()
        with FakeTensorMode():
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.table = torch.full((4,), table)
        self.does = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.does(self, x)


def run(forward: Forward, table: float = 1.0) -> Run:
    module = Layers(forward, table)
    mode = module.a.weight.fake_mode
    recorder = Recorder(dict(module.named_parameters()))
    mode.allow_non_fake_inputs = True
    with torch.no_grad(), mode, recorder:
        module(torch.ones(2, 4))
    return recorder.run()


def plain(m: Layers, x: Tensor) -> Tensor:
    return m.b(m.a(x) * m.table).clamp(max=3.0)


def test_a_run_repeats_itself() -> None:
    assert run(plain) == run(plain) and run(plain).whole


@pytest.mark.parametrize(
    "other",
    [
        lambda m, x: m.a(m.b(x) * m.table).clamp(max=3.0),
        lambda m, x: m.b(m.a(x) * m.table).clamp(max=4.0),
        lambda m, x: m.b(m.a(x) * m.table).clamp(min=3.0),
        lambda m, x: m.b(m.a(x) * m.a.bias).clamp(max=3.0),
        lambda m, x: m.b(m.table * m.a(x)).clamp(max=3.0),
        lambda m, x: m.b(m.a(x + 0) * m.table).clamp(max=3.0),
    ],
)
def test_another_weight_number_or_order_is_noted(other: Forward) -> None:
    assert run(other).whole != run(plain).whole


def test_other_data_of_a_table_is_noted() -> None:
    assert run(plain, table=2.0).whole != run(plain).whole


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (lambda m, x: m.b(m.a(x) * (m.table * 2)).clamp(max=3.0), False),
        (lambda m, x: m.b(m.a(x) * m.table).clamp(max=4.0), False),
        (lambda m, x: m.a(m.a(x) * m.table).clamp(max=3.0), True),
        (lambda m, x: m.b(m.a(x) * m.table).view(4, 2).clamp(max=3.0), True),
    ],
)
def test_what_weights_do_is_told_apart_from_constants(other: Forward, expected: bool) -> None:
    assert (run(plain).weights != run(other).weights) is expected


def test_what_comes_from_nowhere_equals_nothing() -> None:
    with FakeTensorMode():
        stranger = torch.ones(4)
    assert not run(lambda m, x: m.b(m.a(x) * stranger)).whole
