"""Loops in float64: their bodies are run round by round, as ONNX Runtime does, and every value in them is compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import graphclone as gc
from graphclone.formats.onnx.tensors import to_torch
from graphclone.runtime.interpreter import ExecutionError, lifted, outputs
from graphclone.runtime.sessions import Session
from graphclone.runtime.tensors import Lazy, lifted_tensor
from tests.support.onnx_graphs import Weights, drawn, graph_of, inputs_of, lockstep, parse, widened

STOPPING = """
    g (float[2, 5] x, int64 most) => (float[2, 5] y, float[k, 2, 5] all, int64[k] numbers) {
        y, all, numbers = Loop (most, yes, x) <
            body = b (int64 i, bool c, float[2, 5] s) => (bool d, float[2, 5] u, float[2, 5] v, int64 j) {
                u = Mul(s, half)
                v = Add(u, s)
                j = Identity(i)
                top = ReduceMax<keepdims = 0>(u)
                d = Greater(top, least)
            }
        >
    }
"""

SCANNING = """
    g (float[2, 3, 5] x, float[4, 3] z) => (float[5] end, float[3, 2, 5] all, float[2, 5, 3] other) {
        end, all, other = Scan <num_scan_inputs = 2, scan_input_axes = [1, -1], scan_input_directions = [1, 0],
            scan_output_axes = [0, -1], scan_output_directions = [0, 1],
            body = b (float[5] s, float[2, 5] e, float[4] f) => (float[5] u, float[2, 5] v, float[2, 5] w) {
                t = ReduceSum<keepdims = 0>(f)
                v = Mul(e, t)
                w = Add(v, s)
                u = ReduceMean<axes = [0], keepdims = 0>(w)
            }
        > (begin, x, z)
    }
"""

NESTED = """
    g (float[2, 5] x) => (float[2, 5] y) {
        y = Loop (three, , x) <
            body = b (int64 i, bool c, float[2, 5] s) => (bool d, float[2, 5] u) {
                d = Identity(c)
                t = Loop (i, , s) <
                    body = inner (int64 j, bool e, float[2, 5] p) => (bool f, float[2, 5] q) {
                        f = Identity(e)
                        r = MatMul(p, turn)
                        q = Add(r, x)
                    }
                >
                u = Mul(t, half)
            }
        >
    }
"""

LOOPS: dict[str, tuple[str, Weights, dict[str, np.ndarray]]] = {
    "as often as it may": (STOPPING, {"least": np.float32(-9)}, {"most": np.array(4)}),
    "until its condition fails": (STOPPING, {"least": np.float32(0.2)}, {"most": np.array(40)}),
    "over slices, some from the end": (SCANNING, {"begin": (5,)}, {}),
    "in another loop": (NESTED, {"turn": (5, 5), "three": np.array(3)}, {}),
}


def model_of(text: str, weights: Weights) -> onnx.ModelProto:
    numbers = {"yes": np.array(True), "half": np.float32(0.5)}
    used = {name: item for name, item in {**numbers, **weights}.items() if name in text}
    return parse(
        text, {name: np.asarray(item) if isinstance(item, np.generic) else item for name, item in used.items()}
    )


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_computes_what_onnx_runtime_does(name: str, tmp_path: Path) -> None:
    text, weights, fed = LOOPS[name]
    model = model_of(text, weights)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    graph = graph_of(model)
    feeds = {v.name: fed.get(v.name, np.abs(drawn(v.name, v.shape or ()))) for v in graph.inputs}
    expected = Session(path, "cpu").run(feeds)
    tensors = [lifted(to_torch(feeds[value.name])) for value in graph.inputs]
    found = outputs(graph, Lazy(graph, lifted_tensor), tensors, lift=True)
    assert [tuple(tensor.shape) for tensor in found] == [array.shape for array in expected.values()]
    for tensor, array in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-5)


def test_a_loop_without_a_round_leaves_nothing_whose_shape_is_known() -> None:
    graph = graph_of(model_of(STOPPING, {"least": np.float32(-9)}))
    x, _ = inputs_of(graph)
    with pytest.raises(ExecutionError, match="there is no round"):
        outputs(graph, Lazy(graph, lifted_tensor), [lifted(x), to_torch(np.array(0))], lift=True)


RECURRENT = """
    g (float[batch, 5] x, float[4, batch, 5] many) => (float[batch, 5] y) {
        h = MatMul(x, up)
        end, all = Scan <num_scan_inputs = 1,
            body = b (float[batch, 6] s, float[batch, 5] e) => (float[batch, 6] u, float[batch, 6] o) {
                f = MatMul(e, read)
                g = MatMul(s, turn)
                a = Add(f, g)
                u = Tanh(a)
                o = Relu(a)
            }
        > (h, many)
        mean = ReduceMean<axes = [0], keepdims = 0>(all)
        both = Add(mean, end)
        y = MatMul(both, down)
    }
"""
WEIGHTS = {"up": (5, 6), "read": (5, 6), "turn": (6, 6), "down": (6, 5)}


def test_a_clone_with_a_loop_is_checked_in_float64(tmp_path: Path) -> None:
    path = tmp_path / "source.onnx"
    path.write_bytes(parse(RECURRENT, WEIGHTS).SerializeToString())
    clone = gc.clone(path)
    assert clone.state_dict()["turn"].shape == (12, 12)
    report = clone.verify(provider="cpu")
    exact = report.check("exact")
    assert report.ok, str(report)
    assert exact is not None and exact.ok
    rounds, inside, outside = 4, 7, 6  # values
    assert exact.figures["values"] == rounds * inside + outside


def test_what_is_wrong_in_a_body_is_found_there() -> None:
    state = widened(parse(RECURRENT, WEIGHTS))
    assert lockstep(state).first is None
    (turn,) = (value for value in state.recipes if value.name == "turn")
    state.recipes[turn] = replace(state.recipes[turn], scale=1.01)
    first = lockstep(state).first
    assert first is not None and first.value == "g"
