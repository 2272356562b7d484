"""Whatever a file looks like, it is cloned or refused; an internal error is a defect."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import onnx_ir
import pytest

from graphclone.api import clone
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.writer import to_model
from tests.support.onnx_graphs import Weights, graph_of, parse
from tests.support.onnx_mutants import outcome

BROKEN_ONCE = (109, 123, 341, 386, 586, 672, 770)
"""Mutants that ended in an internal error."""


@pytest.mark.parametrize("number", BROKEN_ONCE)
def test_a_mutant_that_broke_once_does_not(number: int, tmp_path: Path) -> None:
    assert outcome(number, tmp_path) in {"cloned", "refused"}


def test_mutants_are_cloned_or_refused(tmp_path: Path) -> None:
    """A small share of what ``python -m tests.support.onnx_mutants 2000`` tries."""
    found = Counter(outcome(number, tmp_path) for number in range(10_000, 10_040))
    assert min(found["cloned"], found["refused"]) > 5


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("y = Concat(x, x)", "y (Concat) has no attribute axis"),
        ("y = Gemm(x)", "y (Gemm) has no input B"),
        ("y = MatMul(, w)", "y (MatMul) has no input A"),
        ("y = Shape()", "y (Shape) has no input data"),
        ("y = Constant()", "y (Constant) has no value"),
        ("y = If()", "y (If) has no input cond"),
    ],
)
def test_a_node_that_lacks_what_it_needs_is_named(node: str, message: str) -> None:
    weights: Weights = {"w": (4, 4)}
    model = parse(f"lacking (float[n, 4] x) => (float[n, 4] y) {{ {node} }}", weights)
    with pytest.raises(GraphcloneError) as refused:
        graph_of(model)
    assert message in str(refused.value)


RETURNED = """
    returned (float[n, 4] x, bool c) => (float[8] y) {
        y = If (c) <
            then_branch = then_graph () => (float[8] t) { t = Constant<value = float[8] {1,2,3,4,5,6,7,8}>() },
            else_branch = else_graph () => (float[8] e) { e = Constant<value = float[8] {8,7,6,5,4,3,2,1}>() }
        >
    }
"""


def test_what_a_branch_returns_without_computing_it_grows(tmp_path: Path) -> None:
    """A widened weight lies outside the branch, which may return only what it computes."""
    path = tmp_path / "model.onnx"
    onnx.save(parse(RETURNED, {}), path)
    made = clone(path, widen_io=["y"])
    wide = onnx_ir.to_proto(to_model(made.state))
    onnx.checker.check_model(wide)
    assert wide.graph.output[0].type.tensor_type.shape.dim[0].dim_value == 16
    report = made.verify(provider="cpu")
    assert report.ok, str(report)
