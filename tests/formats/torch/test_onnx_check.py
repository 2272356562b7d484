"""ONNX Runtime as a judge of clones: the file that is named, and nothing else, is run."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from torch import Tensor, nn

from graphclone.errors import CannotJudgeError, GraphcloneError
from graphclone.formats.torch import onnx_check
from graphclone.verification.checks import Check, Report
from tests.support.clones import features, perceptron, seeded, spoilable


def failed(report: Report) -> Check:
    """The check that failed."""
    (check,) = [check for check in report.checks if check.ok is False]
    return check


def test_a_factor_in_float64_keeps_its_precision_in_onnx_runtime() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.out(self.inner(x) * 8**0.5)
            return y

    assert spoilable(seeded(Scaled).double(), features(3, 6).double()).verify().ok


def test_a_spoiled_file_is_caught(tmp_path: Path) -> None:
    made = perceptron()
    made.save_onnx(tmp_path / "wide.onnx")
    assert made.verify(onnx=tmp_path / "wide.onnx").ok
    spoil(tmp_path / "wide.onnx", "3.weight")
    report = made.verify(onnx=tmp_path / "wide.onnx")
    assert failed(report).name == "ONNX Runtime"
    assert report.first is not None
    assert report.first.value == "output"
    assert "times the source's own" in str(report)


def spoil(path: Path, name: str) -> None:
    """Change one element of one weight in an ONNX file."""
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[array.size // 2] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, path)


def test_the_file_that_is_named_is_the_one_that_is_checked(tmp_path: Path) -> None:
    made, file = perceptron(), tmp_path / "wide.onnx"
    with pytest.raises(GraphcloneError, match=r"wide\.onnx: no such file"):
        made.verify(onnx=str(file))
    made.save_onnx(file)
    assert made.verify(onnx=str(file)).ok
    spoil(file, "3.weight")
    assert failed(made.verify(onnx=str(file))).name == "ONNX Runtime"
    file.write_bytes(b"no model")
    assert "cannot load it" in failed(made.verify(onnx=file)).summary


def test_an_export_that_computes_something_else_leaves_the_verdict_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models are exported by the same code: a fault of the exporter would be in both, and the clone be right."""
    write_model = onnx_check.write_model

    def spoiling(model: object, path: Path) -> None:
        write_model(model, path)  # type: ignore[arg-type]
        spoil(path, "3.weight")

    monkeypatch.setattr(onnx_check, "write_model", spoiling)
    report = perceptron().verify()
    assert (report.ok, report.verdict) == (False, "cannot be judged")
    assert [check.ok for check in report.checks] == [True, True, True, True, None]
    message = r"^small: whether the clone is equivalent cannot be judged: ONNX Runtime: the export of the source itself"
    with pytest.raises(CannotJudgeError, match=message):
        report.raise_if_failed()
