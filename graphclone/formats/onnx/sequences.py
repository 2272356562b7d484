"""Splits and concatenations that exporters write by way of a sequence, as the plain ones that they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir

from graphclone.runtime.arrays import Array

Lookup = Callable[[onnx_ir.Value], Array | None]
"""The elements of a value that is constant."""


def plain_split(node: onnx_ir.Node, size: int | None, lookup: Lookup) -> list[onnx_ir.Node]:
    """Put a Split in place of a SplitToSequence whose parts are all taken by constant positions.

    Args:
        node: the SplitToSequence.
        size: of the axis it splits; None where that is dynamic.
        lookup: gives the elements of constants.

    Returns:
        The Split; nothing where there is no plain one.
    """
    sizes = _sizes(node, size, lookup)
    picks = [(use.node, _position(use.node, lookup)) for use in node.outputs[0].uses()]
    if sizes is None or any(position is None or not -len(sizes) <= position < len(sizes) for _, position in picks):
        return []
    assert isinstance(node.graph, onnx_ir.Graph)
    split = _split(node.graph, node, sizes)
    node.graph.insert_before(node, split)
    for number, output in enumerate(split.outputs):
        output.name = f"{node.outputs[0].name}_{number}"
    for pick, position in picks:
        assert position is not None
        _take(pick, split.outputs[position])
    node.graph.remove(node, safe=True)
    return [split]


def plain_concats(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    """Put Concats in place of a SequenceConstruct of which all that is made is concatenations.

    Args:
        node: the SequenceConstruct.

    Returns:
        What is computed in its place; nothing where more is made of it.
    """
    (sequence,) = node.outputs
    uses = [use.node for use in sequence.uses()]
    if (
        not uses
        or sequence.is_graph_output()
        or any(use.op_type != "ConcatFromSequence" or use.domain or use.graph is not node.graph for use in uses)
    ):
        return []
    assert isinstance(node.graph, onnx_ir.Graph)
    replacements = [_concat(node.graph, node, use) for use in uses]
    for use, nodes in zip(uses, replacements, strict=True):
        node.graph.insert_before(node, nodes)
        _take(use, nodes[-1].outputs[0])
    node.graph.remove(node, safe=True)
    return [new for nodes in replacements for new in nodes]


def _sizes(node: onnx_ir.Node, size: int | None, lookup: Lookup) -> list[int] | None:
    """The sizes of all parts; None where they are not constant."""
    if size is None or (len(node.inputs) < 2 and not _flag(node, "keepdims", 1)):
        return None
    elements = np.array(1) if len(node.inputs) < 2 or node.inputs[1] is None else lookup(node.inputs[1])
    if elements is None:
        return None
    if elements.ndim:
        return [int(part) for part in elements]
    part = int(elements)
    return [part] * (size // part) + ([size % part] if size % part else [])


def _flag(node: onnx_ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _position(pick: onnx_ir.Node, lookup: Lookup) -> int | None:
    """Which part a SequenceAt takes."""
    if pick.op_type != "SequenceAt" or pick.inputs[1] is None:
        return None
    elements = lookup(pick.inputs[1])
    return None if elements is None else int(elements)


def _split(graph: onnx_ir.Graph, node: onnx_ir.Node, sizes: list[int]) -> onnx_ir.Node:
    axis = _flag(node, "axis", 0)
    if graph.opset_imports.get("", 13) < 13:
        return onnx_ir.node(
            "Split", [node.inputs[0]], {"axis": axis, "split": sizes}, num_outputs=len(sizes), name=node.name
        )
    value = _numbers(graph, sizes, f"{node.outputs[0].name}_sizes")
    return onnx_ir.node("Split", [node.inputs[0], value], {"axis": axis}, num_outputs=len(sizes), name=node.name)


def _numbers(graph: onnx_ir.Graph, numbers: list[int], name: str) -> onnx_ir.Value:
    """A new initializer of integers."""
    tensor = onnx_ir.tensor(np.array(numbers, np.int64), name=name)
    value = onnx_ir.Value(name=name, shape=onnx_ir.Shape([len(numbers)]), const_value=tensor)
    value.dtype = onnx_ir.DataType.INT64
    graph.register_initializer(value)
    return value


def _concat(graph: onnx_ir.Graph, node: onnx_ir.Node, use: onnx_ir.Node) -> list[onnx_ir.Node]:
    """The nodes of a concatenation of what goes into a sequence, along an axis that is new if it says so."""
    axis, name = _flag(use, "axis", 0), use.outputs[0].name
    parts, nodes = list(node.inputs), []
    if _flag(use, "new_axis", 0):
        attributes, axes = {"axes": [axis]}, []
        if graph.opset_imports.get("", 13) >= 13:
            attributes, axes = {}, [_numbers(graph, [axis], f"{name}_axes")]
        nodes = [onnx_ir.node("Unsqueeze", [part, *axes], attributes) for part in parts]
        for number, new in enumerate(nodes):
            new.outputs[0].name = f"{name}_{number}"
        parts = [new.outputs[0] for new in nodes]
    return [*nodes, onnx_ir.node("Concat", parts, {"axis": axis}, name=use.name)]


def _take(pick: onnx_ir.Node, part: onnx_ir.Value) -> None:
    """Let a plain value be what was computed from the sequence, under its name."""
    (result,) = pick.outputs
    name = result.name
    part.type, part.shape = result.type or part.type, result.shape or part.shape
    onnx_ir.convenience.replace_all_uses_with(result, part, replace_graph_outputs=True)
    assert isinstance(pick.graph, onnx_ir.Graph)
    pick.graph.remove(pick, safe=True)
    part.name = name
