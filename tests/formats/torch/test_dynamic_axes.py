"""Axes of floats that the user lets vary: in the clone's module, its files and its verification."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.guards import InputError


class Sequence(nn.Module):
    """A convolution along a sequence of vectors, and attention over it."""

    def __init__(self) -> None:
        super().__init__()
        self.along, self.last = nn.Conv1d(5, 12, 3, padding=1), nn.Linear(12, 3)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h = self.along(x.transpose(1, 2)).relu().transpose(1, 2)
        return self.last(torch.softmax(h @ h.transpose(1, 2), -1) @ h) + shift


SHIFT = torch.randn(3)


def test_a_named_axis_varies_everywhere(tmp_path: Path) -> None:
    model, x, longer = Sequence().eval(), torch.randn(2, 9, 5), torch.randn(3, 14, 5)
    clone = gc.clone(model, (x, SHIFT), dynamic_axes={"x": [1]})
    (note,) = clone.graph.notes
    assert note.startswith("traced with static sizes: shift axis 0 = 3 (")
    torch.testing.assert_close(clone.module()(longer, SHIFT), model(longer, SHIFT))
    report = clone.verify()
    assert report.ok
    assert any(not inputs.startswith("2x9x5") for inputs in report.inputs)
    clone.save(tmp_path / "wide.pt2")
    program = torch.export.load(tmp_path / "wide.pt2").module()
    torch.testing.assert_close(program(longer, SHIFT), model(longer, SHIFT))
    clone.save(tmp_path / "wide.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "wide.onnx")
    (result,) = session.run(None, {"x": longer.numpy(), "shift": SHIFT.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), model(longer, SHIFT))


def test_a_refusal_says_how_an_axis_may_vary() -> None:
    wide = gc.clone(Sequence().eval(), (torch.randn(2, 9, 5), SHIFT)).module()
    with pytest.raises(InputError, match=r"axis 1 of x has 14 .* clone with dynamic_axes=\{'x': \[1\]\} for others"):
        wide(torch.randn(2, 14, 5), SHIFT)


def test_an_axis_that_cannot_vary_is_said_to_be_static() -> None:
    (note,) = gc.trace(Sequence().eval(), (torch.randn(2, 9, 5), SHIFT), dynamic_axes={"x": [2]}).graph.notes
    assert note.startswith("traced with static sizes: x axis 2 = 5, shift axis 0 = 3 (")


def test_pictures_of_other_sizes() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.AdaptiveAvgPool2d(1),
    ).eval()
    x, other = torch.randn(2, 3, 16, 16), torch.randn(1, 3, 21, 30)
    clone = gc.clone(model, (x,), dynamic_axes={"input": [2, 3]})
    torch.testing.assert_close(clone.module()(other), model(other))


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Sequence()

    def forward(self, batch: dict[str, list[Tensor]], **options: Tensor) -> Tensor:
        return self.inner(batch["x"][1], options["shift"]) + batch["x"][0].mean()


def test_names_lead_into_lists_and_dicts() -> None:
    model, x, longer = Nested().eval(), torch.randn(2, 9, 5), torch.randn(2, 14, 5)
    clone = gc.clone(model, ({"x": [x[:, 0], x]},), {"shift": SHIFT}, dynamic_axes={"batch_x_1": [1]})
    wide = clone.module()
    torch.testing.assert_close(
        wide({"x": [x[:, 0], longer]}, shift=SHIFT), model({"x": [x[:, 0], longer]}, shift=SHIFT)
    )
    with pytest.raises(GraphcloneError, match="there is no input 'x'; there are batch_x_0, batch_x_1, shift"):
        gc.trace(model, ({"x": [x[:, 0], x]},), {"shift": SHIFT}, dynamic_axes={"x": [1]})


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    model, x = Sequence().eval(), torch.randn(2, 9, 5)
    with pytest.raises(GraphcloneError, match="x has 3 axes, and none numbered 3"):
        gc.trace(model, (x, SHIFT), dynamic_axes={"x": [3]})
    with pytest.raises(GraphcloneError, match="is for modules"):
        gc.clone(tmp_path / "a.onnx", dynamic_axes={"x": [1]})
    with pytest.raises(GraphcloneError, match="the user's own"):
        gc.clone(model, (x, SHIFT), into=Sequence().eval(), dynamic_axes={"x": [1]})
    with pytest.raises(GraphcloneError, match="omit: what is left out is for Hugging Face checkpoints"):
        gc.clone(model, (x, SHIFT), omit=["last"])
