"""What is done to a caller's modules and generators is undone."""

from __future__ import annotations

import copy
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.untouched import untouched
from tests.support.clones import features, seeded


class Busy(nn.Module):
    """Writes to everything a module has, and draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.drop = nn.Linear(6, 10), nn.Linear(10, 5), nn.Dropout(0.5)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(10))
        self.seen: list[int] = []
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.up(x))
        self.steps += 1
        self.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
        y: Tensor = self.down(h * (1 + self.mean) + self.steps)
        return y


def state_of(module: nn.Module) -> list[Any]:
    return [
        {name: tensor.clone() for name, tensor in module.state_dict().items()},
        [part.training for part in module.modules()],
        [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        list(module.seen),  # type: ignore[arg-type]
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state(),  # noqa: NPY002
    ]


def assert_same(a: Any, b: Any) -> None:
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=0)
    assert a[1] == b[1]
    torch.testing.assert_close([g for g in a[2] if g is not None], [g for g in b[2] if g is not None], rtol=0, atol=0)
    assert a[3] == b[3]
    assert torch.equal(a[4], b[4])
    assert a[5] == b[5]
    assert all(np.array_equal(x, y) for x, y in zip(a[6], b[6], strict=True))


@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: gc.trace(model, (x,)),
        lambda model, x: gc.clone(model, (x,)),
        lambda model, x: gc.clone(model, (x,)).verify(),
        lambda model, x: gc.clone(model, (x,)).module()(x),
    ],
    ids=["trace", "clone", "verify", "module"],
)
def test_the_model_and_the_random_state_are_as_before(use: Callable[[nn.Module, Tensor], Any]) -> None:
    model, x = seeded(Busy).eval(), features(3, 6)
    model(x).sum().backward()
    model.drop.train()
    before = state_of(model)
    use(model, x)
    assert_same(before, state_of(model))


def test_what_a_block_does_is_undone() -> None:
    model = seeded(Busy)
    model.generator = torch.Generator().manual_seed(5)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(5))
    before = state_of(model)
    with untouched(model):
        model(features(3, 6)).sum().backward()
        model.eval()
        model.seen.append(3)
        model.last = torch.zeros(3)
        model.extra = 1
        torch.rand(3, generator=model.generator)
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert_same(before, state_of(model))
    assert model.last is None
    assert not hasattr(model, "extra")
    assert torch.equal(torch.rand(3, generator=model.generator), expected)


def test_hooks_that_the_first_call_installs_are_taken_off_again() -> None:
    """A flag that says they are there goes, too, so that the next call would install them once more."""

    class Recording(nn.Sequential):
        hooked = False

        def forward(self, x: Tensor) -> Tensor:
            recorded: list[Tensor] = []
            self.recorded = recorded
            if not self.hooked:
                for part in self:
                    part.register_forward_hook(lambda _, __, output: self.recorded.append(output))
                self.hooked = True
            super().forward(x)
            return torch.stack([part.mean(-1) for part in recorded], -1)

    model, x = seeded(lambda: Recording(nn.Linear(6, 10), nn.Linear(10, 5))).eval(), features(3, 6)
    clone = gc.clone(model, (x,))
    assert clone.verify(onnx=False).ok
    assert model(x).shape == (3, 2)
    torch.testing.assert_close(clone.module()(x), model(x))


@pytest.mark.parametrize("make", [list, dict, set, OrderedDict, partial(defaultdict, int), Counter, deque])
def test_a_container_holds_what_it_held(make: Callable[..., Any]) -> None:
    model = seeded(Busy)
    model.held = make([(2, 3)])
    held, before = model.held, copy.copy(model.held)
    with untouched(model):
        model.held.clear()
        model.held = None
    assert model.held is held
    assert held == before and type(held) is type(before)


def test_a_buffer_that_a_model_writes_is_written_by_its_clone_alike() -> None:
    model, x = seeded(Busy).eval(), features(3, 6)
    clone = gc.clone(model, (x,))
    assert clone.verify(onnx=False).ok
    wide = clone.module()
    for _ in range(3):
        torch.testing.assert_close(wide(x), model(x))


def test_a_buffer_that_is_written_and_returned_is_compared_as_it_was_returned() -> None:
    class Returning(Busy):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), self.steps

    model = seeded(Returning).eval()
    report = gc.clone(model, (features(3, 6),)).verify(onnx=False)
    assert report.ok, str(report)
    assert model.steps == 0
