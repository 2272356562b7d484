"""Constants folded by onnx-graphsurgeon, on a copy of the model that has no weights.

The copy is thrown away: writing through graphsurgeon would lose metadata and more. What is kept of it is the elements
of the values that turned out constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx_graphsurgeon
import onnx_ir
import onnxruntime
from onnx_graphsurgeon.logger import G_LOGGER

from graphclone.errors import GraphcloneError
from graphclone.runtime.arrays import Array

_SIZE_TYPES = (onnx_ir.DataType.INT32, onnx_ir.DataType.INT64, onnx_ir.DataType.BOOL)

_FATAL = 4

_BYTES = 1 << 22
"""Bytes of the largest value that is folded."""


def fold(model: onnx_ir.Model) -> Mapping[str, Array]:
    """The elements of values that nodes compute from constants alone, by name; weights count as unknown."""
    onnxruntime.set_default_logger_severity(_FATAL)  # graphsurgeon runs it, and lets it talk
    severity, G_LOGGER.severity = G_LOGGER.severity, G_LOGGER.CRITICAL
    try:
        graph = onnx_graphsurgeon.import_onnx(onnx_ir.serde.serialize_model(_without_weights(model)))
        computed = {output.name for node in graph.nodes for output in node.outputs}
        graph.fold_constants(size_threshold=_BYTES, error_ok=True)
        return {
            name: tensor.values
            for name, tensor in graph.tensors().items()
            if isinstance(tensor, onnx_graphsurgeon.Constant) and name in computed
        }
    except Exception:  # an operator or a type that it does not know; nothing is lost but a short cut
        return {}
    finally:
        G_LOGGER.severity = severity


def constant_tensor(node: onnx_ir.Node) -> onnx_ir.TensorProtocol:
    """The tensor that a Constant holds, in whichever attribute."""
    attribute = next((a for a in node.attributes.values() if a.name.startswith(("value", "sparse_value"))), None)
    if attribute is None:
        raise GraphcloneError(f"{node.name or node.outputs[0].name} (Constant) has no value")
    if attribute.name == "value":
        return attribute.as_tensor()
    if attribute.name == "sparse_value":
        raise GraphcloneError(
            f"{node.name or node.outputs[0].name}: sparse constants are not supported; store them densely"
        )
    dtype = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    return onnx_ir.tensor(np.array(attribute.value, dtype.get(attribute.name)))


def store(node: onnx_ir.Node, tensor: onnx_ir.TensorProtocol) -> None:
    """Let a Constant hold a tensor, in whichever attribute it held another."""
    node.attributes.clear()
    node.attributes["value"] = onnx_ir.Attr("value", onnx_ir.AttributeType.TENSOR, tensor)


def _without_weights(model: onnx_ir.Model) -> onnx_ir.Model:
    """A copy whose weights are inputs."""
    copy = model.clone()
    graph = copy.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is not None and (_may_be_trained(tensor) or 4 * prod(tensor.shape.numpy()) > _BYTES):
            del graph.initializers[name]
            if not value.is_graph_input():
                value.shape, value.dtype = onnx_ir.Shape(tensor.shape.numpy()), tensor.dtype
                graph.inputs.append(value)
    for node in graph:  # graphsurgeon takes a list of floats for float64
        if node.op_type == "Constant" and {"value_float", "value_floats"} & set(node.attributes):
            store(node, constant_tensor(node))
    for node in [node for node in graph if _may_be_weight(node) or _is_part_of_shape(node)]:
        port = onnx_ir.Value(name=node.outputs[0].name, type=node.outputs[0].type)
        onnx_ir.convenience.replace_all_uses_with(node.outputs[0], port)
        graph.remove(node)
        graph.inputs.append(port)
    return copy


def _is_part_of_shape(node: onnx_ir.Node) -> bool:
    """Whether a node gives some of the sizes of a shape, for which graphsurgeon takes all."""
    return not node.domain and node.op_type == "Shape" and bool({"start", "end"} & set(node.attributes))


def _may_be_weight(node: onnx_ir.Node) -> bool:
    """Whether a node makes floats that may have been trained, or stand for such."""
    if node.domain or node.op_type not in ("Constant", "ConstantOfShape") or "value" not in node.attributes:
        return False
    tensor = node.attributes["value"].as_tensor()
    if node.outputs[0].is_graph_output():
        return False
    filled = node.op_type == "ConstantOfShape" and tensor.dtype not in _SIZE_TYPES and bool(tensor.numpy().any())
    return filled or (node.op_type == "Constant" and _may_be_trained(tensor))


def _may_be_trained(tensor: onnx_ir.TensorProtocol) -> bool:
    return tensor.dtype not in _SIZE_TYPES and tensor.size > 1
