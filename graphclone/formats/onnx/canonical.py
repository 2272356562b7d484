"""The spellings of ONNX operators that rules know: default scales and equal splits become explicit ones."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.graph.ir import Node, Respelled, Spelling


def _scale(node: Node) -> Respelled | None:
    """The default scale of an attention depends on the width, which is about to change."""
    query = node.operands["Q"]
    if node.operands.get("scale") is not None or query.rank - 1 in query.dynamic:
        return None
    width = query.shape[-1] // (node.operands["q_num_heads"] if query.rank == 3 else 1)
    return node.op, {**node.operands, "scale": float(width) ** -0.5}


def _contrib_scale(node: Node) -> Respelled | None:
    """The default scale, which may be spelled as 0, depends on the width, which is about to change."""
    width = _query_width(node)
    if node.operands.get("scale") or width is None:
        return None
    return node.op, {**node.operands, "scale": float(width) ** -0.5}


def _query_width(node: Node) -> int | None:
    """How wide the heads of an attention are that ONNX Runtime knows; None where that is dynamic."""
    operands, heads = node.operands, node.operands["num_heads"]
    if "weights" in operands:
        sizes = operands.get("qkv_hidden_sizes") or [operands["weights"].shape[1] // 3]
        return int(sizes[0]) // int(heads)
    query = operands["query"]
    if query.rank - 1 in query.dynamic:
        return None
    if query.rank == 5:
        return int(query.shape[-1])
    if operands.get("key") is None:
        heads += 2 * operands["kv_num_heads"]
    return int(query.shape[-1]) // int(heads)


def _split(node: Node) -> Respelled | None:
    """Equal parts become parts of stated sizes, which may grow unequally."""
    x, axis = node.operands["input"], node.operands.get("axis", 0)
    if node.operands.get("split") is not None or axis % max(x.rank, 1) in x.dynamic:
        return None
    sizes = [output.shape[axis] for output in node.outputs if output.shape is not None]
    if sum(sizes) != x.shape[axis]:  # not all parts are wanted
        return None
    operands = {name: operand for name, operand in node.operands.items() if name != "num_outputs"}
    return node.op, {**operands, "split": sizes}


SPELLINGS: Mapping[str, Spelling] = {
    "onnx.Attention": Spelling(_scale),
    "onnx.Split": Spelling(_split),
    "com.microsoft.Attention": Spelling(_contrib_scale),
    "com.microsoft.MultiHeadAttention": Spelling(_contrib_scale),
    "com.microsoft.GroupQueryAttention": Spelling(_contrib_scale),
}
