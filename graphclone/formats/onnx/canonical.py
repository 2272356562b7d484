"""The spellings of ONNX operators that rules know: default scales, equal splits and some axes become explicit ones."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.graph.ir import Node, Respelled, Spelling
from graphclone.graph.operands import Reader


def _scale(node: Node) -> Respelled | None:
    """The default scale of an attention depends on the width, which is about to change."""
    read = Reader(node)
    query = read.tensor("Q")
    if read.has("scale") or query.rank - 1 in query.dynamic:
        return None
    width = query.size(-1) // (read.count("q_num_heads") if query.rank == 3 else 1)
    return node.op, {**node.operands, "scale": float(width) ** -0.5}


def _contrib_scale(node: Node) -> Respelled | None:
    """The default scale, which may be spelled as 0, depends on the width, which is about to change."""
    read = Reader(node)
    width = _query_width(read)
    if read.number("scale", 0) or width is None:
        return None
    return node.op, {**node.operands, "scale": float(width) ** -0.5}


def _query_width(read: Reader) -> int | None:
    """How wide the heads of an attention are that ONNX Runtime knows; None where that is dynamic."""
    heads = read.count("num_heads")
    if read.has("weights"):
        sizes = read.integers("qkv_hidden_sizes", ()) or [read.tensor("weights", 2).size(1) // 3]
        return sizes[0] // heads
    query = read.tensor("query")
    if query.rank - 1 in query.dynamic:
        return None
    if query.rank == 5:
        return query.size(-1)
    if not read.has("key"):
        heads += 2 * read.count("kv_num_heads")
    return query.size(-1) // heads


def _split(node: Node) -> Respelled | None:
    """Equal parts become parts of stated sizes, which may grow unequally."""
    read = Reader(node)
    x = read.tensor("input")
    axis = read.axis("axis", x.rank, 0)
    if read.has("split") or axis in x.dynamic:
        return None
    sizes = [output.size(axis) for output in node.outputs]
    if sum(sizes) != x.size(axis):  # not all parts are wanted
        return None
    operands = {name: operand for name, operand in node.operands.items() if name != "num_outputs"}
    return node.op, {**operands, "split": sizes}


def _transformed(node: Node) -> Respelled | None:
    """The axis of a Fourier transform where it is not given, which was another in the first version."""
    if Reader(node).has("axis"):
        return None
    return node.op, {**node.operands, "axis": 1 if node.target.opset < 20 else -2}


SPELLINGS: Mapping[str, Spelling] = {
    "onnx.Attention": Spelling(_scale),
    "onnx.DFT": Spelling(_transformed),
    "onnx.Split": Spelling(_split),
    "com.microsoft.Attention": Spelling(_contrib_scale),
    "com.microsoft.MultiHeadAttention": Spelling(_contrib_scale),
    "com.microsoft.GroupQueryAttention": Spelling(_contrib_scale),
}
