"""A rule refuses what it cannot state, however wrong a node is; one that breaks down is named."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cache, partial

import numpy as np
import pytest

from graphclone.errors import RuleError
from graphclone.graph.ir import Graph
from graphclone.rules import default_rules
from graphclone.rules.site import Site
from tests.formats.onnx.test_contrib import model
from tests.formats.onnx.test_reader import BRANCH, BRANCH_WEIGHTS, LOOP, LOOP_WEIGHTS, SCANNED
from tests.support import onnx_contrib_cases, onnx_node_cases, rule_opinfo, rule_samples
from tests.support.malformed_nodes import apply_malformed
from tests.support.onnx_graphs import Weights, graph_of, parse
from tests.support.rule_calls import call, floats
from tests.support.rule_property import graph_of as graph_of_call
from tests.support.rule_property import infer

SEEDS = 40

RULES = default_rules()


@cache
def _contrib_cases() -> dict[str, list[onnx_contrib_cases.Case]]:
    cases: dict[str, list[onnx_contrib_cases.Case]] = {}
    for case in onnx_contrib_cases.cases():
        cases.setdefault(f"{case.domain or 'onnx'}.{case.op}", []).append(case)
    return cases


def _graphs(op: str) -> Iterator[Graph]:
    """Some graphs of a node of an operator, as it should be."""
    vocabulary, name = op.split(".")[:2]
    if vocabulary == "aten":
        samples = rule_samples.samples().get(op) or rule_opinfo.samples(op)
        yield from (graph_of_call(sample)[0] for sample in samples[:2])
    elif vocabulary == "onnx":
        cases = [] if op in CONTROL else onnx_node_cases.cases().get(name, [])
        yield from (onnx_node_cases.graph_of(case, "literals")[0] for case in cases[:2] if case.of_tensors)
    if op in CONTROL:
        yield graph_of(parse(*CONTROL[op]))
    for case in _contrib_cases().get(op, [])[:2]:
        yield graph_of(model(case))


CONTROL: Mapping[str, tuple[str, Weights]] = {
    "onnx.If": (BRANCH, BRANCH_WEIGHTS),
    **dict.fromkeys(("onnx.Loop", "onnx.Loop.body"), (LOOP, {**LOOP_WEIGHTS, "rounds": np.array(3, np.int64)})),
    **dict.fromkeys(("onnx.Scan", "onnx.Scan.body"), (SCANNED, {"up": (5, 6), "sizes": np.array([4])})),
}
"""Models of a branch and of loops, whose bodies lie in the graph around them."""

TRIED = [op for op in RULES if op.startswith(("aten.", "onnx.")) or op in _contrib_cases()]


@pytest.mark.parametrize("op", TRIED)
def test_a_malformed_node_is_understood_or_refused(op: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graphs = list(_graphs(op))
    for graph in graphs:
        for seed in range(SEEDS):
            apply_malformed(graph, op.removesuffix(".1"), RULES, seed)


def test_some_malformed_nodes_are_refused() -> None:
    """What the test above tries is wrong often enough, and not always."""
    (graph, *_) = _graphs("onnx.Gemm")
    refusals = [apply_malformed(graph, "onnx.Gemm", RULES, seed).refusals for seed in range(SEEDS)]
    assert SEEDS // 3 < sum(map(bool, refusals)) < SEEDS


def _defective(s: Site) -> None:
    s.equal(s.axes(s.out)[0], s.node.operands["absent"])  # type: ignore[arg-type]


def test_a_rule_that_breaks_down_is_named_with_its_node() -> None:
    """It would go unnoticed if the node were pinned instead."""
    sample = call("relu", floats(4, 6))
    with pytest.raises(RuleError) as broken:
        infer(sample, {**RULES, sample.op: _defective})
    assert str(broken.value) == (
        "op (aten.relu.default): the rule tests.rules.test_malformed_nodes._defective fails with KeyError: 'absent'"
    )
    assert isinstance(broken.value.__cause__, KeyError)


def test_a_rule_with_options_that_breaks_down_is_named() -> None:
    def rule(s: Site, *, option: int) -> None:
        raise ZeroDivisionError(option)

    sample = call("relu", floats(4, 6))
    with pytest.raises(RuleError, match=r"\.rule fails with ZeroDivisionError: 3"):
        infer(sample, {**RULES, sample.op: partial(rule, option=3)})
