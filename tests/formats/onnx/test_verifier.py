"""Whether the clone of an ONNX file is judged by what was measured, and by nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from graphclone.api import clone
from graphclone.formats.onnx import file_verifier, runs, verifier
from graphclone.pipeline.state import Request
from graphclone.runtime.sessions import Provider, Session
from graphclone.verification.checks import Report
from tests.support.onnx_graphs import Weights, parse, save, widened

LAYERS = """
    layers (float[n, 6] x) => (float[n, 5] y) {
        a = MatMul(x, up)
        b = Tanh(a)
        y = MatMul(b, down)
    }
"""
LAYERS_WEIGHTS = {"up": (6, 10), "down": (10, 5)}


def verified(folder: Path, text: str, weights: Weights, opset: int = 17, *, in_runtime: bool = True) -> Report:
    """The report on the clone of a model of that text, written to a file."""
    path = save(parse(text, weights, opset=opset), folder / "model.onnx")
    return clone(path).verify(provider="cpu", onnx=in_runtime)


def said(report: Report) -> dict[str, bool | None]:
    """The verdict of every check."""
    return {check.name: check.ok for check in report.checks}


def test_a_reference_that_computes_something_else_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error on the source would be the measure of the clone's; without it rounding is."""
    true = verifier._truth
    monkeypatch.setattr(verifier, "_truth", lambda *given: [truth * 1.001 for truth in true(*given)])
    report = verified(tmp_path, LAYERS, LAYERS_WEIGHTS)
    assert said(report) == {"static": True, "exact": None, "ONNX Runtime": True}
    exact, measured = report.checks[1:]
    assert "the reference does not compute what ONNX Runtime does with the source: y is" in exact.summary
    assert measured.worst is not None
    assert measured.worst.source < 1e-5


SCATTERED = """
    scattered (float[n, 8] x) => (float[n, 3] y) {
        a = MatMul(x, up)
        b = Relu(a)
        s = Shape(b)
        z = ZEROS(s)
        i = Expand(to, s)
        m = ScatterElements<axis=0, reduction="add">(z, i, b)
        c = Add(m, b)
        y = MatMul(c, down)
    }
"""
SCATTERED_WEIGHTS = {"up": (8, 16), "down": (16, 3), "to": np.zeros((1, 1), np.int64)}

WINDOWED = """
    windowed (float[n, 8] x) => (float[n, 3] y) {
        a = MatMul(x, up)
        b = Relu(a)
        w = HannWindow(length)
        c = MatMul(b, down)
        y = Mul(c, w)
    }
"""
WINDOWED_WEIGHTS = {"up": (8, 16), "down": (16, 3), "length": np.array(3, np.int64)}


def test_rounding_that_happens_to_make_nothing_is_measured_on_another_input_set() -> None:
    """A runtime's sigmoid, say, has small results in steps of its own, within which other weights change nothing."""
    state = widened(parse("g (float[2] x) => (float[2] y) { y = Mul(x, w) }", {"w": (2,)}), Request(1))
    off = np.float32(1e-6)
    own = {"y": np.full(2, 1e-4, np.float32)}
    steady = verifier.FileSample({}, own, [own, own], [])
    shaken = verifier.FileSample({}, own, [own, {"y": own["y"] + off / 10}], [])
    truth = [torch.full((2,), 1e-4 + float(off), dtype=torch.float64)]
    assert verifier._departure(state, own, truth, verifier._roundings(state, [steady]))
    assert not verifier._departure(state, own, truth, verifier._roundings(state, [steady, shaken]))


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        (SCATTERED.replace("ZEROS", "ConstantOfShape"), SCATTERED_WEIGHTS),
        (SCATTERED.replace("ZEROS", "ConstantOfShape<value = float[1] {0.0}>"), SCATTERED_WEIGHTS),
        (WINDOWED, WINDOWED_WEIGHTS),
    ],
    ids=["zeros unsaid", "zeros", "window"],
)
def test_floats_made_by_the_graph_are_of_the_precision_it_is_run_in(
    text: str, weights: Weights, tmp_path: Path
) -> None:
    report = verified(tmp_path, text, weights, opset=18)
    assert said(report) == {"static": True, "exact": True, "ONNX Runtime": True}, str(report)


