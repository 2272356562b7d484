"""Names that several parts of a file give to different things, and functions of other opsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import graphclone as gc
from graphclone.errors import GraphcloneError
from tests.support.onnx_graphs import drawn, parse

BRANCHES = """
    g (float[b, 5] x, bool c) => (float[b, 3] y) {
        h = MatMul(x, up)
        r = If(c) <
            then_branch = a () => (float[b, 8] o) { t = MatMul(h, one) o = Tanh(t) },
            else_branch = b () => (float[b, 8] o) { t = MatMul(h, two) o = Relu(t) }
        >
        y = MatMul(r, down)
    }
"""
"""Both branches call what they compute alike."""

OTHER_SHAPES = """
    g (float[b, 5] x, bool c) => (float[b, 3] y) {
        h = MatMul(x, up)
        r = If(c) <
            then_branch = a () => (float[b, 8] o) { t = MatMul(h, narrow) o = MatMul(t, wide) },
            else_branch = b () => (float[b, 8] p) { t = Sin(h) p = Cos(t) }
        >
        y = MatMul(r, down)
    }
"""

DECIDED = """
    g (float[b, 5] x, bool c) => (float[b, 3] y) {
        i = Constant<value_int = 1>()
        yes = Cast<to = 9>(i)
        h = MatMul(x, up)
        r = If(yes) <
            then_branch = a () => (float[b, 8] o) { t = Sin(h) o = Tanh(t) },
            else_branch = b () => (float[b, 8] o) { o = Relu(h) }
        >
        s = If(yes) <
            then_branch = d () => (float[b, 8] o) { t = Cos(h) o = Tanh(t) },
            else_branch = e () => (float[b, 8] o) { o = Relu(h) }
        >
        both = Add(r, s)
        y = MatMul(both, down)
    }
"""

ROUNDS = """
    g (float[b, 5] x, bool c) => (float[b, 3] y) {
        h = MatMul(x, up)
        r = Loop(three, , h) <
            body = a (int64 i, bool k, float[b, 8] s) => (bool d, float[b, 8] u) {
                d = Identity(k)
                t = MatMul(s, one) u = Tanh(t)
            }
        >
        q = Loop(three, , r) <
            body = b (int64 i, bool k, float[b, 8] s) => (bool d, float[b, 8] u) {
                d = Identity(k)
                t = MatMul(s, two) u = Sin(t)
            }
        >
        y = MatMul(q, down)
    }
"""

CALLED_TWICE = """
    g (float[b, 5] x, bool c) => (float[b, 3] y) {
        h = MatMul(x, up)
        r = own.chosen(h, c)
        s = own.chosen(r, c)
        y = MatMul(s, down)
    }
    <domain: "own", opset_import: ["": 17]>
    chosen (v, c) => (o) {
        o = If(c) <
            then_branch = a () => (float[b, 8] p) { t = Sin(v) p = Tanh(t) },
            else_branch = b () => (float[b, 8] p) { t = Cos(v) p = Relu(t) }
        >
    }
"""

WEIGHTS = {
    "up": (5, 8),
    "down": (8, 3),
    "one": (8, 8),
    "two": (8, 8),
    "narrow": (8, 6),
    "wide": (6, 8),
    "three": np.array(3, np.int64),
}


def model_of(text: str, opset: int = 17) -> onnx.ModelProto:
    """The model that a text describes, with those of the weights that it names."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "own": 1]>{text}')
    for name, weight in WEIGHTS.items():
        if name in text:
            array = weight if isinstance(weight, np.ndarray) else drawn(name, weight)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def with_their_own(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, the second matrix of its branches or rounds called as the first, each stored in its body."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            for inner in attribute.g.node:
                for name in {"one", "two"} & set(inner.input):
                    inner.input[list(inner.input).index(name)] = "own"
                    attribute.g.initializer.add().CopyFrom(stored[name])
                    attribute.g.initializer[-1].name = "own"
    for name in ("one", "two"):
        model.graph.initializer.remove(stored[name])
    return model


def run(path: Path, *, condition: bool) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": drawn("x", (4, 5)), "c": np.array(condition)}
    result: np.ndarray = session.run(None, {each.name: feeds[each.name] for each in session.get_inputs()})[0]
    return result


MODELS = {
    "what two branches compute": model_of(BRANCHES),
    "what they compute, in other shapes": model_of(OTHER_SHAPES),
    "what they store": with_their_own(model_of(BRANCHES)),
    "what branches compute that are always taken": model_of(DECIDED),
    "what two loops compute": model_of(ROUNDS),
    "what two loops store": with_their_own(model_of(ROUNDS)),
    "what a function computes that is called twice": model_of(CALLED_TWICE),
}


@pytest.mark.parametrize("what", MODELS)
def test_bodies_may_call_different_things_alike(what: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.checker.check_model(MODELS[what], full_check=True)
    onnx.save(MODELS[what], source)
    clone = gc.clone(source, widen=2)
    clone.save(target)
    assert onnx.load(target).graph.output[0].type == onnx.load(source).graph.output[0].type
    for condition in (True, False):
        expected = run(source, condition=condition)
        np.testing.assert_allclose(run(target, condition=condition), expected, rtol=1e-4, atol=1e-5)
    assert clone.verify().verdict == "equivalent"


FUNCTION = """
    g (float[b, 4, 5] x) => (float[b, 4, 3] y) {{
        h = MatMul(x, up)
        r = own.f(h)
        y = MatMul(r, down)
    }}
    <domain: "own", opset_import: ["": {opset}]>
    f (a) => (o) {{ o = {op}(a) }}
"""


def test_a_function_may_be_of_another_opset_where_that_changes_nothing(tmp_path: Path) -> None:
    onnx.save(model_of(FUNCTION.format(opset=16, op="Softmax<axis = 1>")), tmp_path / "source.onnx")
    report = gc.clone(tmp_path / "source.onnx", widen=2).verify()
    assert report.verdict == "equivalent"


def test_a_function_whose_operator_means_something_else_in_the_model_s_opset_is_refused(tmp_path: Path) -> None:
    onnx.save(model_of(FUNCTION.format(opset=12, op="Softmax<axis = 1>")), tmp_path / "source.onnx")
    with pytest.raises(GraphcloneError, match="function f has Softmax of opset 12, and the model imports opset 17"):
        gc.clone(tmp_path / "source.onnx", widen=2)


@pytest.mark.parametrize("times", [1, 2])
def test_an_initializer_without_elements_is_one_like_any(times: int, tmp_path: Path) -> None:
    """As of no past keys and values yet."""
    model = parse(
        """
        g (float[b, 5] x) => (float[b, 3] y) {
            h = MatMul(x, up)
            k = Concat<axis = 0>(h, nothing)
            r = Relu(k)
            j = Concat<axis = 0>(r, more)
            y = MatMul(j, down)
        }
        """,
        {"up": (5, 8), "down": (8, 3), "nothing": (0, 8)},
    )
    if times == 2:
        model.graph.node[3].input[1] = "nothing"
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(drawn("more", (1, 8)), "more"))
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    clone = gc.clone(source, widen=2)
    clone.save(target)
    np.testing.assert_allclose(run(target, condition=True), run(source, condition=True), rtol=1e-4, atol=1e-5)
