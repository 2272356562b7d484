"""Files of weights beside a model: those of the source stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx import saving


def test_the_weights_of_the_source_are_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    weights = {"a": (5, 8), "b": (8, 3)}
    tensors = [numpy_helper.from_array(numbers.normal(size=s).astype("f"), n) for n, s in weights.items()]
    ports = [helper.make_tensor_value_info(name, 1, [2, size]) for name, size in (("x", 5), ("y", 3))]
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    graph = helper.make_graph(nodes, "two", ports[:1], ports[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    source, data = tmp_path / "source.onnx", tmp_path / "wide.onnx.data"
    onnx.save(model, source, save_as_external_data=True, location=data.name, size_threshold=0)
    before = data.read_bytes()
    monkeypatch.setattr(saving, "INLINE_LIMIT", 10)
    clone = gc.clone(source, widen=2)
    with pytest.raises(GraphcloneError, match=r"wide\.onnx\.data: the source keeps its weights there"):
        clone.save(tmp_path / "wide.onnx")
    assert data.read_bytes() == before and not (tmp_path / "wide.onnx").exists()
    clone.save(tmp_path / "wider.onnx")
    assert gc.trace(tmp_path / "wider.onnx").dims