CONV = """
    pooled (float[n, 4, SIZES] x) => (float[n, 3] y) {
        a = Conv(x, kernel, bias)
        b = Relu(a)
        c = GlobalMaxPool(b)
        d = Flatten(c)
        y = Gemm(d, down, last)
    }
"""


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_global_maximum_is_of_any_rank(rank: int, tmp_path: Path) -> None:
    weights = {"kernel": (8, 4, *[3] * rank), "bias": (8,), "down": (8, 3), "last": (3,)}
    report = verified(tmp_path, CONV.replace("SIZES", ", ".join(["6"] * rank)), weights)
    assert said(report) == {"static": True, "exact": True, "ONNX Runtime": True}, str(report)


RECURRENT = """
    recurrent (float[s, 1, 6] x) => (float[s, 1, 3] y) {
        a = MatMul(x, up)
        b = Relu(a)
        h = GRU<hidden_size=8, linear_before_reset=1>(b, W, R, B, , start)
        c = Squeeze<axes=[1]>(h)
        y = MatMul(c, down)
    }
"""
RECURRENT_WEIGHTS = {
    "up": (6, 10), "W": (1, 24, 10), "R": (1, 24, 8), "B": (1, 48), "start": (1, 1, 8), "down": (8, 3)
}  # fmt: skip


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_axes_that_are_an_attribute_are_the_only_ones_squeezed(opset: int, tmp_path: Path) -> None:
    report = verified(tmp_path, RECURRENT, RECURRENT_WEIGHTS, opset)
    assert said(report) == {"static": True, "exact": True, "ONNX Runtime": True}, str(report)


TIMED = """
    timed (float[4, 2, 6] x) => (float[4, 2, 3] y) {
        a = MatMul(x, up)
        b = Relu(a)
        h = LSTM<hidden_size=8, activations=["HardSigmoid", "Softsign", "Elu"]>(b, W, R, B, lengths)
        c = Squeeze(h, one)
        y = MatMul(c, down)
    }
"""
TIMED_WEIGHTS = {
    "up": (6, 10), "W": (1, 32, 10), "R": (1, 32, 8), "B": (1, 64), "down": (8, 3),
    "lengths": np.array([1, 3], np.int32), "one": np.array([1], np.int64),
}  # fmt: skip


def test_sequences_end_where_they_end_and_activations_are_those_asked_for(tmp_path: Path) -> None:
    report = verified(tmp_path, TIMED, TIMED_WEIGHTS)
    assert said(report) == {"static": True, "exact": True, "ONNX Runtime": True}, str(report)
    assert report.checks[2].worst is not None
    assert report.checks[2].worst.source < 1e-5


BRANCHING = """
    branching (float[n, 4] x, bool c) => (float[n, 3] y) {
        y = If (c) <
            then_branch = then_graph () => (float[n, 3] ty) {
                ta = MatMul(x, tw)
                tb = Relu(ta)
                ty = MatMul(tb, tv)
            },
            else_branch = else_graph () => (float[n, 3] ey) {
                ea = MatMul(x, ew)
                eb = Relu(ea)
                ey = MatMul(eb, ev)
            }
        >
    }
"""


@pytest.mark.parametrize("first", ["then_branch", "else_branch"])
def test_branches_are_told_apart_by_their_names(first: str, tmp_path: Path) -> None:
    """Some exporters write the attributes in the order of the alphabet."""
    model = parse(BRANCHING, {"tw": (4, 8), "tv": (8, 3), "ew": (4, 7), "ev": (7, 3)})
    (node,) = model.graph.node
    ordered = sorted(node.attribute, key=lambda attribute: attribute.name != first)
    del node.attribute[:]
    node.attribute.extend(ordered)
    onnx.save(model, tmp_path / "model.onnx")
    made = clone(tmp_path / "model.onnx")
    assert made.verify(provider="cpu").ok
    made.save_onnx(tmp_path / "wide.onnx")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(tmp_path / "wide.onnx").graph.initializer}
    assert shapes == {"tw": (4, 16), "tv": (16, 3), "ew": (4, 14), "ev": (14, 3)}


STATIC = """
    static (float[n, 8] x) => (float[3, 2] y) {
        a = Add(x, table)
        b = Gemm(a, up, first)
        c = Relu(b)
        y = Gemm(c, down, last)
    }
"""
STATIC_WEIGHTS = {"table": (3, 8), "up": (8, 12), "first": (12,), "down": (12, 2), "last": (2,)}


