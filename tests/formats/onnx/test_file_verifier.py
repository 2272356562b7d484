"""Two ONNX files compared with nothing known about them but what they declare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphclone.api import clone
from graphclone.errors import GraphcloneError, NotEquivalentError
from graphclone.formats.onnx.file_verifier import verify_files
from graphclone.runtime.arrays import Array
from graphclone.verification.checks import Report

_RANDOM = np.random.default_rng(0)
_UP, _DOWN = _RANDOM.standard_normal((6, 10)), _RANDOM.standard_normal((10, 5))
_TABLE = _RANDOM.standard_normal((30, 6))


def info(name: str, type_: int, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, type_, shape)


def save(path: Path, nodes: list[Any], ports: tuple[list[Any], list[Any]], weights: Mapping[str, Array]) -> Path:
    initializers = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "g", *ports, initializer=initializers)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)])
    onnx.save(model, path)
    return path


def layers(path: Path, n: int = 1, change: float = 0.0, wide_output: int = 1, **names: str) -> Path:
    """(batch, 6) -> (batch, 5) through 10 n: the second weight is shared out, and an element of it changed."""
    x, y = names.get("x", "x"), names.get("y", "y")
    up, down = np.tile(_UP, (1, n)), np.tile(_DOWN, (n, wide_output)) / n
    down[0, 0] += change
    nodes = [
        helper.make_node("MatMul", [x, "up"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], [y]),
    ]
    ports = ([info(x, TensorProto.FLOAT, "batch", 6)], [info(y, TensorProto.FLOAT, "batch", 5 * wide_output)])
    return save(path, nodes, ports, {"up": up, "down": down})


def lookup(path: Path, change: float = 0.0) -> Path:
    """ids (a, b) into a table of 30 rows, one of them changed, times a mask (c, d) that must have their size."""
    table = _TABLE.copy()
    table[7, 0] += change
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"]),
        helper.make_node("Cast", ["mask"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["last"], value_ints=[-1]),
        helper.make_node("Unsqueeze", ["b", "last"], ["c"]),
        helper.make_node("Mul", ["a", "c"], ["y"]),
    ]
    inputs = [info("ids", TensorProto.INT64, "a", "b"), info("mask", TensorProto.INT32, "c", "d")]
    return save(path, nodes, (inputs, [info("y", TensorProto.FLOAT, "a", "b", 6)]), {"table": table})


def test_a_clone_is_equivalent(tmp_path: Path) -> None:
    report = verify_files(layers(tmp_path / "a.onnx"), layers(tmp_path / "b.onnx", 3), "cpu")
    assert report.ok, str(report)
    assert report.model == "b.onnx"
    assert report.provider == "CPUExecutionProvider"
    assert report.inputs == ("x 2x6 (seed 0)", "x 3x6 (seed 1)", "x 4x6 (seed 2)")
    (check,) = report.checks
    assert check.worst is not None
    assert 0 < check.worst.clone < 1e-5


@pytest.mark.parametrize("change", [0.1, 1e-4])
def test_a_spoiled_weight_is_caught(tmp_path: Path, change: float) -> None:
    report = verify_files(layers(tmp_path / "a.onnx"), layers(tmp_path / "b.onnx", 2, change), "cpu")
    assert not report.ok
    with pytest.raises(NotEquivalentError, match=r"^b.onnx: the clone is not equivalent: y: error .* times the source"):
        report.raise_if_failed()


def test_an_output_that_grew_is_compared_tiled(tmp_path: Path) -> None:
    source = layers(tmp_path / "a.onnx")
    assert verify_files(source, layers(tmp_path / "b.onnx", 2, wide_output=3), "cpu").ok
    assert not verify_files(source, layers(tmp_path / "c.onnx", 2, 0.1, wide_output=3), "cpu").ok


def test_an_input_that_grew_is_fed_tiled(tmp_path: Path) -> None:
    def identity(path: Path, width: int) -> Path:
        ports = ([info("x", TensorProto.FLOAT, "n", width)], [info("y", TensorProto.FLOAT, "n", width)])
        return save(path, [helper.make_node("Tanh", ["x"], ["y"])], ports, {})

    source = identity(tmp_path / "a.onnx", 6)
    assert verify_files(source, identity(tmp_path / "b.onnx", 12), "cpu").ok
    with pytest.raises(GraphcloneError, match="axis 1 of input x has 6 in the source, 15 in the clone"):
        verify_files(source, identity(tmp_path / "c.onnx", 15), "cpu")


def test_integers_are_as_large_as_the_source_accepts(tmp_path: Path) -> None:
    """The table has 30 rows, so ids are drawn below 10; sizes without a common symbol are made to fit."""
    source = lookup(tmp_path / "a.onnx")
    assert verify_files(source, lookup(tmp_path / "b.onnx"), "cpu").ok
    report = verify_files(source, lookup(tmp_path / "c.onnx", 0.1), "cpu")
    assert not report.ok
    assert report.inputs[0] == "ids 2x5, mask 2x5 (seed 0)"
    with pytest.raises(GraphcloneError, match=r"no inputs of the declared types are accepted: .*Gather"):
        verify_files(source, source, "cpu", bound=10_000)


def test_wrong_shapes_of_outputs_are_caught(tmp_path: Path) -> None:
    """How many columns there are depends on data, so nothing is declared; the clone looks at half of it."""

    def nonzero(path: Path, end: int) -> Path:
        nodes = [
            helper.make_node("Constant", [], ["start"], value_ints=[0]),
            helper.make_node("Constant", [], ["end"], value_ints=[end]),
            helper.make_node("Constant", [], ["axis"], value_ints=[1]),
            helper.make_node("Slice", ["x", "start", "end", "axis"], ["a"]),
            helper.make_node("NonZero", ["a"], ["y"]),
        ]
        ports = ([info("x", TensorProto.FLOAT, "n", 6)], [info("y", TensorProto.INT64, 2, None)])
        return save(path, nodes, ports, {})

    report = verify_files(nonzero(tmp_path / "a.onnx", 6), nonzero(tmp_path / "b.onnx", 3), "cpu")
    assert not report.ok
    assert report.first is not None
    assert report.first.error == float("inf")


def _fails(report: Callable[[], Report], match: str) -> None:
    with pytest.raises(GraphcloneError, match=match) as caught:
        report()
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, NotEquivalentError)


def test_what_is_not_a_pair_of_models_is_said_in_one_line(tmp_path: Path) -> None:
    source, missing, text = layers(tmp_path / "a.onnx"), tmp_path / "no.onnx", tmp_path / "text.onnx"
    text.write_text("not a model")
    _fails(lambda: verify_files(missing, source), r"no.onnx: no such file")
    _fails(lambda: verify_files(source, missing), r"no.onnx: no such file")
    _fails(lambda: verify_files(text, source), r"text.onnx: ONNX Runtime cannot load it: .*INVALID_PROTOBUF")
    other = layers(tmp_path / "b.onnx", x="z")
    _fails(lambda: verify_files(source, other), "only the source has an input x")
    other = layers(tmp_path / "c.onnx", y="z")
    _fails(lambda: verify_files(other, source), "only the clone has an output y")
    _fails(lambda: verify_files(source, lookup(tmp_path / "d.onnx")), "only the clone has an input ids")


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    path = layers(folder / "a.onnx")
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.onnx.data", size_threshold=0)
    assert (folder / "a.onnx.data").exists()
    assert verify_files(path, layers(tmp_path / "b.onnx", 2), "cpu").ok
    (folder / "a.onnx.data").unlink()
    _fails(lambda: verify_files(path, path, "cpu"), "a.onnx")


def test_rounding_is_measured_on_the_source(tmp_path: Path) -> None:
    """A model whose result is a small difference of large numbers is noisy, and so may its clone be."""

    def cancelling(path: Path, error: float) -> Path:
        large = np.full((6, 20), 1e4) + _RANDOM.standard_normal((6, 20))
        nodes = [
            helper.make_node("MatMul", ["x", "a"], ["u"]),
            helper.make_node("MatMul", ["x", "b"], ["v"]),
            helper.make_node("Sub", ["u", "v"], ["y"]),
        ]
        ports = ([info("x", TensorProto.FLOAT, "n", 6)], [info("y", TensorProto.FLOAT, "n", 20)])
        return save(path, nodes, ports, {"a": large, "b": np.full((6, 20), 1e4) + error})

    random = _RANDOM.bit_generator.state
    source = cancelling(tmp_path / "a.onnx", 0.0)
    _RANDOM.bit_generator.state = random
    assert verify_files(source, cancelling(tmp_path / "b.onnx", 1e-3), "cpu").ok
    _RANDOM.bit_generator.state = random
    assert not verify_files(source, cancelling(tmp_path / "c.onnx", 1e-1), "cpu").ok


def few_digits(path: Path) -> Path:
    """(batch, 6) -> (batch, 5) in bfloat16, computed in float32: ONNX Runtime has no products of bfloat16 on a CPU."""

    def cast(name: str, to: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [name], [f"{name}_cast"], to=to)

    nodes = [
        cast("x", TensorProto.FLOAT),
        helper.make_node("MatMul", ["x_cast", "up"], ["a"]),
        cast("a", TensorProto.BFLOAT16),
        cast("a_cast", TensorProto.FLOAT),
        helper.make_node("Tanh", ["a_cast_cast"], ["b"]),
        helper.make_node("MatMul", ["b", "down"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.BFLOAT16),
    ]
    ports = ([info("x", TensorProto.BFLOAT16, "batch", 6)], [info("y", TensorProto.BFLOAT16, "batch", 5)])
    return save(path, nodes, ports, {"up": _UP, "down": _DOWN})


def test_numbers_of_a_type_that_numpy_lacks_are_fed_and_read(tmp_path: Path) -> None:
    source = few_digits(tmp_path / "source.onnx")
    made = clone(source, widen=2)
    report = made.verify()
    assert report.ok
    assert report.onnx_checked
    made.save(tmp_path / "wide.onnx")
    assert verify_files(source, tmp_path / "wide.onnx").ok
    model = onnx.load(tmp_path / "wide.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "down")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.1, "down"))
    onnx.save(model, tmp_path / "wrong.onnx")
    assert verify_files(source, tmp_path / "wrong.onnx").ok is False
