"""Rules of ONNX operators against onnx's own tests of them; ``tests.support.onnx_node_tests`` tries them all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest

from graphclone.algebra.growth import Kind
from graphclone.analysis.facts import Facts
from graphclone.formats.onnx.tensors import to_torch
from graphclone.passes import analysis
from graphclone.pipeline.runner import run as run_passes
from graphclone.pipeline.state import Request, State
from graphclone.rules import default_rules
from graphclone.rules.pointwise import elementwise, homogeneous
from graphclone.rules.reduce import mean, onnx_reduction
from graphclone.rules.site import Rule, Site
from graphclone.verification.lockstep import run_lockstep
from tests.support import onnx_node_tests
from tests.support.onnx_graphs import graph_of as graph_of_model
from tests.support.onnx_graphs import parse
from tests.support.onnx_node_cases import Case, all_ops, cases, expanded, graph_of, more_cases
from tests.support.onnx_node_tests import Summary, compare, run, summarise
from tests.support.onnx_runtime_gaps import ERRORS, GAPS, codes, gap
from tests.support.tracing import random_pipeline

OPS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})

SAMPLED = 12
"""How many cases of an operator are tried here; the module run by hand tries them all."""

_BY_PLACE = "the numbers it makes depend on their place"
_RANDOM = "random numbers"
_DATA = "what it gives depends on the data"
_SIZES = "the front end reads it as literals or constants"
_SEQUENCE = "sequences and optionals are no tensors"
_BODY = "its body lies in the graph; see the tests of control flow"
_TEXT = "text has no axes of its own"

FLOOR = 161
"""How many operators are shown to be replicated, at least."""

NOT_COVERED: Mapping[str, str] = {
    **dict.fromkeys(("Bernoulli", "Multinomial"), _RANDOM),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _RANDOM),
    **dict.fromkeys(
        ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix", "EyeLike", "Range"), _BY_PLACE
    ),
    **dict.fromkeys(("NonZero", "NonMaxSuppression", "Unique", "TfIdfVectorizer", "ImageDecoder"), _DATA),
    "MaxUnpool": "its indices count over all axes",
    **dict.fromkeys(("Constant", "Shape", "Size"), _SIZES),
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _BODY),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _SEQUENCE),
    **dict.fromkeys(("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"), _SEQUENCE),
    **dict.fromkeys(("SequenceInsert", "SequenceLength", "ConcatFromSequence", "SplitToSequence"), _SEQUENCE),
    **dict.fromkeys(("StringNormalizer", "StringSplit"), _TEXT),
    **dict.fromkeys(("CausalConvWithState", "LinearAttention"), "no rule yet"),
}
"""Operators that no case shows to be replicated, and why."""


@cache
def tried(op: str) -> Summary:
    """A sample of the cases of an operator, in every variant and half of the trials."""
    return summarise(op, SAMPLED)


@pytest.mark.parametrize("op", OPS)
def test_rule(op: str) -> None:
    """What the rule of an operator states is what the operator does, and something of it grows."""
    found = tried(op) if op in cases() else Summary()
    assert not found.failures
    assert bool(found.grew) is (op not in NOT_COVERED), str(found)


def test_coverage() -> None:
    """Most operators that onnx tests are shown to be replicated."""
    covered = all_ops() - set(NOT_COVERED)
    print(f"{len(covered)} / {len(all_ops())} operators of onnx's node tests are replicated")
    assert len(covered) >= FLOOR
    assert all(tried(op).grew for op in covered)


def test_every_operator_has_a_rule() -> None:
    known = {op.split(".")[1] for op in default_rules() if op.startswith("onnx.")}
    assert set(OPS) - known <= set(NOT_COVERED)


@pytest.mark.parametrize("case", list(more_cases()), ids=lambda case: case.name)
def test_reference_agrees_with_runtime(case: Case) -> None:
    """Operators of old opsets, too, are run as they should."""
    graph, data = graph_of(case, "literals")
    (node,) = graph.nodes
    try:
        expected = run(node, data, reference=False)
    except ERRORS as error:
        known = gap(case.op, case.opset, error)
        if known is None:
            raise
        pytest.skip(f"ONNX Runtime {known.why}")
    found = run(node, data, reference=True)
    compare(np.asarray(found[0]), np.asarray(expected[0]), case.name)


INDEXED = [
    ("Gather<axis=1>", "4, 6, 5", "2, 3", "4, 2, 3, 5", "010"),
    ("Gather<axis=0>", "4, 6, 5", "2", "2, 6, 5", "100"),
    ("GatherElements<axis=1>", "4, 6, 5", "4, 3, 5", "4, 3, 5", "010"),
    ("GatherND<batch_dims=1>", "4, 6, 5, 7", "4, 3, 2", "4, 3, 7", "0110"),
    ("GatherND", "4, 6, 5, 7", "3, 1", "3, 6, 5, 7", "1000"),
]


@pytest.mark.parametrize(("op", "x", "i", "y", "expected"), INDEXED, ids=[op for op, *_ in INDEXED])
def test_what_is_indexed_is_pinned_and_nothing_else(op: str, x: str, i: str, y: str, expected: str) -> None:
    """``expected`` has a 1 for every axis of the operand that must keep its size, and a 0 for one that may grow."""
    model = parse(f"g (float[{x}] x, int64[{i}] i) => (float[{y}] y) {{ y = {op}(x, i) }}")
    state = State(graph_of_model(model), Request(widen_io=("*",)))
    run_passes(analysis(), state)
    axes = state.facts.of[state.graph.inputs[0]]
    assert "".join("1" if state.facts.axes.is_rigid(axis) else "0" for axis in axes) == expected
    assert not state.facts.refusals


@pytest.mark.parametrize("turned_a", [0, 1])
@pytest.mark.parametrize("turned_b", [0, 1])
def test_a_product_sums_over_one_axis_of_each_matrix(turned_a: int, turned_b: int) -> None:
    a, b = ("6, 4" if turned_a else "4, 6"), ("5, 6" if turned_b else "6, 5")
    text = f"y = Gemm<transA={turned_a}, transB={turned_b}>(a, b)"
    model = parse(f"g (float[{a}] a, float[{b}] b) => (float[4, 5] y) {{ {text} }}")
    state = State(graph_of_model(model), Request(widen_io=("*",)))
    run_passes(analysis(), state)
    find = state.facts.axes.find
    left, right = (state.facts.of[value] for value in state.graph.inputs)
    rows, columns = state.facts.of[state.graph.nodes[0].outputs[0]]
    assert find(left[1 - turned_a]) is find(right[turned_b])
    assert (find(rows), find(columns)) == (find(left[turned_a]), find(right[1 - turned_b]))
    assert not any(map(state.facts.axes.is_rigid, (*left, *right)))


def test_borders_of_a_padded_axis_are_apart() -> None:
    """The first half of the numbers stands before the axes, the second after them."""
    model = parse("g (float[4, 6] x) => (float[7, 10] y) { y = Pad(x, pads) }", {"pads": np.array([1, 0, 2, 4])})
    state = State(graph_of_model(model), Request(widen_io=("*",)))
    run_passes(analysis(), state)
    rows, columns = state.facts.of[state.graph.nodes[0].outputs[0]]
    parts = [[leaf.size for leaf in state.facts.axes.leaves(axis)] for axis in (rows, columns)]
    assert parts == [[1, 4, 2], [6, 4]]
    assert not any(map(state.facts.axes.is_rigid, (rows, columns)))


@pytest.mark.parametrize(("opset", "expected"), [(17, "0101"), (20, "0011")])
def test_the_axis_that_a_transform_works_on_by_default_is_that_of_its_version(opset: int, expected: str) -> None:
    model = parse("g (float[4, 5, 6, 1] x) => (float[4, 5, 6, 2] y) { y = DFT(x) }", opset=opset)
    state = State(graph_of_model(model), Request(widen_io=("*",)))
    run_passes(analysis(), state)
    assert not state.facts.refusals
    axes = state.facts.of[state.graph.inputs[0]]
    assert "".join("1" if state.facts.axes.is_rigid(axis) else "0" for axis in axes) == expected


EXPANDED = (
    "test_attention_4d_gqa",
    "test_attention_3d_causal",
    "test_group_normalization_epsilon",
    "test_layer_normalization_4d_axis1",
    "test_mvn",
)


@pytest.mark.parametrize("name", EXPANDED)
@pytest.mark.parametrize("kind", ["tile", "interleave"])
def test_expanded_function(name: str, kind: Kind) -> None:
    """What operators are made of grows by random factors, every value compared in float64."""
    graph, arrays = expanded(name)
    state = State(graph, Request(widen_io=("*",)))
    run_passes(random_pipeline(1, kind), state, check=True)
    assert any(growth.grows for growth in state.growths.values())
    found = run_lockstep(state, [to_torch(array) for array in arrays])
    assert found.first is None


# The oracle


def _does_not_count(s: Site) -> None:
    """A sum taken for an average."""
    onnx_reduction(mean)(s)


def _does_not_sum(s: Site) -> None:
    """A product of matrices taken for any other product."""
    a, b = s.tensor("A"), s.tensor("B")
    s.equal(s.axes(a)[-1], s.axes(b)[-2])
    s.align(s.axes(a)[:-1], s.axes(s.out)[:-1])
    s.align((*s.axes(b)[:-2], s.axes(b)[-1]), (*s.axes(s.out)[:-2], s.axes(s.out)[-1]))
    s.scale(s.out, {a: 1, b: 1})


def _lets_order_grow(s: Site) -> None:
    """A running sum taken for an elementwise operator."""
    s.get("axis"), s.get("exclusive"), s.get("reverse")
    s.broadcast(s.tensor("x"))
    s.scale(s.out, {s.tensor("x"): 1})


def _keeps_literals(s: Site) -> None:
    """Repeats an axis whose size is written into the node."""
    x, shape = s.tensor("input"), s.get("shape")
    assert isinstance(shape, list)
    s.align(s.axes(x), s.axes(s.out))


def _scales_indices(s: Site) -> None:
    """Takes the result to scale with indices, which may be floating point."""
    axes = list(s.axes(s.out))
    s.pin(axes.pop(s.axis("axis", s.out.rank, -1)), "numbered")
    s.equal_all(s.axes(s.tensor("indices")), axes)
    s.pin(s.axes(s.tensor("values")), "off and on")
    s.get("depth")
    s.scale(s.out, {s.tensor("values"): 1, s.tensor("indices"): 1})


WRONG: Mapping[str, Rule] = {
    "ReduceSum": _does_not_count,
    "MatMul": _does_not_sum,
    "CumSum": _lets_order_grow,
    "Expand": _keeps_literals,
    "OneHot": _scales_indices,
    "Softmax": elementwise,
    "Sigmoid": homogeneous,
}


@pytest.mark.parametrize("op", WRONG)
def test_a_wrong_rule_is_caught(op: str) -> None:
    assert summarise(op, SAMPLED, {**default_rules(), f"onnx.{op}": WRONG[op]}).disproved


def test_a_trial_that_breaks_down_fails_and_disproves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(facts: Facts, wanted: Any) -> None:
        raise ValueError("a defect of the trial")

    monkeypatch.setattr(onnx_node_tests, "settle", broken)
    found = summarise("Relu", 1)
    assert found.failures
    assert not found.disproved


def test_a_gap_of_onnx_runtime_is_known_by_operator_opset_and_error() -> None:
    known = gap("Add", 6, codes.NotImplemented())
    assert known is not None and known.why == "has no kernel of opset 6"
    assert gap("Relu", 6, codes.NotImplemented()) is None
    assert gap("Add", 7, codes.NotImplemented()) is None
    assert gap("Add", 6, ValueError()) is None
    assert set().union(*(known.ops for known in GAPS)) <= set(OPS)


def test_an_error_that_is_no_known_gap_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go unnoticed because onnx's reference implementation could run the case instead."""

    def broken(*args: Any) -> None:
        raise codes.NotImplemented("no kernel")

    monkeypatch.setattr(onnx_node_tests, "run_by_runtime", broken)
    assert not summarise("Add", 1).failures
    found = summarise("Relu", 1)
    assert found.failures and not found.trials


def test_what_is_trained_is_refused() -> None:
    refused = {why for op in ("BatchNormalization", "Dropout") for why in tried(op).refused}
    assert any("training mode" in why for why in refused)
