"""What code says besides what it computes: where there is no gradient, and where there is no autocast."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.reader import trace_module
from graphclone.formats.torch.stored_graph import restored, stored
from tests.support.clones import features


class Two(nn.Module):
    def __init__(self, function: Callable[[Two, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.beside, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.shown, self.function = self.up.weight.data, function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.function(self, x))
        return y


def teacher(model: Two, x: Tensor) -> Tensor:
    with torch.no_grad():
        target, other = model.beside(x).tanh(), model.beside(x).sin()
    return model.up(x) * target + other


def stopped(model: Two, x: Tensor) -> Tensor:
    @torch.no_grad()  # type: ignore[untyped-decorator]
    def scaled() -> Tensor:
        weight: Tensor = model.up.weight / model.up.weight.norm(dim=1, keepdim=True)
        return weight

    return F.linear(x, scaled(), model.up.bias)


FUNCTIONS: dict[str, Callable[[Two, Tensor], Tensor]] = {
    "a branch without gradient": teacher,
    "a weight without gradient": stopped,
    "data of a result": lambda m, x: m.up(x) * torch.sigmoid(m.up(x).data),
    "data of a weight": lambda m, x: F.linear(x, m.up.weight.data, m.up.bias),
    "data of an input": lambda m, x: m.up(x.data).tanh(),
    "a straight-through estimator": lambda m, x: m.up(x) + (m.up(x).round() - m.up(x)).data,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_has_no_gradient_gets_none(name: str) -> None:
    model, x = Two(FUNCTIONS[name]).eval(), features(3, 6)
    wide = gc.clone(model, (x,), strategy="symmetric").module()
    other = features(5, 6)
    torch.testing.assert_close(wide(other), model(other))
    for module in (model, wide):
        module(other).sum().backward()
    expected = {key: parameter.grad is None for key, parameter in model.named_parameters()}
    assert {key: parameter.grad is None for key, parameter in wide.named_parameters()} == expected
    assert wide.down.weight.shape == (3, 16)


def test_a_buffer_that_is_updated_without_gradient_has_none() -> None:
    class Averaging(Two):
        def forward(self, x: Tensor) -> Tensor:
            h = self.up(x)
            with torch.no_grad():
                self.mean.mul_(0.9).add_(0.1 * h.mean(0))  # type: ignore[operator, union-attr]
            y: Tensor = self.down(torch.tanh(h - self.mean))
            return y

    model, x = Averaging(teacher).eval(), features(3, 6)
    model.register_buffer("mean", torch.zeros(8))
    wide = gc.clone(model, (x,), strategy="symmetric").module()
    for _ in range(3):
        torch.testing.assert_close(wide(x), model(x))
    wide(x).sum().backward()
    assert not wide.get_buffer("mean").requires_grad


def test_an_attribute_that_shows_a_weight_is_no_entry_of_the_state_dict() -> None:
    model, x = Two(lambda m, x: F.linear(x, m.shown) + m.up(x)).eval(), features(3, 6)
    clone = gc.clone(model, (x,))
    wide = clone.module()
    torch.testing.assert_close(wide(x), model(x))
    assert clone.state_dict().keys() == wide.state_dict().keys() == model.state_dict().keys()


class Uncast(Two):
    """What is computed in full precision, whatever surrounds the call."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            angles = torch.cat([x @ x.mT] * 2, -1)
        y: Tensor = self.down(self.up(x) * torch.cos(100 * angles).mean(-1, keepdim=True))
        return y


@pytest.mark.parametrize("kept", [False, True])
def test_a_region_without_autocast_has_none(kept: bool) -> None:
    model, x = Uncast(lambda m, x: x).eval(), features(3, 6)
    clone = gc.clone(model, (x,), strategy="symmetric")
    if kept:
        graph = trace_module(model, (x,))
        again = restored(stored(graph), "again")
        assert [node.region for node in again.nodes] == [node.region for node in graph.nodes]
        assert any(node.region for node in graph.nodes)
    wide = clone.module()
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results = wide(x), model(x)
    errors = [float((result.float() - exact).norm() / exact.norm()) for result in results]
    assert errors[0] == pytest.approx(errors[1], rel=0.5)
    assert clone.verify(onnx=True).ok


class Spike(torch.autograd.Function):
    """A step, with the slope of something else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] / (1 + x.abs()) ** 2


def test_gradients_of_ones_own_are_noted() -> None:
    spiking: Callable[[Tensor], Tensor] = Spike.apply
    clone = gc.clone(Two(lambda m, x: spiking(m.up(x))).eval(), (features(3, 6),))
    assert any("Spike" in note for note in clone.graph.notes)
    assert not any("Spike" in note for note in gc.clone(Two(teacher).eval(), (features(3, 6),)).graph.notes)
    assert Spike.forward.__name__ == "forward"


class Passing:
    """The forward of a function, for one that inherits it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1.0


