"""A clone has gradients where its source has them, whatever modes code turns on and off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import graphclone as gc
from tests.support.clones import features, seeded


class Rounded(torch.autograd.Function):
    """Rounds, and says that its gradient is that of its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.round(x * 4) / 4

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Parts(nn.Module):
    """(batch, 4) -> (batch, 3)"""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.inner, self.down = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def act(self, h: Tensor) -> Tensor:
        return torch.tanh(self.inner(h))

    def between(self, h: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.between(self.up(x)))


class Checkpointed(Parts):
    def between(self, h: Tensor) -> Tensor:
        return checkpoint(self.act, h, use_reentrant=True)  # type: ignore[no-any-return]


class CheckpointedAndScaled(Parts):
    def between(self, h: Tensor) -> Tensor:
        h = checkpoint(self.act, h, use_reentrant=True)
        with torch.no_grad():
            scale = h.abs().mean()
        return h / scale


class Frozen(Parts):
    def between(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            return h + self.act(h)


class Teacher(Parts):
    def between(self, h: Tensor) -> Tensor:
        with torch.inference_mode():
            target = self.act(h)
        return h + target.clone()


class RoundedInside(Parts):
    def between(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = self.inner(Rounded.apply(self.inner(h)))
        return h + hidden


MODELS = [Checkpointed, CheckpointedAndScaled, Frozen, Teacher, RoundedInside]


@pytest.mark.parametrize("around", [contextlib.nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("model", MODELS)
def test_a_clone_trains_what_its_source_trains(model: type[Parts], around: Callable[[], Any]) -> None:
    source = seeded(model).double()
    with around():
        clone = gc.clone(source, (features(5, 4).double(),), widen=2)
    ours, theirs = (gradients(module) for module in (clone.module(), source))
    assert ours[0] == theirs[0]
    assert ours[1] == pytest.approx(theirs[1], abs=1e-12)


def gradients(module: nn.Module) -> tuple[list[str], list[float]]:
    """The parameters that get a gradient, and the gradient of the input."""
    x = features(5, 4).double().requires_grad_()
    module(x).square().sum().backward()
    grad = [] if x.grad is None else x.grad.flatten().tolist()
    return sorted(name for name, p in module.named_parameters() if p.grad is not None), grad


def test_what_follows_a_function_of_its_own_has_gradients() -> None:
    """The function's own gradient is lost, which a note tells."""

    class Straight(Parts):
        def between(self, h: Tensor) -> Tensor:
            return self.act(Rounded.apply(h))

    clone = gc.clone(seeded(Straight), (features(5, 4),), widen=2)
    module = clone.module()
    module(features(5, 4)).sum().backward()
    assert module.get_parameter("inner.weight").grad is not None
    assert "gradients are those of what is computed, without Rounded" in clone.graph.notes
