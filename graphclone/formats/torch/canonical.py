"""The spellings of aten operators that rules know, where torch.export writes others.

Equal splits become explicit ones, views that depend on strides become reshapes, default scales become literals.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.graph.ir import Node, Respelled, Spelling
from graphclone.graph.operands import Reader

ASSERTIONS = ("aten._assert_tensor_metadata.default",)
"""What only asserts that a tensor has the type it was traced with."""


def _split(node: Node) -> Respelled | None:
    """chunk and split into equal parts become a split into parts of stated sizes, which may grow unequally."""
    read = Reader(node)
    x = read.tensor("self")
    axis = read.axis("dim", x.rank, 0)
    if axis in node.outputs[0].dynamic:
        return None
    sizes = [output.size(axis) for output in node.outputs]
    return "aten.split_with_sizes.default", {"self": x, "split_sizes": sizes, "dim": read.integer("dim", 0)}


def _reshape(node: Node) -> Respelled:
    """A view holds for the strides of the trace only."""
    return "aten.reshape.default", {"self": node.operands["self"], "shape": node.operands["size"]}


def _scale(node: Node) -> Respelled | None:
    """The default scale depends on the width, which is about to change."""
    read = Reader(node)
    query = read.tensor("query")
    if read.has("scale") or query.rank - 1 in query.dynamic:
        return None
    return node.op, {**node.operands, "scale": float(query.size(-1)) ** -0.5}


SPELLINGS: Mapping[str, Spelling] = {
    "aten.chunk.default": Spelling(_split),
    "aten.split.Tensor": Spelling(_split),
    "aten.view.default": Spelling(_reshape, copies=True),
    "aten.scaled_dot_product_attention.default": Spelling(_scale),
}