class Reversed(Passing, torch.autograd.Function):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def test_gradients_of_functions_made_late_and_inherited_are_noted() -> None:
    def late(m: Two, x: Tensor) -> Tensor:
        made: Any = type("Late", (Reversed,), {})
        return made.apply(m.up(x))

    inherited: Callable[[Two, Tensor], Tensor] = lambda m, x: Reversed.apply(m.up(x))  # noqa: E731
    for function, name in ((late, "Late"), (inherited, "Reversed")):
        (note,) = gc.clone(Two(function).eval(), (features(3, 6),)).graph.notes
        assert note == f"gradients are those of what is computed, without {name}"


def test_what_the_strict_mode_of_torch_cuts_off_is_noted() -> None:
    """Code that makes a number of a size is traced by it; it inlines a function without its gradient."""

    def inferred(m: Two, x: Tensor) -> Tensor:
        with torch.inference_mode():
            mean = m.beside(x).mean()
        return m.up(x) * mean.clone()

    reverse: Callable[[Two, Tensor], Tensor] = lambda m, x: Reversed.apply(m.up(x))  # noqa: E731
    for function, name in ((reverse, "Reversed (none pass through it)"), (inferred, "torch.inference_mode")):
        counted = Two(lambda m, x, function=function: function(m, x) * len(x)).eval()  # type: ignore[misc]
        notes = gc.clone(counted, (features(3, 6),)).graph.notes
        assert f"gradients are those of what is computed, without {name}" in notes


def test_hooks_on_results_and_on_gathered_gradients_are_noted() -> None:
    def halved(m: Two, x: Tensor) -> Tensor:
        h: Tensor = m.up(x)
        h.register_hook(lambda gradient: gradient / 2)
        return h

    (note,) = gc.clone(Two(halved).eval(), (features(3, 6),)).graph.notes
    assert note.endswith("without a hook of a result")
    model = Two(teacher).eval()
    model.up.weight.register_post_accumulate_grad_hook(lambda weight: None)
    assert any("a hook of up.weight" in note for note in gc.clone(model, (features(3, 6),)).graph.notes)


def test_hooks_on_gradients_are_noted() -> None:
    model = Two(teacher).eval()
    model.up.register_full_backward_hook(lambda module, given, taken: None)
    assert any("a hook of up" in note for note in gc.clone(model, (features(3, 6),)).graph.notes)


TRANSFORMS: dict[str, Callable[[Two, Tensor], Tensor]] = {
    "vmap": lambda model, x: torch.vmap(lambda row: model.up(row).tanh())(x),
    "jvp": lambda model, x: torch.func.jvp(lambda y: model.up(y).tanh(), (x,), (2 * x,))[1],
}


@pytest.mark.parametrize("what", TRANSFORMS)
def test_transforms_of_functions_are_what_they_compute(what: str) -> None:
    model, x = Two(TRANSFORMS[what]).eval(), features(3, 6)
    clone = gc.clone(model, (x,), widen=2)
    assert clone.verify(onnx=False).ok
    wide, other = clone.module(), features(3, 6) * 2
    torch.testing.assert_close(wide(other), model(other))


KEPT: dict[str, tuple[Callable[[Two, Tensor], Tensor], list[str]]] = {
    "random": (lambda model, x: model.up(x) * random.random(), ["numbers drawn by random"]),
    "numpy": (lambda model, x: model.up(x) * np.random.rand(), ["numbers drawn by numpy.random"]),  # noqa: NPY002
    "whether gradients are wanted": (
        lambda model, x: model.up(x) * (1 + x.requires_grad),
        ["whether a tensor requires gradients in test_modes.py:"],
    ),
    "a size as text": (lambda model, x: model.up(x) * len(f"{x.shape[0]}"), ["the text of a size in test_modes.py:"]),
    "a fixed size as text": (lambda model, x: model.up(x) * len(f"{x.shape[1]}"), []),
    "torch": (lambda model, x: model.up(x) * torch.rand(()), []),
}


@pytest.mark.parametrize("what", KEPT)
def test_a_note_says_what_is_constant_as_it_was_in_one_run(what: str) -> None:
    function, kept = KEPT[what]
    notes = [note for note in trace_module(Two(function).eval(), (features(3, 6),)).notes if "constant" in note]
    assert len(notes) == len(kept)
    assert all(
        note.startswith(f"is constant, as it was in one run: {text}") for note, text in zip(notes, kept, strict=True)
    )


def test_weights_without_a_shape_are_refused() -> None:
    with pytest.raises(GraphcloneError, match="Sequential: has weights of no shape yet"):
        gc.clone(nn.Sequential(nn.LazyLinear(3)), (features(3, 6),))
