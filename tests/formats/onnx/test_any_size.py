"""ONNX files at widths that are no whole multiples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import graphclone as gc
from tests.support.onnx_graphs import parse, save

STREAM = """
    stream (float[batch, 5] x) => (float[batch, 4] y) {
        h = MatMul(x, first)
        n = LayerNormalization <axis = -1, epsilon = 0.01> (h, weight, bias)
        u = MatMul(n, up)
        r = Relu(u)
        d = MatMul(r, down)
        s = Add(h, d)
        m = ReduceMean <axes = [-1], keepdims = 1> (s)
        c = Sub(s, m)
        y = MatMul(c, last)
    }
"""
WEIGHTS = {"first": (5, 6), "weight": (6,), "bias": (6,), "up": (6, 7), "down": (7, 6), "last": (6, 4)}


@pytest.mark.parametrize("strategy", ["symmetric", "noisy-diagonal"])
@pytest.mark.parametrize("width", [7, 9, 14])
def test_a_stream_grows_to_any_width(width: int, strategy: str, tmp_path: Path) -> None:
    path = save(parse(STREAM, WEIGHTS), tmp_path / "m.onnx")
    clone = gc.clone(path, sizes={"first": width, "up": 10}, strategy=strategy)
    assert clone.verify().ok, str(clone.verify())
    assert {i.value.shape for i in clone.graph.initializers if i.name == "first"} == {(5, width)}


def test_whole_and_rational_factors_agree(tmp_path: Path) -> None:
    path = save(parse(STREAM, WEIGHTS), tmp_path / "m.onnx")
    by_number, by_text = (gc.clone(path, widen=factor).state_dict() for factor in (2, "2"))
    assert all(np.array_equal(by_number[name], by_text[name]) for name in by_number)
