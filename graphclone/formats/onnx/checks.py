"""Whether an ONNX model keeps the rules that reading it relies on.

Files come from strangers. What onnx-ir would drop, guess or fail at with an error of its own is refused here, before
anything is made of the model. Nothing is read but the model itself, and no size it declares is believed.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from math import prod
from typing import TypeVar

import onnx_ir
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto

from graphclone.errors import GraphcloneError

T = TypeVar("T", bound=Hashable)
_Operator = tuple[str, str, str]
"""Domain, name and overload."""

OPSETS = range(7, 27)
"""The versions of ONNX's own operators that can be read."""

OWN_DOMAIN = ("", "ai.onnx")
"""Two names of the domain of these operators."""

_MAX_RANK = 64
"""How many axes an array has at most in numpy."""

_MAX_NODES = 10_000_000
"""Once functions are put in the place of their calls; a few that call each other twice would fill any memory."""

_GIVEN = -1
"""Stands for the node that makes an input or initializer."""

_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)
_TYPES = (AttributeProto.TYPE_PROTO, AttributeProto.TYPE_PROTOS)

_NESTING_TYPES = ("sequence_type", "optional_type")
_READABLE_TYPES = ("tensor_type", "sparse_tensor_type", *_NESTING_TYPES)

_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_FIELDS: Mapping[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.COMPLEX64: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.COMPLEX128: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.STRING: "string_data",
}
"""Where a tensor lies that is not packed as bytes; all other types lie in ``int32_data``."""


def check(model: ModelProto) -> None:
    """Refuse a model that breaks the rules; its external data is not looked for.

    Raises:
        GraphcloneError: what is wrong, where, and what to do.
    """
    if not model.HasField("graph"):
        raise GraphcloneError("has no graph: it is no ONNX model, or its end is missing; export or download it again")
    if model.ir_version < 1:
        raise GraphcloneError("says no IR version: it is no ONNX model, or damaged; export or download it again")
    if not model.graph.output:
        raise GraphcloneError("its graph has no outputs, so it computes nothing; declare them and save it again")
    _check_opsets(model, model.graph.node, "the model")
    _check_functions(model)
    for graph in _graphs(model):
        _check_graph(graph)
    for node in _nodes(model.graph.node):
        _check_node(node, refer=False)
    for where, tensor in tensors(model):
        _check_tensor(tensor, where)
    _check_values(_Body.of_graph(model.graph), ())


def tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """All tensors that onnx-ir reads, with what they are."""
    for graph in _graphs(model):
        yield from ((f"initializer {quoted(tensor.name)}", tensor) for tensor in graph.initializer)
    for node in chain(_nodes(model.graph.node), *(_nodes(function.node) for function in model.functions)):
        yield from _attribute_tensors(node.attribute, described(node))
    for function in model.functions:
        yield from _attribute_tensors(function.attribute_proto, f"function {quoted(function.name)}")


def declared_bytes(tensor: TensorProto) -> int:
    """The size of the declared shape in bytes, packed. Strings have no size."""
    bits = prod(map(int, tensor.dims)) * onnx_ir.DataType(tensor.data_type).bitwidth
    return (bits + 7) // 8


def shape_text(tensor: TensorProto) -> str:
    """The declared shape of a tensor, for messages."""
    text = str([*tensor.dims])
    return text if len(text) <= 60 else f"{text[:57]}..."


def described(node: NodeProto) -> str:
    """A node in a message; not all have names, but what they make has."""
    if node.name:
        return f"node {quoted(node.name)} ({quoted(node.op_type)})"
    return f"the {quoted(node.op_type)} node that makes {quoted(next(filter(None, node.output), ''))}"


def quoted(text: str, limit: int = 60) -> str:
    """Text out of a file, safe to print: it stays on the line, and short."""
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")


# Every graph, node and tensor, however deep


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _nodes(nodes):
            yield from _graphs_of(node)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _graphs_of(node):
            yield from _nodes(graph.node)


