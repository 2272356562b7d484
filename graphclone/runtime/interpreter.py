"""Run a graph node by node, in its own precision or with every float lifted to float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Node, Value, evaluated, values_in

RunNode = Callable[[Node, Mapping[str, Any]], Sequence[Any]]
"""Computes a node's outputs from its operands as they are evaluated."""

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
    run: RunNode | None = None,
) -> Iterator[tuple[Node, list[Any]]]:
    """Run a graph, yielding every node with its results.

    An initializer is read when its first reader runs, and a value is dropped when its last reader has run. Both
    branches of a condition are run. One that is not wanted may not fit the inputs: what cannot be run of it, and what
    depends on that, is left out.

    Args:
        graph: to run.
        tensors: the data of its initializers.
        inputs: one tensor per graph input.
        lift: compute in float64, also where the graph itself casts to a lower precision: rounding then hides
            nothing. Tensors and inputs must be float64 already.
        run: computes a node in place of the dialect, and must compute branches that are not wanted as well.

    Raises:
        ExecutionError: naming the node that cannot be run.
    """
    optional = _optional(graph) if run is None else set()
    run = run or partial(graph.dialect.run, lift=lift)
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    failures: dict[Value, ExecutionError] = {}
    last = {value: node for node in graph.nodes for value in (*node.outputs, *node.inputs)}
    outputs = set(values_in([output.operand for output in graph.outputs]))
    for node in graph.nodes:
        values.update((v, tensors[v]) for v in node.inputs if v not in values and v not in failures)
        try:
            results = _results(node, values, failures, run)
        except ExecutionError as error:
            if node not in optional:
                raise
            failures.update(dict.fromkeys(node.outputs, error))
        else:
            values.update(zip(node.outputs, results, strict=True))
            yield node, results
        for value in {*node.inputs, *node.outputs}:
            if last[value] is node and value not in outputs:
                values.pop(value, None)


_CONDITIONS = ("onnx.If", "hop.cond")
_BRANCHES = ("then_branch", "else_branch")


def _optional(graph: Graph) -> set[Node]:
    """The nodes that branches of conditions want and nothing else; what writes into a value is always wanted."""
    needs = set(values_in([output.operand for output in graph.outputs]))
    perhaps: set[Value] = set()
    optional: set[Node] = set()
    for node in reversed(graph.nodes):
        own = set(node.outputs)
        if own & perhaps and not own & needs and not graph.dialect.mutates(node):
            optional.add(node)
        needed = set(_needed(node))
        (perhaps if node in optional else needs).update(needed)
        perhaps.update(set(node.inputs) - needed)
    return optional


def _needed(node: Node) -> Iterator[Value]:
    """What a node reads, but for the branches of a condition, one of which is enough."""
    branches = _BRANCHES if node.op in _CONDITIONS else ()
    return values_in([operand for name, operand in node.operands.items() if name not in branches])


def _results(
    node: Node, values: Mapping[Value, Any], failures: Mapping[Value, ExecutionError], run: RunNode
) -> list[Any]:
    """What a node computes.

    Raises:
        ExecutionError: it cannot be run, or what it needs could not: of a condition, the branch that it takes.
    """
    for value in _needed(node):
        if value in failures:
            raise failures[value]
    operands = {name: evaluated(operand, values) for name, operand in node.operands.items()}
    try:
        results = list(run(node, operands))
    except Exception as error:  # whatever the node's target raises
        raise ExecutionError(node, error) from error
    for result in results:
        if isinstance(result, Value) and result in failures:
            raise failures[result]
    return results


def outputs(
    graph: Graph, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[torch.Tensor], *, lift: bool = False
) -> list[torch.Tensor]:
    """The tensors a graph returns.

    Raises:
        ExecutionError: naming the node that cannot be run.
    """
    values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
    outputs = [value for _, value in output_tensors(graph)]
    for node, results in execute(graph, tensors, inputs, lift=lift):
        values.update((v, r) for v, r in zip(node.outputs, results, strict=True) if v in outputs)
    return [values[value] if value in values else tensors[value] for value in outputs]


def output_tensors(graph: Graph) -> list[tuple[str, Value]]:
    """The name and the value of every tensor that a graph returns, in order."""
    outputs = [(output.name, value) for output in graph.outputs for value in values_in(output.operand)]
    return [(name, value) for name, value in outputs if value.is_tensor]


def lifted(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64 if it is a float of lower precision."""
    return tensor.detach().to(torch.float64) if tensor.dtype in _LIFTED else tensor.detach().clone()
