"""The property of an ONNX rule, on onnx's own backend node tests: an oracle, which nobody here wrote.

Every test of a single operator becomes a graph of one node: inputs that are literals, and single numbers of
arithmetic, become initializers, other inputs stay, or become parameters. Its axes are refined and grow at random,
scales are drawn from the solutions of the rule's equations, literals are rewritten as it says. Then the widened node
is run by ONNX Runtime (by onnx's reference implementation where that has no kernel) on the replicated inputs, and
must give the replicated results.

    .venv/bin/python -m tests.support.onnx_node_tests                 all operators: failures, and what grew
    .venv/bin/python -m tests.support.onnx_node_tests Gemm Concat     some operators, case by case
    .venv/bin/python -m tests.support.onnx_node_tests -v Gemm         with tracebacks
"""

from __future__ import annotations

import math
import random
import sys
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnxruntime

from graphclone.algebra.growth import Growth
from graphclone.algebra.strategies import STRATEGIES
from graphclone.analysis.facts import Literal
from graphclone.analysis.settling import settle
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.dialect import Target
from graphclone.formats.onnx.ops import Call
from graphclone.formats.onnx.ops import run_call as run_by_reference
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.graph.ir import Node, Value, evaluated
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.rewrite_literals import RewriteLiterals
from graphclone.passes.widen_initializers import WidenInitializers
from graphclone.pipeline.state import Request, Scales, State, Widths
from graphclone.rules import Rules, default_rules
from graphclone.runtime.arrays import Array
from graphclone.runtime.kernel import widen
from tests.support.onnx_node_cases import Case, cases, distinct_variants, graph_of, port, unfit
from tests.support.onnx_runtime_gaps import ERRORS, NEWEST, gap
from tests.support.rule_property import Disproved, Trial, _refining, expect, free_leaves, log_scales

TOLERANCES = {"float64": 1e-6, "float32": 2e-4, "float16": 1e-2, "bfloat16": 4e-2}
"""Of the greatest error, relative to the greatest element; other floating point types must be equal."""

TRIALS = (
    Trial(factors=(2,)),
    Trial(seed=1),
    Trial(kind="interleave", scaled=True, seed=2),
    Trial(before=True, scaled=True, seed=3),
    Trial(kind="interleave", before=True, after=True, seed=4),
    Trial(after=True, scaled=True, seed=5),
)

RESPELLED = ("onnx.Attention", "onnx.DFT", "onnx.Split")
"""Operators whose rules count on what ``canonicalize`` makes of them."""


# Running a node


def run(node: Node, values: Mapping[Value, Any], *, reference: bool) -> list[Any]:
    """The results of a node, by ONNX Runtime or by onnx's reference implementation."""
    target: Target = node.target
    resolved = replace(node, operands={name: evaluated(o, values) for name, o in node.operands.items()})
    fixed = {i for i, (_, o) in enumerate(target.operands(node)) if isinstance(o, Value) and o.role == "initializer"}
    arrays: list[Any] = []
    for i, (place, operand) in enumerate(target.operands(resolved)):
        literal = operand is not None and place in target.literal_types and not isinstance(operand, np.ndarray)
        arrays.append(target.literal_types[place].array(operand) if literal else operand)
        if literal:
            fixed.add(i)
    call = target.call(resolved)
    if not reference:
        known = call if call.domain or call.opset < NEWEST else replace(call, opset=NEWEST)
        return run_by_runtime(known, arrays, fixed)
    return list(run_by_reference(call, arrays))


