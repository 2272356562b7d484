"""The spellings of aten operators that rules know, where torch.export writes others.

Equal splits become explicit ones, views that depend on strides become reshapes, default scales become literals.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.graph.ir import Node, Respelled, Spelling

ASSERTIONS = ("aten._assert_tensor_metadata.default",)
"""What only asserts that a tensor has the type it was traced with."""


def _split(node: Node) -> Respelled | None:
    """chunk and split into equal parts become a split into parts of stated sizes, which may grow unequally."""
    axis = node.operands.get("dim", 0)
    first = node.outputs[0]
    sizes = [output.shape[axis] for output in node.outputs if output.shape is not None]
    if axis % max(first.rank, 1) in first.dynamic:
        return None
    operands = {"self": node.operands["self"], "split_sizes": sizes, "dim": axis}
    return "aten.split_with_sizes.default", operands


def _reshape(node: Node) -> Respelled:
    """A view holds for the strides of the trace only."""
    return "aten.reshape.default", {"self": node.operands["self"], "shape": node.operands["size"]}


def _scale(node: Node) -> Respelled | None:
    """The default scale depends on the width, which is about to change."""
    query = node.operands["query"]
    if node.operands.get("scale") is not None or query.rank - 1 in query.dynamic:
        return None
    return node.op, {**node.operands, "scale": float(query.shape[-1]) ** -0.5}


SPELLINGS: Mapping[str, Spelling] = {
    "aten.chunk.default": Spelling(_split),
    "aten.split.Tensor": Spelling(_split),
    "aten.view.default": Spelling(_reshape, copies=True),
    "aten.scaled_dot_product_attention.default": Spelling(_scale),
}
