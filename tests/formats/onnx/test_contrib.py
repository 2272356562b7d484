"""ONNX Runtime's own operators: our implementations against its kernels, and the rules by replication."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from graphclone.algebra.growth import Kind
from graphclone.formats.onnx import ops
from graphclone.formats.onnx.reader import from_model
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.formats.onnx.writer import to_model
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.runtime.arrays import Array
from graphclone.runtime.maps import Maps, widened_inputs
from graphclone.verification.distance import relative_error
from graphclone.verification.lockstep import run_lockstep
from tests.support.onnx_contrib_cases import RNG, Case, cases, f, u8
from tests.support.tracing import random_pipeline

CASES = list(cases())

PINNED = {
    "a softmax that is shared out": (Case("BiasSoftmax", (f(4, 3), f(4, 3)), {"axis": 1, "is_inner_broadcast": 0}), 1),
    "blocks with packed zero points": (
        Case("MatMulNBits", (f(2, 32), u8(6, 2, 8), f(6, 2), u8(6, 1)), {"K": 32, "N": 6, "block_size": 16}, (True,),
             (1, 2, 3)),
        1,
    ),
    "a sum to which integers of the user's are added": (
        replace(next(case for case in CASES if case.note == "sum of integers"), weights=(3, 4, 5)), 1
    ),
}  # fmt: skip
"""Calls with the axis of the first operand that must keep its size."""

REFUSED = (
    Case("Inverse", (f(4, 4),)),
    Case("QAttention", (u8(2, 3, 4), u8(4, 24), f(24), f(1)[0], f(1)[0]), {"num_heads": 2}),
    Case("MatMulNBits", (f(2, 32), u8(6, 2, 8), f(6, 2), None, np.arange(32, dtype=np.int32)),
         {"K": 32, "N": 6, "block_size": 16}),
    Case("QMoE", (f(5, 8), f(5, 3), u8(3, 6, 4), f(3, 6), None, u8(3, 8, 3), f(3, 8))),
    Case("QMoE", (f(5, 8), f(5, 3), u8(3, 6, 4), f(3, 6), None, u8(3, 8, 3), f(3, 8)), {"weights_prepacked": 1}),
    Case("SkipLayerNormalization", (f(2, 3, 6), f(2, 3, 6), f(6)), {}, (True, True)),
    Case("Unique", (f(5),), {}, (True, True, True)),
)  # fmt: skip


def model(case: Case) -> onnx.ModelProto:
    """A model of the one node."""
    inputs = [f"i{i}" if array is not None else "" for i, array in enumerate(case.inputs)]
    outputs = [f"o{i}" if wanted else "" for i, wanted in enumerate(case.outputs)]
    node = onnx.helper.make_node(case.op, inputs, outputs, domain=case.domain, **case.attributes)
    given = [(i, f"i{i}", array) for i, array in enumerate(case.inputs) if array is not None]
    fed = [_info(name, array) for i, name, array in given if i not in case.weights]
    stored = [onnx.numpy_helper.from_array(array, name) for i, name, array in given if i in case.weights]
    results = [onnx.helper.make_empty_tensor_value_info(name) for name in outputs if name]
    graph = onnx.helper.make_graph([node], "one", fed, results, stored)
    imports = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)


def _info(name: str, array: Any) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime with the model as it is."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def call(case: Case) -> ops.Call:
    """The node apart from any graph."""
    attributes = tuple(a.SerializeToString(deterministic=True) for a in model(case).graph.node[0].attribute)
    given = tuple(array is not None for array in case.inputs)
    return ops.Call(case.domain, case.op, 1 if case.domain else 21, attributes, given, case.outputs)


def lifted(array: Array | None) -> Array | None:
    """In float64, if it is a float."""
    return array.astype(np.float64) if array is not None and array.dtype == np.float32 else array


def feeds(case: Case) -> dict[str, Array]:
    """What the model is fed."""
    return {f"i{i}": a for i, a in enumerate(case.inputs) if a is not None and i not in case.weights}


def widened(case: Case, seed: int, kind: Kind) -> State:
    """The model with every free axis grown by its own factor, inputs and outputs too."""
    graph = from_model(onnx_ir.serde.deserialize_model(model(case)), Path("one.onnx"), str(case))
    state = State(graph, Request(2, widen_io=("*",)))
    run(random_pipeline(seed, kind), state, check=True)
    return state


@pytest.mark.parametrize("case", [case for case in CASES if case.kernel], ids=str)
def test_implementation_agrees_with_kernel(case: Case) -> None:
    expected = session(model(case)).run(None, feeds(case))
    results = ops.run_call(call(case), [lifted(array) for array in case.inputs])
    for a, b in zip(expected, results, strict=True):
        assert a.shape == b.shape
        if a.dtype == np.float32:
            assert b.dtype == np.float64
            assert relative_error(torch.from_numpy(a).double(), torch.from_numpy(b)) < 1e-5
        else:
            assert np.array_equal(a, b)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(("seed", "kind"), [(0, "tile"), (1, "interleave"), (2, "tile")])
def test_rule_by_replication(seed: int, kind: Kind, case: Case) -> None:
    state = widened(case, seed, kind)
    assert not state.facts.refusals
    inputs = [to_torch(np.array(feeds(case)[value.name])) for value in state.graph.inputs]
    lockstep = run_lockstep(state, inputs)
    assert lockstep.first is None, f"{kind} {seed}: {lockstep.first}"
    axes = state.facts.of[state.graph.nodes[0].outputs[0]]
    assert tuple(i for i, a in enumerate(axes) if a.size > 1 and state.facts.axes.is_rigid(a)) == case.rigid
    if case.kernel and seed == 0:
        compare_in_onnxruntime(case, state, inputs)


BLOCKWISE = [case for case in CASES if case.op == "MatMulNBits"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", BLOCKWISE, ids=str)
def test_the_sizes_written_into_a_blockwise_product_follow(case: Case, seed: int) -> None:
    (node,) = widened(case, seed, "tile").graph.nodes
    sizes = (node.operands["A"].shape[-1], node.outputs[0].shape[-1])  # type: ignore[index]
    assert (node.operands["K"], node.operands["N"]) == sizes


@pytest.mark.parametrize("size", "KN")
def test_either_size_of_a_blockwise_product_may_grow(size: str) -> None:
    states = [widened(case, seed, "tile") for case in BLOCKWISE for seed in range(4)]
    assert any(s.graph.nodes[0].operands[size] > s.source.nodes[0].operands[size] for s in states if s.source)


def compare_in_onnxruntime(case: Case, state: State, inputs: Sequence[torch.Tensor]) -> None:
    """The written clone against the source, both in single precision."""
    clone = session(onnx_ir.serde.serialize_model(to_model(state)))
    wide = zip(state.graph.inputs, widened_inputs(state, inputs), strict=True)
    results = clone.run(None, {value.name: to_array(tensor) for value, tensor in wide})
    maps = Maps(state, inputs)
    expected = session(model(case)).run(None, feeds(case))
    for output, a, b in zip(state.graph.outputs, expected, results, strict=True):
        wanted = maps.widened(output.operand, torch.from_numpy(a))
        assert wanted.shape == b.shape
        assert relative_error(wanted.double(), torch.from_numpy(b).double()) < 2e-5


def between(case: Case) -> onnx.ModelProto:
    """The node between a sum, which multiplies its first operand by copies, and a norm, which takes any scale."""
    proto = model(case)
    graph, x = proto.graph, case.inputs[0]
    assert x is not None
    width = ops.run_call(call(case), [lifted(array) for array in case.inputs])[0].shape[-1]
    summed = onnx.helper.make_node("ReduceSum", ["summands", "last"], ["i0"], keepdims=0)
    normed = onnx.helper.make_node("SimplifiedLayerNormalization", ["o0", "scale"], ["normed"], axis=-1, epsilon=1e-3)
    tables = [("last", np.array([x.ndim])), ("scale", f(width))]
    graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in tables)
    graph.input[0].CopyFrom(_info("summands", f(*x.shape, 4)))
    graph.output[0].CopyFrom(onnx.helper.make_empty_tensor_value_info("normed"))
    nodes = [summed, *graph.node, normed]
    graph.ClearField("node")
    graph.node.extend(nodes)
    return proto


SCALED = [
    case
    for case in CASES
    if case.op not in ("QLinearConcat", "QuantizeLinear")  # which make integers
    and 0 not in case.weights
    and case.inputs[0] is not None
    and case.inputs[0].dtype == np.float32
]


@pytest.mark.parametrize("case", SCALED, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scales_by_replication(seed: int, case: Case) -> None:
    graph = from_model(onnx_ir.serde.deserialize_model(between(case)), Path("three.onnx"), str(case))
    state = State(graph, Request(2, widen_io=("*",)))
    run(random_pipeline(seed, "tile"), state, check=True)
    assert case.op not in [refusal.node.op.rpartition(".")[2] for refusal in state.facts.refusals]
    fed = feeds(case) | {"summands": f(*case.inputs[0].shape, 4)}  # type: ignore[union-attr]
    lockstep = run_lockstep(state, [to_torch(np.array(fed[value.name])) for value in state.graph.inputs])
    assert lockstep.first is None, f"{seed}: {lockstep.first}"


@pytest.mark.parametrize("name", PINNED)
def test_what_is_pinned(name: str) -> None:
    case, axis = PINNED[name]
    state = widened(case, 0, "tile")
    assert state.facts.axes.is_rigid(state.facts.of[state.graph.inputs[0]][axis])


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_refused(case: Case) -> None:
    state = widened(case, 0, "tile")
    assert [refusal.node.op for refusal in state.facts.refusals] == [f"com.microsoft.{case.op}"]


def test_internal_layouts_are_refused_with_advice() -> None:
    weights = onnx.numpy_helper.from_array(f(8, 8, 3, 3), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "one", [_info("x", f(1, 8, 6, 6))], [_info("y", f(1, 8, 4, 4))], [weights])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    state = State(from_model(onnx_ir.serde.deserialize_model(_optimized(proto, options)), Path("x.onnx"), "nchwc"),
                  Request(2, widen_io=("*",)))  # fmt: skip
    run(random_pipeline(0, "tile"), state, check=True)
    assert all("graph_optimization_level" in str(refusal.why) for refusal in state.facts.refusals)
    assert state.facts.refusals


def _optimized(proto: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnx.ModelProto:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


# The default domain: what onnx's own implementation does slowly, in single precision, or not at all


def standard(op: str, arrays: Sequence[Array | None], opset: int = 21, **attributes: Any) -> list[Array]:
    """Run an operator of the default domain."""
    made = [onnx.helper.make_attribute(name, value) for name, value in sorted(attributes.items())]
    protos = tuple(attribute.SerializeToString(deterministic=True) for attribute in made)
    return ops.run_call(ops.Call("", op, opset, protos, tuple(a is not None for a in arrays)), arrays)


def windowed() -> Iterator[tuple[str, tuple[Array, ...], dict[str, Any]]]:
    """Convolutions and pooling with every attribute."""
    x, w, b = f(2, 4, 9, 8), f(6, 2, 3, 2), f(6)
    yield "Conv", (x, w, b), {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    yield "Conv", (x, w, b), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}
    yield "Conv", (f(1, 3, 7), f(5, 3, 2)), {"auto_pad": "VALID"}
    yield "Conv", (f(1, 2, 5, 5, 4), f(3, 2, 2, 2, 2)), {}
    yield (
        "ConvTranspose",
        (x, f(4, 3, 3, 2)),
        {"group": 2, "strides": [2, 3], "output_padding": [1, 2], "pads": [1, 0, 2, 1]},
    )
    yield "ConvTranspose", (x, f(4, 3, 3, 3), f(3)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    yield "ConvTranspose", (x, f(4, 3, 3, 3)), {"output_shape": [20, 18], "strides": [2, 2], "dilations": [2, 1]}
    for op in ("MaxPool", "AveragePool"):
        yield op, (x,), {"kernel_shape": [3, 2], "ceil_mode": 1, "strides": [2, 3], "pads": [1, 0, 1, 1]}
        yield op, (f(1, 1, 4),), {"kernel_shape": [2], "ceil_mode": 1, "strides": [4], "pads": [0, 1]}
        yield op, (x,), {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER", "strides": [2, 2]}
        yield op, (x,), {"kernel_shape": [3, 2], "dilations": [2, 3]}
        yield op, (f(1, 2, 5, 5, 4),), {"kernel_shape": [2, 2, 2]}
    yield (
        "AveragePool",
        (x,),
        {"kernel_shape": [3, 3], "count_include_pad": 1, "pads": [1] * 4, "ceil_mode": 1, "strides": [3, 2]},
    )
    yield "LpPool", (x,), {"kernel_shape": [3, 2], "p": 3, "pads": [1, 0, 0, 1]}
    yield "GlobalLpPool", (x,), {"p": 3}
    yield "Erf", (x,), {}
    yield "Gelu", (x,), {"approximate": "tanh"}
    yield "Gelu", (x,), {}
    yield "GroupNormalization", (x, f(4), f(4)), {"num_groups": 2}
    yield "LayerNormalization", (x, f(9, 8), f(9, 8)), {"axis": -2, "epsilon": 1e-3}
    yield "MeanVarianceNormalization", (x,), {"axes": [0, 3]}
    yield "GridSample", (x, RNG.uniform(-1.2, 1.2, (2, 5, 4, 2)).astype(np.float32)), {"padding_mode": "reflection"}


WINDOWED = list(windowed())


@pytest.mark.parametrize(
    ("op", "arrays", "attributes"), WINDOWED, ids=[f"{i}-{op}" for i, (op, _, _) in enumerate(WINDOWED)]
)
def test_standard_operator_agrees_with_kernel(op: str, arrays: tuple[Array, ...], attributes: dict[str, Any]) -> None:
    case = Case(op, arrays, attributes, domain="")
    (expected,) = session(model(case)).run(None, feeds(case))
    (result,) = standard(op, [lifted(array) for array in arrays], **attributes)
    assert result.dtype == np.float64
    assert expected.shape == result.shape
    assert relative_error(torch.from_numpy(expected).double(), torch.from_numpy(result)) < 1e-5


def test_convolution_is_computed_in_double_precision() -> None:
    x, w = RNG.standard_normal((1, 2, 6)), RNG.standard_normal((3, 2, 3))
    (result,) = standard("Conv", [x, w])
    expected = np.einsum("bclk,ock->bol", sliding_window_view(x, 3, axis=2), w)
    assert np.abs(result - expected).max() < 1e-14


def test_halves_stay_halves() -> None:
    (result,) = standard("Gelu", [f(2, 3).astype(np.float16)])
    assert result.dtype == np.float16


@pytest.mark.parametrize(
    ("op", "opset", "arrays", "attributes", "expected"),
    [
        ("Add", 6, (np.ones((2, 3, 4)), np.arange(3.0)), {"broadcast": 1, "axis": 1}, np.arange(1.0, 4)[:, None]),
        ("Gemm", 6, (np.eye(2), np.eye(2), np.ones(2)), {"broadcast": 1}, np.eye(2) + 1),
        ("Clip", 6, (np.arange(4.0),), {"max": 2.0}, np.array([0.0, 1, 2, 2])),
        ("Unsqueeze", 1, (np.ones(3),), {"axes": [0]}, np.ones((1, 3))),
        ("TopK", 1, (np.arange(4.0),), {"k": 1, "axis": 0}, np.array([3.0])),
        ("Reshape", 1, (np.arange(4.0),), {"shape": [2, 2]}, np.arange(4.0).reshape(2, 2)),
        ("Cast", 5, (np.array([1.5]),), {"to": "INT64"}, np.array([1])),
        ("Pad", 1, (np.ones(2),), {"paddings": [1, 0]}, np.array([0.0, 1, 1])),
        ("Tile", 1, (np.ones((1, 2)), np.array(2), np.array(1)), {}, np.ones((1, 4))),
        ("Concat", 1, (np.ones((1, 2)), np.ones((1, 1))), {}, np.ones((1, 3))),
        ("PRelu", 6, (-np.ones((1, 2, 1)), np.array([1.0, 2])), {}, np.array([[[-1.0], [-2]]])),
        ("Upsample", 7, (np.ones((1, 1, 1, 1)),), {"scales": [1.0, 1.0, 2.0, 1.0]}, np.ones((1, 1, 2, 1))),
        ("Resize", 10, (np.ones((1, 2)), np.array([1, 2], np.float32)), {}, np.ones((1, 4))),
    ],
)
def test_operators_of_old_opsets(op: str, opset: int, arrays: Any, attributes: Any, expected: Array) -> None:
    made = [onnx.helper.make_attribute(name, value) for name, value in attributes.items()]
    protos = tuple(attribute.SerializeToString() for attribute in made)
    outputs = (True, True) if op == "TopK" else (True,)
    result = ops.run_call(ops.Call("", op, opset, protos, (True,) * len(arrays), outputs), arrays)[0]
    assert np.array_equal(result, np.broadcast_to(expected, result.shape))
    assert result.ndim == expected.ndim or op == "Add"