def run_by_runtime(call: Call, arrays: Sequence[Any], fixed: Iterable[int]) -> list[Any]:
    """Run an operator by ONNX Runtime; some of its operands are initializers."""
    given = {f"i{i}": np.asarray(array) for i, array in enumerate(arrays) if array is not None}
    held = {f"i{i}" for i in fixed if f"i{i}" in given}
    graph = onnx.helper.make_graph(
        [call.node()],
        "one",
        [port(name, array) for name, array in given.items() if name not in held],
        [onnx.helper.make_empty_tensor_value_info(f"o{i}") for i, wanted in enumerate(call.outputs) if wanted],
        [onnx.numpy_helper.from_array(given[name], name) for name in sorted(held)],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in call.opsets().items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[Any] = session.run(None, {name: array for name, array in given.items() if name not in held})
    return results


# Growth


@dataclass
class Outcome:
    """What became of a case in one trial.

    Attributes:
        grew: whether any axis of the node did.
        absorbed: whether a parameter took the multiplicity of a contraction that grew.
        by: what ran it.
        refused: why the rule refused it, if it did.
    """

    grew: bool = False
    absorbed: bool = False
    by: str = ""
    refused: list[str] = field(default_factory=list)


def check(case: Case, variant: str, trial: Trial, rules: Rules | None = None) -> Outcome:
    """The property. Raises Disproved if what the rule states is not what the operator does."""
    try:
        return _check(case, variant, trial, rules)
    except Exception as error:
        error.add_note(f"{case.name} ({case.op}), {variant}: {trial}")
        raise


def _check(case: Case, variant: str, trial: Trial, rules: Rules | None) -> Outcome:
    rng = random.Random(trial.seed)
    graph, data = graph_of(case, variant)
    (node,) = graph.nodes
    results, reference = _source_results(node, data, case)
    for value, result in zip(node.outputs, map(np.asarray, results), strict=True):
        data[value], value.shape = result, result.shape  # sizes of dynamic axes are hints otherwise
    known = dict(default_rules() if rules is None else rules)
    if node.op in known:
        known[node.op] = _refining(known[node.op], trial, rng)
    state = State(graph, Request(widen_io=("*",), strategy=STRATEGIES[trial.strategy]), known)
    if node.op in RESPELLED:
        Canonicalize()(state)
    InferDims()(state)
    if graph.dialect.is_random(node):
        assert not free_leaves(state.facts), "random numbers may not grow"
        return Outcome(by="nobody")
    wanted = {x: Growth(x.size, rng.choice(trial.factors), trial.kind) for x in free_leaves(state.facts)}
    state.widths = Widths(settle(state.facts, wanted)[0])
    logs = log_scales(state, rng if trial.scaled and not _is_coarse(data.values()) else None)
    numbers = (item for item in logs if isinstance(item, Literal) and item.value)
    state.scales = Scales({item: math.exp(logs[item]) for item in numbers})
    WidenInitializers()(state)
    operands = {value: _widened(state, value, data[value], logs) for value in data}
    RewriteLiterals()(state)
    try:
        found = run(state.graph.nodes[0], operands, reference=reference)
    except ERRORS as error:
        raise Disproved(f"the operator does not take its operands as they grew: {error}") from error
    tolerance = max((TOLERANCES.get(array.dtype.name, 0.0) for array in data.values()), default=0.0) if logs else 0.0
    for value, result in zip(node.outputs, found, strict=True):
        compare(np.asarray(result), operands[value], str(value), tolerance)
    return _outcome(state, node, "onnx" if reference else "ORT")


def _source_results(node: Node, data: Mapping[Value, Any], case: Case) -> tuple[list[Any], bool]:
    """What the node computes before it grows, and whether only the reference implementation computes it rightly."""
    try:
        results = run(node, data, reference=False)
        for value, result, wanted in zip(node.outputs, results, case.results, strict=bool(case.results)):
            compare(np.asarray(result), wanted, str(value), 1e-2)
    except Exception as error:
        if gap(case.op, case.opset, error) is None:
            raise
        return run(node, data, reference=True), True
    return results, False


def _is_coarse(arrays: Iterable[Array]) -> bool:
    """Whether any is of a type too coarse to be scaled by just any number."""
    return any("float8" in array.dtype.name or "float4" in array.dtype.name for array in arrays)


def _widened(state: State, value: Value, data: Array, logs: Mapping[Any, float]) -> Array:
    """The data of a value, grown and scaled as the rule says."""
    if value in state.facts.folded:
        data = to_array(widen(to_torch(data), state.recipes[value]))
    else:
        for i, axis in enumerate(state.facts.of[value]):
            data = np.take(data, state.layout(axis).index_map, axis=i)
    log = logs.get(value, 0.0)
    return (data * np.array(math.exp(log), data.dtype)).astype(data.dtype) if log else data


def _outcome(state: State, node: Node, by: str) -> Outcome:
    facts = state.facts
    tensors = [value for value in (*node.inputs, *node.outputs) if value.is_tensor]
    grew = any(state.layout(axis).grows for value in tensors for axis in facts.of[value])
    summed = [state.layout(axis) for contraction in facts.contractions for axis in contraction.axes]
    absorbed = bool(facts.folded) and any(layout.grows for layout in summed)
    return Outcome(grew, absorbed, by, [refusal.why.text for refusal in facts.refusals])


def compare(found: Array, expected: Array, what: str, rounded: float = 0.0) -> None:
    """Equal up to rounding of the greatest element.

    Args:
        found: what the widened node gives.
        expected: the replicated result.
        what: for messages.
        rounded: what operands were rounded to where scales were drawn; integers may then round to a neighbour.
    """
    expect(found.shape == expected.shape, f"{what} is {found.shape}, not {expected.shape}")
    kind = expected.dtype.name
    if kind not in TOLERANCES:
        same = found == expected
        if expected.dtype.kind not in "OUb":
            same |= np.isnan(found.astype(np.float64)) & np.isnan(expected.astype(np.float64))
        if rounded and expected.dtype.kind in "iu" and not same.all():
            gap = np.abs(found.astype(np.int64) - expected.astype(np.int64))
            share = max(0.1, rounded * float(np.abs(expected.astype(np.float64)).max()))  # of what lies near a half
            same = (gap <= 1) & (np.count_nonzero(gap) <= share * gap.size)
        expect(np.all(same), f"{what} differs in {np.count_nonzero(~np.asarray(same))} of {expected.size} elements")
        return
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(expected)
    odd = np.nan_to_num(found[~finite], nan=0.0), np.nan_to_num(expected[~finite], nan=0.0)
    expect(np.array_equal(*odd), f"{what} differs in what is not finite")
    if not finite.any():
        return
    greatest = float(np.abs(expected[finite]).max())
    error = float(np.abs(found[finite] - expected[finite]).max())
    expect(error <= max(TOLERANCES[kind], rounded) * greatest, f"{what} differs by {error:.1e}, of {greatest:.1e}")


# All that is known about an operator


@dataclass
class Summary:
    """What became of the cases of one operator.

    Attributes:
        failures: how often a case failed, by what it said.
        disproved: how many of the failures show that the rule is wrong.
    """

    cases: int = 0
    trials: int = 0
    grew: int = 0
    absorbed: int = 0
    by: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    disproved: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.trials += 1
        self.grew += outcome.grew
        self.absorbed += outcome.absorbed
        self.by.add(outcome.by)
        for why in outcome.refused:
            self.refused[why] = self.refused.get(why, 0) + 1

    def __str__(self) -> str:
        absorbed = f", {self.absorbed} absorbed" if self.absorbed else ""
        by = "/".join(sorted(self.by))
        notes = [f"{text} ({count})" for text, count in (*self.refused.items(), *self.skipped.items())]
        return f"{self.cases} cases, {self.grew} of {self.trials} trials grew{absorbed} [{by}] {'; '.join(notes)}"


def sampled(items: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many of some items, from all over."""
    return items[:: -(-len(items) // most)] if items else items


def summarise(op: str, most: int = 0, rules: Rules | None = None, *, loud: bool = False) -> Summary:
    """Try the cases of an operator in every variant: all of them, or so many, each in some of the trials only."""
    summary = Summary()
    found = cases()[op]
    fit = [case for case in found if not unfit(case)]
    for why in filter(None, map(unfit, found)):
        summary.skipped[why] = summary.skipped.get(why, 0) + 1
    for number, case in enumerate(sampled(fit, most) if most else fit):
        summary.cases += 1
        for place, variant in enumerate(distinct_variants(case)):
            for trial in TRIALS[(number + place) % 2 :: 2] if most else TRIALS:
                try:
                    summary.add(check(case, variant, trial, rules))
                except Exception as error:
                    told = f"{case.name}, {variant}: {type(error).__name__}: {str(error)[:200]}"
                    summary.failures[told] = summary.failures.get(told, 0) + 1
                    summary.disproved += isinstance(error, Disproved)
                    if loud:
                        traceback.print_exc()
                    if isinstance(error, GraphcloneError):
                        break
    return summary


def main(arguments: Sequence[str]) -> None:
    """Print what becomes of operators."""
    loud = "-v" in arguments
    chosen = [argument for argument in arguments if argument != "-v"]
    covered = 0
    for op in chosen or cases():
        if op not in cases():
            print(f"{op}: no cases")
            continue
        summary = summarise(op, loud=loud)
        covered += bool(summary.grew) and not summary.failures
        print(f"{'FAIL' if summary.failures else 'ok  ' if summary.grew else 'flat'} {op}: {summary}", flush=True)
        for failure, count in list(summary.failures.items())[: None if chosen else 3]:
            print(f"        {failure} ({count})")
    print(f"{covered} covered of {len(chosen) or len(cases())}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1:])
