"""What is said of weights in the metadata of written files, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.formats.onnx import format as onnx_format
from graphclone.formats.onnx.metadata import DIM, FACTOR, SOURCE
from graphclone.formats.torch import export_onnx


def _model() -> tuple[nn.Module, tuple[torch.Tensor]]:
    return nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 5)).eval(), (torch.ones(2, 6),)


@pytest.fixture
def clones(tmp_path: Path) -> dict[str, Clone]:
    """A clone of a module, and one of its file."""
    module, args = _model()
    gc.clone(module, args, widen=2).save(tmp_path / "source.onnx")
    return {"module": gc.clone(module, args, widen=2), "file": gc.clone(tmp_path / "source.onnx", widen=2)}


def _metadata(path: Path) -> dict[str, dict[str, str]]:
    tensors = onnx.load(path).graph.initializer
    return {tensor.name: {prop.key: prop.value for prop in tensor.metadata_props} for tensor in tensors}


def test_weights_say_what_they_were(clones: dict[str, Clone], tmp_path: Path) -> None:
    clones["module"].save(tmp_path / "wide.onnx")
    found = _metadata(tmp_path / "wide.onnx")
    assert found["0.weight"] == {DIM: "0=14x2, 6", SOURCE: "14x6", FACTOR: "2, 1"}
    assert found["2.weight"] == {DIM: "5, 0=14x2", SOURCE: "5x14", FACTOR: "1, 2"}
    assert found["2.bias"] == {}


def test_a_clone_of_a_clone_says_what_it_was_itself(clones: dict[str, Clone], tmp_path: Path) -> None:
    clones["file"].save(tmp_path / "wide.onnx")
    assert _metadata(tmp_path / "wide.onnx")["0.weight"][SOURCE] == "28x6"


def test_a_factor_that_is_no_whole_number(tmp_path: Path) -> None:
    module, args = _model()
    gc.clone(module, args, sizes={"0": 20}).save(tmp_path / "wide.onnx")
    assert _metadata(tmp_path / "wide.onnx")["0.weight"][FACTOR] == "14>20, 1"


@pytest.mark.parametrize("kind", ["module", "file"])
def test_nothing_else_changes(
    kind: str, clones: dict[str, Clone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clones[kind].save(tmp_path / "with.onnx")
    for module in (onnx_format, export_onnx):
        monkeypatch.setattr(module, "annotate", lambda model, state: None)
    clones[kind].save(tmp_path / "without.onnx")
    models = [onnx.load(tmp_path / name) for name in ("with.onnx", "without.onnx")]
    assert models[0] != models[1]
    for model in models:
        for tensor in model.graph.initializer:
            del tensor.metadata_props[:]
    assert models[0] == models[1]
