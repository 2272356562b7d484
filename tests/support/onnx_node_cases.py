"""Graphs of one node, from onnx's own backend node tests of every operator and from calls of our own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir

from graphclone.formats.onnx import reader as frontend
from graphclone.formats.onnx.reading import Reading
from graphclone.formats.onnx.tensors import to_array
from graphclone.graph.ir import Graph, Value
from graphclone.runtime.arrays import Array
from tests.support.onnx_node_calls import CALLS

VARIANTS = ("literals", "inputs", "parameters", "first")
"""Which inputs are initializers: literals; none; literals, and all floats but the first; literals, and the first."""


@dataclass(frozen=True)
class Case:
    """A test of onnx.

    Attributes:
        inputs: arrays by name.
        results: arrays, or whatever else the operator returns.
    """

    name: str
    op: str
    model: onnx.ModelProto
    inputs: Mapping[str, Any]
    results: Sequence[Any]

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]

    @property
    def opset(self) -> int:
        """Of the default domain."""
        return next(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    @property
    def of_tensors(self) -> bool:
        """Whether everything that is fed and returned is a tensor."""
        ports = (*self.model.graph.input, *self.model.graph.output)
        others = any(port.type.WhichOneof("value") not in ("tensor_type", None) for port in ports)
        return not others and all(isinstance(item, np.ndarray) for item in (*self.inputs.values(), *self.results))


@cache
def cases() -> dict[str, list[Case]]:
    """Our calls and every test of a single operator of the default domain, by operator."""
    found: dict[str, list[Case]] = {}
    for case in more_cases():
        found.setdefault(case.op, []).append(case)
    for test in _all_tests():
        (node, *more) = test.model.graph.node
        if more or node.domain or "_expanded" in test.name:
            continue
        inputs, results = ([_array(item) for item in items] for items in test.data_sets[0])
        fed = dict(zip((port.name for port in test.model.graph.input), inputs, strict=True))
        found.setdefault(node.op_type, []).append(Case(test.name, node.op_type, test.model, fed, results))
    return dict(sorted(found.items()))


def all_ops() -> set[str]:
    """The operators of the default domain that onnx tests, by themselves or among others."""
    return {node.op_type for test in _all_tests() for node in test.model.graph.node if not node.domain}


def expanded(name: str) -> tuple[Graph, list[Array]]:
    """The function that an operator of a test stands for, as a graph of simpler operators, and its inputs."""
    test = next(test for test in _all_tests() if test.name == f"{name}_expanded")
    graph = frontend.from_model(onnx_ir.from_proto(test.model), Path(), name)
    return graph, [_array(item) for item in test.data_sets[0][0]]


def more_cases() -> Iterator[Case]:
    """Cases of our own."""
    for call in CALLS:
        names = [f"x{i}" if data is not None else "" for i, data in enumerate(call.inputs)]
        outputs = [f"y{i}" for i in range(call.outputs)]
        node = onnx.helper.make_node(call.op, names, outputs, **call.attributes)
        fed = {name: data for name, data in zip(names, call.inputs, strict=True) if data is not None}
        graph = onnx.helper.make_graph(
            [node],
            call.name,
            [port(name, data) for name, data in fed.items()],
            [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
            if call.declared is None
            else [onnx.helper.make_tensor_value_info("y0", onnx.TensorProto.FLOAT, call.declared)],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", call.opset)])
        yield Case(call.name, call.op, model, fed, [])


def _array(item: Any) -> Any:
    if isinstance(item, onnx.TensorProto):
        return onnx.numpy_helper.to_array(item)
    return np.asarray(item) if isinstance(item, np.generic) else item


@cache
def _all_tests() -> list[Any]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case import node
        from onnx.backend.test.case.utils import import_recursive

        import_recursive(node)  # each module adds its own
        tests: list[Any] = node._NodeTestCases
        return tests


def unfit(case: Case) -> str:
    """Why a case cannot be tried, if so."""
    if case.op == "ImageDecoder":
        return "has no kernel"
    if not case.of_tensors:
        return "not of tensors"
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in case.node.attribute):
        return "has a body"
    return "" if len(case.node.output) and case.op not in ("Constant", "Shape", "Size") else "folded away"


def port(name: str, array: Array) -> onnx.ValueInfoProto:
    """An input or a result like an array."""
    kind = onnx.TensorProto.STRING if array.dtype.kind in "OU" else onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, array.shape)


# Graphs of one node


def lifted(case: Case, variant: str) -> tuple[str, ...]:
    """The inputs that become initializers."""
    if variant == "inputs":
        return ()
    literals = [name for key, name in _formal(case) if _is_literal(case, key, name)]
    floats = [name for name in case.inputs if name not in literals and _is_weight(case.inputs[name])]
    first = next(iter(case.inputs), "")
    if variant == "parameters":
        literals += [name for name in floats if name != first]
    elif variant == "first":
        literals += [name for name in floats if name == first]
    return tuple(literals)


def _formal(case: Case) -> list[tuple[str, str]]:
    schema = frontend.schema("", case.op, case.opset)
    return [(schema.place(i)[0], name) for i, name in enumerate(case.node.input) if name]


def _is_literal(case: Case, key: str, name: str) -> bool:
    data = case.inputs.get(name)
    if not isinstance(data, np.ndarray):
        return False
    number = case.op in frontend._ARITHMETIC and data.size == 1 and name != case.node.input[0]
    return number or key in frontend._LITERALS.get(case.op, ())


def _is_weight(data: Any) -> bool:
    return isinstance(data, np.ndarray) and data.ndim > 0 and data.size > 1 and "float" in data.dtype.name


def graph_of(case: Case, variant: str) -> tuple[Graph, dict[Value, Array]]:
    """The graph of the test, and its data."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    chosen = lifted(case, variant)
    for port in [port for port in model.graph.input if port.name in chosen]:
        model.graph.input.remove(port)
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(case.inputs[port.name]), port.name))
    with mock.patch.object(Reading, "folded", return_value=False):
        graph = frontend.from_model(onnx_ir.from_proto(model), Path(), case.name)
    data = {value: np.asarray(case.inputs[value.name]) for value in graph.inputs}
    for initializer in graph.initializers:
        name = initializer.name
        known = case.inputs[name] if name in case.inputs else to_array(initializer.read())
        data[initializer.value] = np.asarray(known)
    return graph, data


def distinct_variants(case: Case) -> Iterable[str]:
    """The variants that differ."""
    seen: set[frozenset[str]] = set()
    for variant in VARIANTS:
        chosen = frozenset(lifted(case, variant))
        everything = len(chosen) == len(case.inputs) and variant in ("parameters", "first")
        if chosen not in seen and not everything:
            seen.add(chosen)
            yield variant