def _graphs_of(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type in _GRAPHS and not attribute.ref_attr_name:
            yield from [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def _attribute_tensors(attributes: Iterable[AttributeProto], owner: str) -> Iterator[tuple[str, TensorProto]]:
    for attribute in attributes:
        if attribute.ref_attr_name:
            continue
        where = f"attribute {quoted(attribute.name)} of {owner}"
        if attribute.type == AttributeProto.TENSOR:
            yield where, attribute.t
        elif attribute.type == AttributeProto.TENSORS:
            yield from ((where, tensor) for tensor in attribute.tensors)


def _repeated(items: Iterable[T]) -> T | None:
    """The first item that repeats one before it; None where all differ."""
    seen: set[T] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None


# Operators: their versions, functions of the model's own, attributes


def _check_opsets(owner: ModelProto | FunctionProto, nodes: Iterable[NodeProto], who: str) -> None:
    _check_imports(owner, who)
    versions = [entry.version for entry in owner.opset_import if entry.domain in OWN_DOMAIN]
    if not versions and not any(node.domain in OWN_DOMAIN for node in _nodes(nodes)) and owner.opset_import:
        return
    if not versions or not versions[0]:
        raise GraphcloneError(f"{who} says no version (opset_import) of ONNX's operators; export or download it again")
    if versions[0] not in OPSETS:
        hint = "onnx.version_converter.convert_version(model, 20) converts it"
        raise GraphcloneError(f"{who} uses opset {versions[0]}; {OPSETS[0]} to {OPSETS[-1]} can be read; {hint}")


def _check_imports(owner: ModelProto | FunctionProto, who: str) -> None:
    """A domain may be imported several times, as where models were merged, if always at one version."""
    imported: dict[str, dict[int, None]] = {}
    for entry in owner.opset_import:
        imported.setdefault("" if entry.domain in OWN_DOMAIN else entry.domain, {})[entry.version] = None
    for domain, versions in imported.items():
        if len(versions) > 1:
            whose = f"the operators of {quoted(domain)}" if domain else "ONNX's operators"
            several = ", ".join(map(str, [*versions][:5]))
            raise GraphcloneError(f"{who} imports {whose} more than once (opsets {several}); remove all but one")


def _check_functions(model: ModelProto) -> None:
    functions = model.functions
    twice = _repeated(map(_identity, functions))
    if twice:
        raise GraphcloneError(f"function {quoted(twice[1])} is defined twice; rename one")
    for function in functions:
        _check_function(function)
    calls = {_identity(function): _called(function.node) for function in functions}
    try:
        order = [*TopologicalSorter(calls).static_order()]
    except CycleError as error:
        circle = " -> ".join(quoted(name) for _, name, _ in error.args[1][:5])
        raise GraphcloneError(f"functions call themselves, which ONNX forbids: {circle}; export it again") from None
    sizes: dict[_Operator, int] = {}
    for operator in order:
        sizes[operator] = min(1 + sum(sizes[called] for called in calls.get(operator, ())), _MAX_NODES)
    if sum(sizes.get(called, 1) for called in _called(model.graph.node)) > _MAX_NODES:
        raise GraphcloneError(f"its functions stand for more than {_MAX_NODES:,} nodes; export it without functions")


def _check_function(function: FunctionProto) -> None:
    who = f"function {quoted(function.name)}"
    _check_texts((function.name, function.domain, *function.input, *function.output), who)
    _check_opsets(function, function.node, who)
    _check_attributes(function.attribute_proto, who, refer=False)
    for attribute in function.attribute_proto:
        if attribute.type in _GRAPHS:
            raise GraphcloneError(f"{who} has a graph for the default of {quoted(attribute.name)}; inline the function")
    for node in _nodes(function.node):
        _check_node(node, refer=True)
    for info in function.value_info:
        _check_type(info.type, f"value {quoted(info.name)}")
    _check_values(_Body(who, function.input, (), function.node, function.output), ())


def _identity(function: FunctionProto) -> _Operator:
    return _operator(function.domain, function.name, function.overload)


def _called(nodes: Iterable[NodeProto]) -> list[_Operator]:
    return [_operator(node.domain, node.op_type, node.overload) for node in _nodes(nodes)]


def _operator(domain: str, name: str, overload: str) -> _Operator:
    return "" if domain in OWN_DOMAIN else domain, name, overload


def _check_node(node: NodeProto, *, refer: bool) -> None:
    _check_texts((node.name, node.op_type, node.domain, *node.input, *node.output), described(node))
    _check_attributes(node.attribute, described(node), refer=refer)


def _check_texts(texts: Iterable[str], where: str) -> None:
    """Check that names are text: what is no UTF-8 comes out of protobuf as bytes."""
    if not all(isinstance(text, str) for text in texts):
        raise GraphcloneError(f"{where} has a name that is not UTF-8; export or download it again")


def _check_attributes(attributes: Iterable[AttributeProto], owner: str, *, refer: bool) -> None:
    """Check attributes, which may refer to those of a function if they are in one."""
    _check_texts((attribute.name for attribute in attributes), owner)
    twice = _repeated(attribute.name for attribute in attributes)
    if twice is not None:
        raise GraphcloneError(f"{owner} has the attribute {quoted(twice)} twice; remove one")
    for attribute in attributes:
        where = f"attribute {quoted(attribute.name)} of {owner}"
        if attribute.ref_attr_name and not refer:
            raise GraphcloneError(f"{where} refers to an attribute of a function, but is in none; export it again")
        if attribute.type == AttributeProto.UNDEFINED:
            raise GraphcloneError(f"{where} has no type that ONNX knows; export it again")
        if attribute.type == AttributeProto.GRAPH and not (attribute.HasField("g") or attribute.ref_attr_name):
            raise GraphcloneError(f"{where} should be a graph, and there is none; export it again")
        if attribute.type in _SPARSE:
            raise GraphcloneError(f"{where} is a sparse tensor, which cannot be read; store it dense")
        if attribute.type in _TYPES:
            for declared in (attribute.tp, *attribute.type_protos):
                _check_type(declared, where)


# Types and tensors


def _check_graph(graph: GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        name = quoted(sparse.values.name)
        raise GraphcloneError(f"initializer {name} is a sparse tensor, which cannot be read; store it dense")
    _check_texts((item.name for item in chain((graph,), graph.input, graph.output, graph.initializer)), "the graph")
    for info in chain(graph.input, graph.output, graph.value_info):
        _check_type(info.type, f"value {quoted(info.name)}")
    inputs = {info.name: info.type.tensor_type for info in graph.input}
    for tensor in graph.initializer:
        if tensor.name in inputs:
            _check_default(tensor, inputs[tensor.name], f"initializer {quoted(tensor.name)}")


def _check_type(declared: TypeProto, where: str) -> None:
    kind = declared.WhichOneof("value")
    if kind is None:
        return
    if kind not in _READABLE_TYPES:
        name = kind.removesuffix("_type")
        raise GraphcloneError(f"{where} is of type {name}; only tensors and sequences of them can be read")
    element = getattr(declared, kind).elem_type
    if kind in _NESTING_TYPES:
        _check_type(element, where)
        if not any(element.HasField(kind) and getattr(element, kind).HasField("elem_type") for kind in _READABLE_TYPES):
            raise GraphcloneError(f"{where} is a sequence or optional of unknown type; export it again")
    elif element not in TensorProto.DataType.values():
        raise GraphcloneError(f"{where} has element type {element}, which ONNX does not have; export it again")


def _check_default(tensor: TensorProto, declared: TypeProto.Tensor, where: str) -> None:
    """Check an initializer that is the default of an input."""
    if declared.elem_type not in (TensorProto.UNDEFINED, tensor.data_type):
        raise GraphcloneError(f"{where} and the input of that name have different element types; export it again")
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in declared.shape.dim]
    fits = len(sizes) == len(tensor.dims) and all(
        size in (None, actual) for size, actual in zip(sizes, tensor.dims, strict=True)
    )
    if declared.HasField("shape") and not fits:
        raise GraphcloneError(f"{where} and the input of that name have different shapes; export it again")


def _check_tensor(tensor: TensorProto, where: str) -> None:
    """Check what a tensor declares, and that it holds just that unless it lies in another file."""
    if tensor.data_type not in TensorProto.DataType.values() or tensor.data_type == TensorProto.UNDEFINED:
        raise GraphcloneError(f"{where} has data type {tensor.data_type}, which ONNX does not have; export it again")
    if len(tensor.dims) > _MAX_RANK:
        raise GraphcloneError(f"{where} has {len(tensor.dims)} axes, and {_MAX_RANK} are the most; export it again")
    if any(size < 0 for size in tensor.dims):
        raise GraphcloneError(f"{where} declares a negative size: {shape_text(tensor)}; export it again")
    if prod(size or 1 for size in tensor.dims) > sys.maxsize // 16:
        raise GraphcloneError(
            f"{where} declares more elements than any memory holds: {shape_text(tensor)}; export it again"
        )
    if tensor.data_location == TensorProto.EXTERNAL:
        if tensor.data_type == TensorProto.STRING:
            raise GraphcloneError(f"{where} holds strings, which cannot lie in another file; export it again")
        return
    _check_held(tensor, where)


def _check_held(tensor: TensorProto, where: str) -> None:
    own = _FIELDS.get(tensor.data_type, "int32_data")
    allowed = ("string_data",) if tensor.data_type == TensorProto.STRING else ("raw_data", own)
    lengths = {field: len(getattr(tensor, field)) for field in _TYPED_FIELDS if getattr(tensor, field)}
    if tensor.HasField("raw_data"):
        lengths["raw_data"] = len(tensor.raw_data)
    if len(lengths) > 1 or not lengths.keys() <= set(allowed):
        hint = f"not in just one of {' or '.join(allowed)}; export it again"
        raise GraphcloneError(f"{where} holds its data in {' and '.join(lengths)}, {hint}")
    count = sum(lengths.values())
    total, unit = (declared_bytes(tensor), "bytes") if "raw_data" in lengths else (_entries(tensor), "entries")
    if count != total:
        hint = "export or download it again"
        raise GraphcloneError(f"{where} holds {count} {unit}, but its shape {shape_text(tensor)} needs {total}; {hint}")


def _entries(tensor: TensorProto) -> int:
    """How many entries of its typed field a tensor takes: numbers below six bits share one, complex ones take two."""
    size = prod(map(int, tensor.dims))
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * size
    if tensor.data_type == TensorProto.STRING:
        return size
    return declared_bytes(tensor) if onnx_ir.DataType(tensor.data_type).bitwidth < 6 else size


# Values: who makes and who reads them


@dataclass(frozen=True)
class _Body:
    """What graphs and functions have in common."""

    where: str
    inputs: Sequence[str]
    initializers: Sequence[str]
    nodes: Sequence[NodeProto]
    outputs: Sequence[str]

    @classmethod
    def of_graph(cls, graph: GraphProto) -> _Body:
        inputs, outputs = ([info.name for info in ports] for ports in (graph.input, graph.output))
        initializers = [tensor.name for tensor in graph.initializer]
        return cls(f"graph {quoted(graph.name)}", inputs, initializers, graph.node, outputs)


@dataclass(frozen=True)
class _Scope:
    """What a nested graph sees of one around it.

    Attributes:
        makers: the index of the node that makes each value.
        node: the index of the node that the nested graph belongs to.
    """

    makers: Mapping[str, int]
    node: int


def _check_values(body: _Body, outer: tuple[_Scope, ...]) -> set[str]:
    """Check that every value is made once, and before it is needed; returns those read from outer graphs."""
    makers = _makers(body, outer)
    captured: set[str] = set()
    needs: dict[int, set[int]] = {}
    for index, node in enumerate(body.nodes):
        scopes = (*outer, _Scope(makers, index))
        nested = (_check_values(_Body.of_graph(graph), scopes) for graph in _graphs_of(node))
        reads = set(filter(None, node.input)).union(*nested)
        foreign = {name for name in reads if name not in makers}
        for name in sorted(foreign):
            if not any(name in scope.makers for scope in outer):
                raise GraphcloneError(f"{described(node)} reads {quoted(name)}, which nothing makes; export it again")
        captured |= foreign
        needs[index] = {makers[name] for name in reads - foreign} - {_GIVEN}
    _check_order(body, needs)
    for name in body.outputs:
        if name not in makers:
            hint = "add an Identity" if any(name in scope.makers for scope in outer) else "export it again"
            raise GraphcloneError(f"{body.where} returns {quoted(name)}, which nothing in it makes; {hint}")
    return captured


def _makers(body: _Body, outer: tuple[_Scope, ...]) -> dict[str, int]:
    for what, names in (("input", body.inputs), ("initializer", body.initializers)):
        if "" in names:
            raise GraphcloneError(f"an {what} of {body.where} has no name; export it again")
        twice = _repeated(names)
        if twice is not None:
            raise GraphcloneError(f"{body.where} has two {what}s that are called {quoted(twice)}; rename one")
    for name in body.initializers:  # the standard forbids it, and ONNX Runtime takes the outer one
        if any(scope.makers.get(name, scope.node) < scope.node for scope in outer):
            raise GraphcloneError(
                f"an initializer of {body.where} is called {quoted(name)}, as a value around it; rename one"
            )
    makers = dict.fromkeys((*body.inputs, *body.initializers), _GIVEN)
    for index, node in enumerate(body.nodes):
        for name in filter(None, node.output):
            if name in makers or any(scope.makers.get(name, scope.node) < scope.node for scope in outer):
                raise GraphcloneError(f"{described(node)} makes {quoted(name)}, which exists already; rename one")
            makers[name] = index
    return makers


def _check_order(body: _Body, needs: Mapping[int, set[int]]) -> None:
    """Check that no nodes wait for each other; they may come in any order."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = " -> ".join(described(body.nodes[index]) for index in error.args[1][:4])
        raise GraphcloneError(f"nodes of {body.where} wait for each other: {circle}; export it again") from None
