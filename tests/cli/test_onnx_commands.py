"""The command line on ONNX files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphclone.cli.__main__ import main
from tests.support.command_line import Refused
from tests.support.onnx_graphs import parse, save, shapes

Capture = pytest.CaptureFixture[str]

MLP = """
    mlp (float[batch, 5] x) => (float[batch, 3] y) {
        [first] a = MatMul(x, up)
        [middle] b = Relu(a)
        y = MatMul(b, down)
    }
"""

CACHED = """
    cached (float[batch, 12] x, float[batch, 2, past, 3] past_key, float[batch, 2, past, 3] past_value)
        => (float[batch, 12] y, float[batch, 2, total, 3] present_key, float[batch, 2, total, 3] present_value) {
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        queries = Reshape(q, heads)
        keys = Reshape(k, heads)
        values = Reshape(v, heads)
        present_key = Concat<axis=2>(past_key, keys)
        present_value = Concat<axis=2>(past_value, values)
        turned = Transpose<perm=[0, 1, 3, 2]>(present_key)
        scores = MatMul(queries, turned)
        scaled = Mul(scores, scale)
        weights = Softmax<axis=-1>(scaled)
        z = MatMul(weights, present_value)
        joined = Reshape(z, whole)
        y = MatMul(joined, wo)
    }
"""
CACHED_WEIGHTS = {
    **dict.fromkeys(("wq", "wk", "wv"), (12, 6)),
    "wo": (6, 12),
    "heads": np.array([0, 2, 1, 3], np.int64),
    "whole": np.array([0, 6], np.int64),
    "scale": np.array(3**-0.5, np.float32),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(parse(MLP, {"up": (5, 8), "down": (8, 3)}), tmp_path / "mlp.onnx")
    save(parse(CACHED, CACHED_WEIGHTS), tmp_path / "cached.onnx")
    return tmp_path


def run_json(capfd: Capture, *argv: str) -> dict:
    capfd.readouterr()
    assert main([*argv, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_a_file_is_cloned_and_verified(capfd: Capture) -> None:
    found = run_json(capfd, "clone", "mlp.onnx", "-o", "wide.onnx", "--widen", "3", "--provider", "cpu")
    assert found["parameters"] == {"source": 64, "clone": 192}
    assert found["verification"]["ok"] is True
    assert [check["name"] for check in found["verification"]["checks"]] == ["static", "exact", "ONNX Runtime"]
    assert shapes(onnx.load("wide.onnx")) == {"up": (5, 24), "down": (24, 3)}
    assert main(["verify", "mlp.onnx", "wide.onnx", "--provider", "cpu"]) == 0


def test_inspect_names_nodes_as_they_are_in_the_file(capfd: Capture) -> None:
    found = run_json(capfd, "inspect", "cached.onnx")
    assert found["parameters"] == 288
    reasons = {row["pinned"] for row in found["dims"] if row["pinned"]}
    assert any("past_key" in reason or "present" in reason for reason in reasons)
    assert main(["inspect", "mlp.onnx", "--why", "up.in"]) == 0
    assert "first" in capfd.readouterr().out


def test_a_cache_grows_when_it_is_named(capfd: Capture) -> None:
    """Without its name only what the cache does not hold could grow, which here is nothing."""
    assert main(["clone", "cached.onnx", "-o", "wide.onnx"]) == 2
    assert "--widen-io" in capfd.readouterr().err
    argv = ("clone", "cached.onnx", "-o", "wide.onnx", "--widen-io", "past_*,present_*", "--provider", "cpu")
    assert run_json(capfd, *argv)["verification"]["ok"] is True
    assert shapes(onnx.load("wide.onnx"))["wq"] == (12, 12)
    sizes = [d.dim_value or d.dim_param for d in onnx.load("wide.onnx").graph.input[1].type.tensor_type.shape.dim]
    assert sizes == ["batch", 4, "past", 3]


def test_a_file_is_no_torch_program(capfd: Capture) -> None:
    assert main(["clone", "mlp.onnx", "-o", "wide.pt2"]) == 2
    assert "wide.pt2: mlp.onnx can be written as .onnx or .safetensors only" in capfd.readouterr().err


def test_the_source_is_not_overwritten(folder: Path, capfd: Capture) -> None:
    before = (folder / "mlp.onnx").read_bytes()
    assert main(["clone", "mlp.onnx", "-o", "mlp.onnx", "--force"]) == 2
    assert "mlp.onnx: is the source; write the clone elsewhere" in capfd.readouterr().err
    assert (folder / "mlp.onnx").read_bytes() == before


def test_a_clone_that_is_not_equivalent_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr("graphclone.formats.onnx.writer.widen", _wrong)
    assert main(["clone", "mlp.onnx", "-o", "wide.onnx", "--provider", "cpu"]) == 1
    assert "not equivalent" in capfd.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["cached.onnx", "mlp.onnx"]


def _wrong(tensor: object, recipe: object) -> object:
    from graphclone.runtime.kernel import widen

    return widen(tensor, recipe) * 1.01  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: model.graph.ClearField("node"), "graph 'mlp' returns 'y', which nothing in it makes"),
        (lambda model: model.graph.initializer[0].dims.append(-1), "declares a negative size"),
        (lambda model: model.opset_import[0].__setattr__("version", 6), "the model uses opset 6; 7 to 26 can be read"),
    ],
    ids=["undefined", "negative", "opset"],
)
@pytest.mark.parametrize(
    "argv", [["inspect", "broken.onnx"], ["clone", "broken.onnx", "-o", "wide.onnx"]], ids=["inspect", "clone"]
)
def test_a_broken_file_is_one_line_and_nothing_is_written(
    spoil: Callable[[onnx.ModelProto], None], message: str, folder: Path, capfd: Capture, argv: list[str]
) -> None:
    model = onnx.load("mlp.onnx")
    spoil(model)
    save(model, folder / "broken.onnx")
    before = sorted(folder.iterdir())
    assert main(argv) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("graphclone: broken.onnx: ")
    assert message in line
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("given", "message"),
    [("z=1x5", "the model has no input 'z'; it has x"), ("x=1x6", "x is batchx5 in the model, not 1x6")],
)
@pytest.mark.parametrize("words", [["inspect", "mlp.onnx"], ["clone", "mlp.onnx", "-o", "wide.onnx", "--dry-run"]])
def test_inputs_that_do_not_fit_are_refused_before_they_are_needed(
    words: list[str], given: str, message: str, refused: Refused
) -> None:
    assert message in refused(*words, "--input", given)
