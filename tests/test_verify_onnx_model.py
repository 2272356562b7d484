"""Whether the clone of an ONNX file is judged by what was measured, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphclone import verify_onnx_model
from graphclone.checks import Report
from graphclone.cloning import clone
from tests.onnx_graphs import Weights, parse

LAYERS = """
    layers (float[n, 6] x) => (float[n, 5] y) {
        a = MatMul(x, up)
        b = Tanh(a)
        y = MatMul(b, down)
    }
"""
LAYERS_WEIGHTS = {"up": (6, 10), "down": (10, 5)}


def verified(folder: Path, text: str, weights: Weights, opset: int = 17) -> Report:
    """The report on the clone of a model of that text, written to a file."""
    path = folder / "model.onnx"
    onnx.save(parse(text, weights, opset=opset), path)
    return clone(path).verify(provider="cpu")


def said(report: Report) -> dict[str, bool | None]:
    """The verdict of every check."""
    return {check.name: check.ok for check in report.checks}


def test_a_reference_that_computes_something_else_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error on the source would be the measure of the clone's; without it rounding is."""
    true = verify_onnx_model._truth
    monkeypatch.setattr(verify_onnx_model, "_truth", lambda *given: [truth * 1.001 for truth in true(*given)])
    report = verified(tmp_path, LAYERS, LAYERS_WEIGHTS)
    assert said(report) == {"static": True, "exact": None, "ONNX Runtime": True}
    exact, measured = report.checks[1:]
    assert "the reference does not compute what ONNX Runtime does with the source: y is" in exact.summary
    assert measured.worst is not None
    assert measured.worst.source < 1e-5
