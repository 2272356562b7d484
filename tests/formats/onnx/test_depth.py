"""ONNX files with more blocks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphclone as gc
from graphclone.errors import GraphcloneError
from tests.support.onnx_graphs import Weights, parse, save

_BLOCK = """
        n{k} = LayerNormalization <axis = -1, epsilon = 0.01> (x{k}, layers_{k}_norm)
        u{k} = MatMul(n{k}, layers_{k}_up)
        s{k} = Shape(u{k})
        half{k} = Reshape(u{k}, halves)
        back{k} = Reshape(half{k}, s{k})
        r{k} = Relu(back{k})
        d{k} = MatMul(r{k}, layers_{k}_down)
        e{k} = Add(d{k}, layers_{k}_bias)
        x{next} = Add(x{k}, e{k})
"""


def stream(blocks: int = 2, outputs: str = "", last: str = "") -> tuple[str, Weights]:
    """Blocks between two matrices; in each the sizes of a tensor are read, and put together again."""
    body = "".join(_BLOCK.format(k=k, next=k + 1) for k in range(blocks))
    text = f"""
        stream (float[batch, 5] x) => (float[batch, 4] y{outputs}) {{
            x0 = MatMul(x, first)
            {body}
            {last}
            y = MatMul(x{blocks}, final)
        }}
    """
    weights: dict[str, tuple[int, ...]] = {"first": (5, 6), "final": (6, 4)}
    for k in range(blocks):
        shapes = {"norm": (6,), "up": (6, 10), "down": (10, 6), "bias": (6,)}
        weights |= {f"layers_{k}_{name}": shape for name, shape in shapes.items()}
    return text, weights


def written(folder: Path, text: str, weights: Weights) -> Path:
    """The model in a file, its weights named by dotted paths, which the syntax does not know."""
    model = parse(text, {**weights, "halves": np.array([-1, 2, 5])})
    for initializer in model.graph.initializer:
        initializer.name = dotted(initializer.name)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = dotted(name)
    return save(model, folder / "m.onnx")


def dotted(name: str) -> str:
    return re.sub(r"layers_(\d+)_", r"layers.\1.", name)


@pytest.mark.parametrize("where", ["spread", "end", "start"])
@pytest.mark.parametrize("start", ["copy", "random"])
def test_a_file_becomes_deeper_and_wider(where: str, start: str, tmp_path: Path) -> None:
    path = written(tmp_path, *stream())
    clone = gc.clone(path, depth=5, widen=2, new_blocks=where, new_from=start)  # type: ignore[arg-type]
    report = clone.verify()
    assert report.ok, str(report)
    assert {check.name: check.ok for check in report.checks}["depth"]
    clone.save(tmp_path / "deep.onnx")
    model = onnx.load(tmp_path / "deep.onnx")
    onnx.checker.check_model(model, full_check=True)
    shapes = {i.name: tuple(i.dims) for i in model.graph.initializer}
    assert {f"layers.{k}.up" for k in range(5)} <= shapes.keys()
    assert all(shape == (12, 20) for name, shape in shapes.items() if name.endswith(".up"))
    assert len(model.graph.node) > 40


def test_a_file_may_become_deeper_alone(tmp_path: Path) -> None:
    path = written(tmp_path, *stream())
    clone = gc.clone(path, depth=3)
    assert clone.verify().ok
    assert {i.value.shape for i in clone.graph.initializers if i.name.endswith("up")} == {(6, 10)}


def test_what_is_returned_of_every_block_is_in_the_way(tmp_path: Path) -> None:
    caches = ", float[batch, 10] present0, float[batch, 10] present1"
    copies = "present0 = Identity(u0)\n present1 = Identity(u1)"
    path = written(tmp_path, *stream(outputs=caches, last=copies))
    with pytest.raises(GraphcloneError, match=r"layers cannot be repeated: .* goes to the output present0 as well"):
        gc.clone(path, depth=3)


def test_streams_that_are_returned_are_in_the_way(tmp_path: Path) -> None:
    path = written(tmp_path, *stream(outputs=", float[batch, 6] x1"))
    with pytest.raises(GraphcloneError, match="layers cannot be repeated: the stream between blocks is the output x1"):
        gc.clone(path, depth=3)
