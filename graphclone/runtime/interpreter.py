"""Run a graph node by node, in its own precision or with every float lifted to float64."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Node, Value, evaluated, values_in
from graphclone.runtime.loops import Rounds, spans

RunNode = Callable[[Node, Mapping[str, Any]], Sequence[Any]]
"""Computes a node's outputs from its operands as they are evaluated."""

_LIFTED = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}


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


class MemoryShortageError(ExecutionError):
    """A node could not be run for want of memory, which says nothing about it."""


def _failure(node: Node, error: Exception) -> ExecutionError:
    short = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return MemoryShortageError(node, error) if short else ExecutionError(node, error)


def execute(
    graph: Graph,
    tensors: Mapping[Value, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    lift: bool = False,
    run: RunNode | None = None,
) -> Iterator[tuple[Node, list[Any]]]:
    """Run a graph, yielding every node with its results.

    An initializer is read when its first reader runs, and a value is dropped when its last reader has run. The nodes of
    a loop's body come once for every round. Both
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
    yield from _Execution(graph, tensors, inputs, optional, run).nodes(0, len(graph.nodes))


class _Execution:
    """One run of a graph."""

    def __init__(
        self,
        graph: Graph,
        tensors: Mapping[Value, torch.Tensor],
        inputs: Sequence[torch.Tensor],
        optional: Collection[Node],
        run: RunNode,
    ) -> None:
        self.tensors, self.optional, self.run = tensors, optional, run
        self.all = graph.nodes
        self.ends = spans(graph.nodes)
        self.expiring = _expiring(graph, self.ends)
        self.values: dict[Value, Any] = dict(zip(graph.inputs, inputs, strict=True))
        self.lost: dict[Value, ExecutionError] = {}

    def nodes(self, start: int, stop: int) -> Iterator[tuple[Node, list[Any]]]:
        """Run the nodes from one place to another, and let go of what no later one reads."""
        place = start
        while place < stop:
            if place in self.ends:
                yield from self.loop(place, self.ends[place])
                place = self.ends[place]
            else:
                yield from self.node(self.all[place])
            for value in self.expiring.get(place, ()):
                self.values.pop(value, None)
            place += 1

    def node(self, node: Node) -> Iterator[tuple[Node, list[Any]]]:
        try:
            results = self.results(node)
        except ExecutionError as error:
            self.lose([node], error)
        else:
            yield self.computed(node, results)

    def loop(self, start: int, stop: int) -> Iterator[tuple[Node, list[Any]]]:
        """Run a loop; every round yields the nodes of the body anew."""
        first, last = self.all[start], self.all[stop]
        try:
            rounds = _tried(first, Rounds, first, last, self.operands(first))
            while (begun := _tried(first, rounds.begin)) is not None:
                yield self.computed(first, begun)
                yield from self.nodes(start + 1, stop)
                _tried(last, rounds.end, self.operands(last))
            results = _tried(last, rounds.results)
        except ExecutionError as error:
            self.lose(self.all[start : stop + 1][::-1], error)
        else:
            yield self.computed(last, results)

    def computed(self, node: Node, results: list[Any]) -> tuple[Node, list[Any]]:
        self.values.update(zip(node.outputs, results, strict=True))
        for value in node.outputs if self.lost else ():  # in an earlier round
            self.lost.pop(value, None)
        return node, results

    def lose(self, nodes: Sequence[Node], error: ExecutionError) -> None:
        """Do without the results of nodes, if nothing but a branch that may not be wanted reads those of the first.

        Raises:
            ExecutionError: something does.
        """
        if nodes[0] not in self.optional:
            raise error
        for value in (value for node in nodes for value in node.outputs):
            self.lost[value] = error
            self.values.pop(value, None)

    def operands(self, node: Node) -> dict[str, Any]:
        """The operands of a node as they are evaluated.

        Raises:
            ExecutionError: that of an operand which could not be computed.
        """
        for value in _needed(node):
            if value in self.lost:
                raise self.lost[value]
        new = (value for value in node.inputs if value not in self.values and value not in self.lost)
        self.values.update((value, self.tensors[value]) for value in new)
        return {name: evaluated(operand, self.values) for name, operand in node.operands.items()}

    def results(self, node: Node) -> list[Any]:
        """What a node computes.

        Raises:
            ExecutionError: it cannot be run, or what it needs could not: of a condition, the branch that it takes.
        """
        results = list(_tried(node, self.run, node, self.operands(node)))
        for result in results:
            if isinstance(result, Value) and result in self.lost:
                raise self.lost[result]
        return results


_Result = TypeVar("_Result")


def _tried(node: Node, function: Callable[..., _Result], *args: Any) -> _Result:
    """What a function gives; whatever it raises is an error of the node."""
    try:
        return function(*args)
    except Exception as error:
        raise _failure(node, error) from error


def _expiring(graph: Graph, ends: Mapping[int, int]) -> dict[int, list[Value]]:
    """What no node reads after a place, by place; what is read in a loop is kept until its end."""
    last: dict[Value, int] = {}
    end = 0
    for place, node in enumerate(graph.nodes):
        end = max(end, ends.get(place, place))
        last.update(dict.fromkeys((*node.outputs, *node.inputs), end))
    kept = set(values_in([output.operand for output in graph.outputs]))
    expiring: dict[int, list[Value]] = {}
    for value, place in last.items():
        if value not in kept:
            expiring.setdefault(place, []).append(value)
    return expiring


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
    """What a node reads, without the branches of a condition, since one branch is enough."""
    branches = _BRANCHES if node.op in _CONDITIONS else ()
    return values_in([operand for name, operand in node.operands.items() if name not in branches])


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
    """A copy of a tensor, in float64 if it is a float of lower precision, and complex numbers alike."""
    return tensor.detach().to(lifted_dtype(tensor.dtype), copy=True)


def lifted_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which numbers of a dtype are computed with where they are lifted."""
    return _LIFTED.get(dtype, dtype)