def test_a_file_that_admits_one_size_only_is_read_with_it(tmp_path: Path) -> None:
    """Also when the clone is read anew, with the sizes that are then known."""
    onnx.save(parse(STATIC, STATIC_WEIGHTS), tmp_path / "model.onnx")
    made = clone(tmp_path / "model.onnx")
    (note,) = made.graph.notes
    assert note.startswith("read with static sizes: n = ")
    report = made.verify(provider="cpu")
    assert said(report) == {"static": True, "exact": True, "ONNX Runtime": True}, str(report)


def test_onnx_runtime_may_be_left_out(tmp_path: Path) -> None:
    report = verified(tmp_path, LAYERS, LAYERS_WEIGHTS, in_runtime=False)
    assert report.ok
    assert said(report) == {"static": True, "exact": True}


@pytest.mark.parametrize(("squeezed", "exact"), [("y", True), ("b", None)])
def test_a_value_may_have_fewer_axes_on_some_inputs(squeezed: str, exact: bool | None, tmp_path: Path) -> None:
    """All axes of size 1 are squeezed, the batch's too: what does not grow is compared all the same."""
    text = """
        g (float[n, 6] x) => (float[m, 5] y) {
            a = MatMul(x, up)
            b = Tanh(a)
            y = MatMul(b, down)
        }
    """
    product = "b = Tanh(a)" if squeezed == "b" else "y = MatMul(b, down)"
    text = text.replace(product, f"{product.replace(squeezed + ' =', 'raw =')}\n {squeezed} = Squeeze(raw)")
    path = tmp_path / "model.onnx"
    onnx.save(parse(text, LAYERS_WEIGHTS), path)
    report = clone(path, inputs={"x": np.ones((1, 6), np.float32)}).verify(provider="cpu")
    assert said(report) == {"static": True, "exact": exact, "ONNX Runtime": True}, str(report)


class Optimised(Session):
    """A session whose optimiser moves a source's results by ``OF_SOURCE``, and a clone's by ``OF_CLONE``."""

    of_source, of_clone, of_operators = 0.0, 0.0, 0.0

    def __init__(self, model: Path, provider: Provider = "auto", *, optimised: bool = True) -> None:
        super().__init__(model, provider, optimised=optimised)
        clone = model.name == "clone.onnx"
        self.moved = (self.of_clone if clone else self.of_source) if optimised else clone * self.of_operators

    def run(self, feeds: Any) -> dict[str, Any]:
        return {name: array + np.float32(self.moved) for name, array in super().run(feeds).items()}


@pytest.mark.parametrize(
    ("of_source", "of_clone", "of_operators", "ok"),
    [(1.0, 1.5, 0.0, True), (1.0, 2.5, 0.0, False), (0.0, 0.5, 0.0, False), (1.0, 1.5, 0.1, False)],
    ids=["no more than the source's", "more than the source's", "of the clone alone", "of its own operators as well"],
)
@pytest.mark.parametrize("file_to_file", [False, True], ids=["a clone", "two files"])
def test_what_the_optimiser_does_to_the_source_is_not_held_against_the_clone(
    of_source: float,
    of_clone: float,
    of_operators: float,
    ok: bool,
    file_to_file: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where it puts products of integers in place of floats, and these saturate."""
    source = save(parse(LAYERS, LAYERS_WEIGHTS), tmp_path / "a.onnx")
    made = clone(source)
    made.save_onnx(tmp_path / "clone.onnx")
    for name, moved in (("of_source", of_source), ("of_clone", of_clone), ("of_operators", of_operators)):
        monkeypatch.setattr(Optimised, name, moved)
    for module in (verifier, file_verifier, runs):
        monkeypatch.setattr(module, "Session", Optimised)
    if file_to_file:
        report = file_verifier.verify_files(source, tmp_path / "clone.onnx", "cpu")
    else:
        report = made.verify(provider="cpu", exact=False)
    check = report.check("ONNX Runtime")
    assert check is not None
    assert check.ok is ok
    assert ("without its optimiser, which moves the source by 1.0e+00: error" in check.summary) is ok
