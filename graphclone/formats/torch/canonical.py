"""The spellings of aten operators that rules know, where torch.export writes others.

Equal splits become explicit ones, views that depend on strides become reshapes, defaults that depend on sizes or on
the name of the operator become literals, several names of one reduction become one, and so do repeated conversions.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

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


def _variance(node: Node) -> Respelled:
    """Whether a variance is unbiased becomes the correction that this means."""
    read, op = Reader(node), node.op.split(".")[1]
    operands = {"self": read.tensor("self"), "dim": read.get("dim"), "correction": int(read.flag("unbiased", True))}
    return f"aten.{op}.correction", {**operands, "keepdim": read.flag("keepdim")}


def _norm(node: Node) -> Respelled | None:
    """A norm of vectors is one of matrices only if it has two axes and an order."""
    read = Reader(node)
    axes = read.axis_list("dim", read.tensor("self").rank, range(read.tensor("self").rank))
    if read.has("ord") and len(axes) == 2:
        return None
    order = read.get("ord") if read.has("ord") else 2
    others = {name: operand for name, operand in node.operands.items() if name not in ("self", "ord")}
    return "aten.linalg_vector_norm.default", {"self": read.tensor("self"), "ord": order, **others}


def _fourier(node: Node) -> Respelled | None:
    """The axes of a Fourier transform, by default the last one or two by its name, or as many as it has sizes."""
    read, name = Reader(node), node.op.split(".")[1]
    if read.has("dim"):
        return None
    rank = read.tensor("self").rank
    count = {"2": 2, "n": len(read.integers("s", ())) or rank}.get(name[-1], 1)
    axes = [*range(rank - count, rank)]
    return node.op, {**node.operands, "dim": axes if name[-1] in "2n" else -1}


_GROUPED = "transformers.grouped_mm_fallback.default"


def _grouped(node: Node) -> Respelled | None:
    """Products of groups of rows with a matrix each, by the operator that has them in every precision.

    The one of aten is traced where the strides of a model are multiples of 16 bytes, the other where they are not.
    """
    namespace, name, _ = _GROUPED.split(".")
    read = Reader(node)
    rows, matrices = read.tensor("self"), read.tensor("mat2")
    if any(read.has(option) for option in ("bias", "out_dtype")) or (rows.rank, matrices.rank) != (2, 3):
        return None
    if not hasattr(getattr(torch.ops, namespace), name):  # only a library that uses it defines it
        return None
    return _GROUPED, {"input": rows, "weight": matrices, "offs": node.operands["offs"]}


def _converted(node: Node) -> Respelled | None:
    """A tensor is made what it has just been made: code that every block calls, on the same table, does so."""
    read = Reader(node)
    before = read.tensor("self").producer
    others = {name: operand for name, operand in node.operands.items() if name != "self"}
    if before is None or before.op != node.op or before.operands != {**others, "self": before.operands["self"]}:
        return None
    return node.op, {**node.operands, "self": before.operands["self"]}


_TRANSFORMS = [f"{kind}fft{axes}" for kind in ("", "i", "r", "ir") for axes in ("", "2", "n")]

SPELLINGS: Mapping[str, Spelling] = {
    "aten.chunk.default": Spelling(_split),
    "aten.split.Tensor": Spelling(_split),
    **{f"aten.{view}.default": Spelling(_reshape, copies=True) for view in ("view", "_unsafe_view")},
    "aten.scaled_dot_product_attention.default": Spelling(_scale),
    **{f"aten.{op}.{overload}": Spelling(_variance) for op in ("var", "std") for overload in ("default", "dim")},
    **{f"aten.to.{overload}": Spelling(_converted, copies=True) for overload in ("dtype", "dtype_layout", "device")},
    "aten.linalg_norm.default": Spelling(_norm),
    "aten._grouped_mm.default": Spelling(_grouped),
    **{f"aten.fft_{transform}.default": Spelling(_fourier) for transform in _TRANSFORMS},
}
