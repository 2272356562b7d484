"""Run a graph node by node, in its own precision or with every float lifted to float64."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphclone.ir import Graph, Node, Operand, Value, substitute, values_in

_UNINITIALISED = re.compile(r"aten\.(new_)?empty")
"""Ops that return whatever is in memory; lifted runs are compared, so there it is zeros."""

_LIFTED = (torch.float32, torch.float16, torch.bfloat16)


def execute(
    graph: Graph,
    tensors: Mapping[Value, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    lift: bool = False,
) -> Iterator[tuple[Node, list[Any]]]:
    """Run a graph in the torch dialect, yielding every node with its results.

    A value is dropped as soon as its last reader has run.

    Args:
        graph: to run.
        tensors: the data of its initializers.
        inputs: one tensor per graph input.
        lift: compute in float64, also where the graph itself casts to a lower precision: rounding then hides
            nothing. Tensors and inputs must be float64 already.
    """
    values: dict[Value, Any] = {**tensors, **dict(zip(graph.inputs, inputs, strict=True))}
    last = {value: node for node in graph.nodes for value in (*node.outputs, *node.inputs)}
    kept = set(values_in([output.operand for output in graph.outputs]))
    for node in graph.nodes:
        operands = {name: substitute(operand, values) for name, operand in node.operands.items()}
        results = list(_run(graph, node, _lift_dtypes(operands) if lift else operands, lift))
        values.update(zip(node.outputs, results, strict=True))
        yield node, results
        for value in {*node.inputs, *node.outputs}:
            if last[value] is node and value not in kept:
                values.pop(value, None)


def outputs(
    graph: Graph, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[torch.Tensor], *, lift: bool = False
) -> list[torch.Tensor]:
    """The tensors a graph returns."""
    values: dict[Value, Any] = {**tensors, **dict(zip(graph.inputs, inputs, strict=True))}
    wanted = [value for output in graph.outputs for value in values_in(output.operand)]
    for node, results in execute(graph, tensors, inputs, lift=lift):
        values.update((v, r) for v, r in zip(node.outputs, results, strict=True) if v in wanted)
    return [values[value] for value in wanted if value.is_tensor]


def lifted(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64 if it is a float of lower precision."""
    return tensor.detach().to(torch.float64) if tensor.dtype in _LIFTED else tensor.detach().clone()


def _run(graph: Graph, node: Node, operands: Mapping[str, Operand], lift: bool) -> Sequence[Any]:
    if not lift:
        return graph.dialect.run(node, operands)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        results = graph.dialect.run(node, operands)
    finally:
        torch.set_default_dtype(default)
    if _UNINITIALISED.match(node.op):
        for result in results:
            result.zero_()
    return results


def _lift_dtypes(operands: Mapping[str, Operand]) -> dict[str, Operand]:
    return pytree.tree_map_only(torch.dtype, lambda d: torch.float64 if d in _LIFTED else d, dict(operands))
