"""The evaluator against ONNX Runtime, operator by operator and opset by opset: what it says is the float64 truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from graphclone.formats.onnx.evaluator import old, reference, windows
from graphclone.formats.onnx.ops import Call, run_call
from graphclone.runtime.arrays import Array
from tests.support.onnx_evaluator_calls import OpCall, calls, f
from tests.support.onnx_node_cases import Case, cases, unfit
from tests.support.onnx_runtime_gaps import ERRORS, NEWEST, codes, gap

_IN_PRECISION = {"float16": 4e-3, "float32": 2e-4, "float64": 2e-4}
"""Of the greatest error, relative to the greatest element, by what ONNX Runtime returns."""

_EACH = 3
"""How many of onnx's own tests of an operator are run."""

DIFFERENT = {
    "training_dropout": "draws",
    "dropout_7": "in ONNX Runtime its mask is of the kind of later opsets",
    "maxunpool_export_with_output_shape": "ONNX Runtime puts elements where the pooled image has them",
    "resize_downsample_scales_linear_align_corners": "ONNX Runtime takes the rounded size for the scale",
    "resize_downsample_scales_cubic_align_corners": "likewise",
    "qk_matmul_bias": "ONNX Runtime returns the scores before it masks them",
    "dft": "ONNX Runtime loses digits",
    "stft": "likewise",
}
"""Onnx's tests, by a part of their name, on which ONNX Runtime is no oracle."""

WITHOUT_KERNEL = {"LinearAttention"}
"""Operators of ours that ONNX Runtime has none for."""


def by_onnx_runtime(op: str, opset: int, model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[Array] | None:
    """The results of a model of one operator; None where ONNX Runtime has a gap that is listed.

    What ONNX Runtime raises otherwise is raised here, too: an operator that cannot be compared is a gap to be listed.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    proto = onnx.ModelProto()
    proto.CopyFrom(model)
    proto.ir_version = min(model.ir_version, 10)
    for entry in proto.opset_import:
        entry.version = min(entry.version, NEWEST)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
        results: list[Array] = session.run(None, dict(feeds))
    except ERRORS as error:
        if gap(op, opset, error) is None:
            raise
        return None
    return results


def by_itself(call: OpCall, opset: int) -> list[Array] | None:
    """The results of one operator by ONNX Runtime."""
    node = node_of(call)
    fed = {name: array for name, array in zip(node.input, call.inputs, strict=True) if array is not None}
    ports = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in fed.items()
    ]
    graph = helper.make_graph([node], "one", ports, [helper.make_empty_tensor_value_info(n) for n in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return by_onnx_runtime(call.op, opset, model, fed)


def node_of(call: OpCall) -> onnx.NodeProto:
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(call.inputs)]
    return helper.make_node(call.op, names, [f"o{k}" for k in range(call.outputs)], **call.attributes)


def of_node(node: onnx.NodeProto, opset: int) -> Call:
    """The call of a node, as it is read from a file."""
    attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
    given = [bool(name) for name in node.input]
    wanted = tuple(bool(name) for name in node.output)
    return Call("", node.op_type, opset, tuple(a.SerializeToString() for a in attributes), tuple(given), wanted)


def lifted(arrays: Sequence[Array | None]) -> list[Array | None]:
    return [a.astype(np.float64) if a is not None and a.dtype == np.float32 else a for a in arrays]


def problem(expected: Sequence[Array], found: Sequence[Array]) -> str:
    """How results differ; empty where they do not."""
    for wanted, got in zip(expected, found, strict=True):
        if not isinstance(wanted, np.ndarray) or wanted.dtype.kind not in "fiub":
            continue
        if wanted.shape != np.shape(got):
            return f"shape {np.shape(got)}, not {wanted.shape}"
        tolerance = _IN_PRECISION.get(wanted.dtype.name, 0.0)
        wanted, got = wanted.astype(np.float64), np.asarray(got).astype(np.float64)
        limit = tolerance * max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0), 1e-30)
        if not np.allclose(got, wanted, rtol=0, atol=limit, equal_nan=True):
            return f"values differ by {np.abs(got - wanted).max():.2g}"
    return ""


@cache
def compared() -> tuple[Counter[str], dict[str, str]]:
    """How often each operator was compared, and where it is wrong."""
    count: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    for call in calls():
        for opset in call.opsets():
            try:
                expected = by_itself(call, opset)
            except ERRORS as error:
                wrong[f"{call} in opset {opset}"] = f"{type(error).__name__}: {error}"
                continue
            if expected is None:
                continue
            count[call.op] += 1
            for arrays in (list(call.inputs), lifted(call.inputs)):
                if text := problem(expected, run_call(of_node(node_of(call), opset), arrays)):
                    wrong[f"{call} in opset {opset}, {arrays[0].dtype}"] = text  # type: ignore[union-attr]
    return count, wrong


def test_the_evaluator_computes_what_onnx_runtime_does() -> None:
    count, wrong = compared()
    assert not wrong
    assert count.total() > 1000


def answer(case: Case) -> list[Array] | None:
    """What ONNX Runtime makes of one of onnx's tests."""
    return by_onnx_runtime(case.op, case.opset, case.model, case.inputs)


def tried(op: str) -> Iterator[Case]:
    """Onnx's tests of an operator that ONNX Runtime can be asked about."""
    fit = [case for case in cases()[op] if not unfit(case) and not any(part in case.name for part in DIFFERENT)]
    return iter(fit[:: max(1, len(fit) // _EACH)])


@pytest.mark.parametrize("case", [case for op in cases() for case in tried(op)], ids=lambda case: case.name)
def test_the_evaluator_agrees_with_onnx_runtime_on_tests_of_onnx(case: Case) -> None:
    expected = answer(case)
    if expected is None:
        pytest.skip("a gap of ONNX Runtime that is listed")
    arrays = [case.inputs[name] if name else None for name in case.node.input]
    assert not problem(expected, run_call(of_node(case.node, case.opset), arrays))


def test_a_failure_that_is_no_listed_gap_is_raised() -> None:
    """Of an operator that ONNX Runtime has, and of one that fails in another opset than the list says."""
    with pytest.raises(codes.Fail, match="Incompatible dimensions"):
        by_itself(OpCall("MatMul", (f(2, 3), f(2, 3))), 13)
    assert by_itself(OpCall("GlobalLpPool", (f(1, 2, 3),)), 22) is None
    assert gap("GlobalLpPool", 21, codes.NotImplemented()) is None


def test_every_operator_of_the_evaluator_is_compared() -> None:
    """Those that are ours or respelled; onnx's own are trusted no more, but there are many."""
    own = {cls.__name__ for cls in reference.OPERATORS if not cls.op_domain and onnx.defs.has(cls.__name__)}
    ours = own | set(old._OLD)
    tested = {op for op in ours & cases().keys() if any(answer(case) is not None for case in tried(op))}
    assert ours - compared()[0].keys() - tested == WITHOUT_KERNEL


def test_a_large_batch_is_convolved_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = (
        np.random.default_rng(0).standard_normal((5, 4, 9, 8)),
        np.random.default_rng(1).standard_normal((6, 2, 3, 3)),
    )
    whole = windows.convolution(x, w, group=2, pads=[1, 1, 1, 1])
    monkeypatch.setattr(windows, "_COLUMNS", 2 * 2 * 9 * 2 * 9 * 8)
    np.testing.assert_array_equal(windows.convolution(x, w, group=2, pads=[1, 1, 1, 1]), whole)
