"""What a file may say in several ways, said in one: no functions, and a name for each value that no other has."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir
import onnx_ir.passes.common

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.ops import UnknownOpError, schema
from graphclone.graph.names import fresh


def make_plain(model: onnx_ir.Model, name: str) -> None:
    """Inline the functions of a model, and name its values apart.

    Args:
        model: as it was read; changed in place.
        name: for messages.

    Raises:
        GraphcloneError: a function is written for an opset in which an operator of it means something else.
    """
    if model.functions:
        for function in model.functions.values():
            _import_as_the_model(function, model, name)
        onnx_ir.passes.common.InlinePass()(model)
    _name_apart(model)


def _import_as_the_model(function: onnx_ir.Function, model: onnx_ir.Model, name: str) -> None:
    """Let a function import the opsets that the model imports, as it has to once it is part of it."""
    for domain, opset in function.opset_imports.items():
        imported = model.opset_imports.get(domain, opset)
        own = (node for node in function.all_nodes() if node.op_identifier() not in model.functions)
        other = next((n for n in own if n.domain == domain and not _means_the_same(n, opset, imported)), None)
        if other is not None:
            raise GraphcloneError(
                f"{name}: function {function.name} has {other.op_type} of opset {opset}, and the model imports opset "
                f"{imported} of {domain or 'ai.onnx'}, where it is another; export both for one opset"
            )
        function.opset_imports[domain] = imported


def _means_the_same(node: onnx_ir.Node, opset: int, other: int) -> bool:
    """Whether an operator is defined alike in two opsets."""
    if opset == other:
        return True
    try:
        return schema(node.domain, node.op_type, opset).version == schema(node.domain, node.op_type, other).version
    except UnknownOpError:
        return False


def _name_apart(model: onnx_ir.Model) -> None:
    """Give values in bodies names of their own: branches may call different things alike, and often do."""
    taken = {value.name for value in values_of(model.graph) if value.name}
    for body in model.graphs():
        if body is not model.graph:
            for value in list(values_of(body)):
                if value.name:
                    value.name = fresh(value.name, taken)


def values_of(graph: onnx_ir.Graph) -> Iterator[onnx_ir.Value]:
    """The values that are defined in a graph itself, each once."""
    yield from dict.fromkeys((*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield from node.outputs
