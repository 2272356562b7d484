"""Run a graph node by node, in its own precision or with every float lifted to float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Node, Operand, Value, substitute, values_in

Run = Callable[[Node, Mapping[str, Operand]], Sequence[Any]]
"""Computes a node's outputs from its operands, values replaced by tensors."""

_LIFTED = (torch.float32, torch.float16, torch.bfloat16)


class ExecutionError(GraphcloneError):
    """A node could not be run.

    Attributes:
        node: the node.
        reason: what its target raised, in one line.
    """

    def __init__(self, node: Node, error: Exception) -> None:
        lines = str(error).strip().splitlines()
        self.node = node
        self.reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
        super().__init__(f"{node.name} ({node.op}) failed: {self.reason}")


def execute(
    graph: Graph,
    tensors: Mapping[Value, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    lift: bool = False,
    run: Run | None = None,
) -> Iterator[tuple[Node, list[Any]]]:
    """Run a graph, yielding every node with its results.

    An initializer is read when its first reader runs, and a value is dropped when its last reader has run.

    Args:
        graph: to run.
        tensors: the data of its initializers.
        inputs: one tensor per graph input.
        lift: compute in float64, also where the graph itself casts to a lower precision: rounding then hides
            nothing. Tensors and inputs must be float64 already.
        run: computes a node in place of the dialect.

    Raises:
        ExecutionError: naming the node that cannot be run.
    """
    run = run or partial(graph.dialect.run, lift=lift)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    last = {value: node for node in graph.nodes for value in (*node.outputs, *node.inputs)}
    kept = set(values_in([output.operand for output in graph.outputs]))
    for node in graph.nodes:
        values.update((v, tensors[v]) for v in node.inputs if v not in values)
        operands = {name: substitute(operand, values) for name, operand in node.operands.items()}
        try:
            results = list(run(node, operands))
        except Exception as error:  # whatever the node's target raises
            raise ExecutionError(node, error) from error
        values.update(zip(node.outputs, results, strict=True))
        yield node, results
        for value in {*node.inputs, *node.outputs}:
            if last[value] is node and value not in kept:
                values.pop(value, None)


def outputs(
    graph: Graph, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[torch.Tensor], *, lift: bool = False
) -> list[torch.Tensor]:
    """The tensors a graph returns.

    Raises:
        ExecutionError: naming the node that cannot be run.
    """
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    wanted = [value for _, value in output_tensors(graph)]
    for node, results in execute(graph, tensors, inputs, lift=lift):
        values.update((v, r) for v, r in zip(node.outputs, results, strict=True) if v in wanted)
    return [values[value] if value in values else tensors[value] for value in wanted]


def output_tensors(graph: Graph) -> list[tuple[str, Value]]:
    """The name and the value of every tensor that a graph returns, in order."""
    returned = [(output.name, value) for output in graph.outputs for value in values_in(output.operand)]
    return [(name, value) for name, value in returned if value.is_tensor]


def lifted(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64 if it is a float of lower precision."""
    return tensor.detach().to(torch.float64) if tensor.dtype in _LIFTED else tensor.detach().clone()
