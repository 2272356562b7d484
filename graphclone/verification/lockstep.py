"""Run source and clone side by side, and check the invariant at every value.

``T'[i1, .., ir] = c T[g1(i1), .., gr(ir)]``: in float64 it holds to rounding at every node or something is
wrong, and the first node where it does not is where.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch._C._functorch import is_batchedtensor

from graphclone.graph.ir import Graph, Initializer, Node, Value
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, MemoryShortageError, execute, lifted, output_tensors
from graphclone.runtime.maps import Maps, widened_inputs
from graphclone.runtime.pads import Reader
from graphclone.runtime.tensors import Lazy, lazily_widened, lifted_tensor
from graphclone.verification.distance import (
    OUTPUT_TOLERANCE,
    VALUE_TOLERANCE,
    Deviation,
    magnitude,
    measured_elements,
    relative_error,
)
from graphclone.verification.rounding import SHAKES, shaken

_FACTOR = 32.0
"""How many times as far as a rounding moves a value of the source the clone's may be: it adds up more numbers."""


@dataclass(frozen=True)
class Lockstep:
    """The result of a side-by-side run.

    Attributes:
        worst: greatest relative error of any value.
        output: greatest relative error of any output.
        values: how many values were compared.
        first: the first value, in graph order, that breaks the invariant.
        unmeasured: outputs without a finite element, about which nothing can be said.
        errors: the name and the relative error of every value that was compared, in graph order.
    """

    worst: float
    output: float
    values: int
    first: Deviation | None
    unmeasured: tuple[str, ...] = ()
    errors: tuple[tuple[str, float], ...] = ()


def run_lockstep(
    state: State,
    inputs: Sequence[torch.Tensor],
    *,
    read: Reader = lifted_tensor,
    tensors: Mapping[Value, torch.Tensor] | None = None,
) -> Lockstep:
    """Compare every value of source and clone in float64, but for views of weights that share out a sum.

    Args:
        state: after the whole pipeline.
        inputs: of the source, one per graph input; replicated where the clone's inputs grew.
        read: gives the source's initializers in float64.
        tensors: float64 data of the clone's initializers; made from what ``read`` gives if not given.

    Raises:
        ExecutionError: the source cannot be run on these inputs, or memory does not suffice for the clone. A clone that
            cannot be run for another reason is a deviation.
    """
    inputs = [lifted(tensor) for tensor in inputs]
    tensors = lazily_widened(state, read) if tensors is None else tensors

    def compared(own: Mapping[str, float]) -> Lockstep:
        clone = execute(state.graph, tensors, widened_inputs(state, inputs), lift=True)
        comparison = _Comparison(state, Maps(state, inputs, read), clone, own)
        return comparison.run(state.source, Lazy(state.source, read), inputs)

    result = compared({})
    if result.first is None or not isfinite(result.first.error):
        return result
    sums = {value.name for value, summands in state.facts.summands.items() if len(summands) > 1}
    try:
        return compared(own_errors(state.source, inputs, read, sums))
    except ExecutionError:  # memory does not suffice for another look
        return result


def own_errors(
    graph: Graph, inputs: Sequence[torch.Tensor], read: Reader, sums: Collection[str] = ()
) -> dict[str, float]:
    """How far each value of a graph moves with rounding, relative to its greatest magnitude.

    A value that is 0 but for rounding, such as the mean of what a norm has centred, moves as far as it is from 0. The
    graph is run with weights and inputs that are a rounding off.

    Args:
        graph: the source.
        inputs: of it, in float64.
        read: gives its initializers in float64.
        sums: the names of values that are sums of others, and so no more exact than these.
    """

    def run(seed: int) -> Iterator[tuple[Node, list[Any]]]:
        def moved(initializer: Initializer) -> torch.Tensor:
            return shaken(read(initializer), initializer.name, seed)

        given = [shaken(x, value.name, seed) for value, x in zip(graph.inputs, inputs, strict=True)]
        return execute(graph, Lazy(graph, moved), given, lift=True)

    errors: dict[str, float] = {}
    sizes = {value: magnitude(x) for value, x in zip(graph.inputs, inputs, strict=True) if x.is_floating_point()}
    base = execute(graph, Lazy(graph, read), inputs, lift=True)
    for (node, expected), *others in zip(base, *map(run, range(SHAKES)), strict=False):
        for value, result in zip(node.outputs, expected, strict=True):
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                sizes[value] = magnitude(result)
                added = max((sizes.get(operand, 0.0) for operand in node.inputs), default=0.0)
                if value.name in sums:
                    errors[value.name] = torch.finfo(torch.float64).eps * added / max(sizes[value], 1e-300)
        for _, results in others:
            for value, a, b in zip(node.outputs, expected, results, strict=True):
                if isinstance(a, torch.Tensor) and a.is_floating_point() and a.shape == b.shape:
                    errors[value.name] = max(errors.get(value.name, 0.0), relative_error(a, b))
    return errors


class _Comparison:
    """A side-by-side run: the source leads, the clone follows by the names of the nodes."""

    def __init__(
        self, state: State, maps: Maps, clone: Iterator[tuple[Node, list[Any]]], own: Mapping[str, float]
    ) -> None:
        self.state = state
        self.maps = maps
        self.clone = clone
        self.own = own
        self.by_name = {value.name: value for value in state.facts.of}
        self.output_values = {value for _, value in output_tensors(state.graph)}
        self.outputs: dict[Value, torch.Tensor] = {}
        self.worst = 0.0
        self.values = 0
        self.first: Deviation | None = None
        self.unmeasured: list[str] = []
        self.errors: list[tuple[str, float]] = []

    def run(self, source: Graph, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[Any]) -> Lockstep:
        output_values = [value for _, value in output_tensors(source)]
        values = dict(zip(source.inputs, inputs, strict=True))
        for node, results in execute(source, tensors, inputs, lift=True):
            computed = dict(zip(node.outputs, results, strict=True))
            values.update((value, computed[value]) for value in node.outputs if value in output_values)
            self._step(node, computed)
        for _ in self._clone_until(None):  # what was put in after the last node of the source
            pass
        outputs = [values[v] if v in values else tensors[v] for v in output_values]
        error = self._output_error(outputs, [value.name for value in output_values])
        unmeasured, errors = tuple(self.unmeasured), tuple(self.errors)
        return Lockstep(self.worst, error, self.values, self.first, unmeasured, errors)

    def _step(self, node: Node, computed: Mapping[Value, Any]) -> None:
        """Compare one node, unless the clone has failed before."""
        for match, results in self._clone_until(node):
            for (value, a), b in zip(computed.items(), results, strict=True):
                if comparable(self.state, self.by_name.get(value.name), a):
                    self.values += bool(measured_elements(a))
                    deviation = self._deviation(match, self.by_name[value.name], a, b)
                    if VALUE_TOLERANCE < deviation.error <= _FACTOR * self.own.get(value.name, 0.0):
                        continue  # there is nothing of it but rounding
                    self.errors.append((value.name, deviation.error))
                    self._note(deviation)

    def _clone_until(self, target: Node | None) -> Iterator[tuple[Node, list[Any]]]:
        """Run the clone up to the node of the source's name, past nodes of its own, and yield it."""
        try:
            for node, results in self.clone:
                computed = zip(node.outputs, results, strict=True)
                self.outputs.update((value, result) for value, result in computed if value in self.output_values)
                if target is not None and node.name == target.name:
                    yield node, results
                    return
            if target is not None:  # in a branch that is not taken, which may fail, if the source's does
                detail = "the clone cannot compute it"
                self._note(Deviation.at(target, target.outputs[0].name, float("inf"), detail))
        except MemoryShortageError:
            raise
        except ExecutionError as error:
            self._note(Deviation.at(error.node, error.node.outputs[0].name, float("inf"), error.reason))

    def _output_error(self, expected: Sequence[torch.Tensor], names: Sequence[str]) -> float:
        """The greatest relative error of what the clone returns; infinite where it returns nothing."""
        worst = 0.0
        for (name, value), tensor, of_source in zip(output_tensors(self.state.graph), expected, names, strict=True):
            if value.producer is None:  # an input or an initializer, returned as it is
                continue
            if not measured_elements(tensor):
                self.unmeasured.append(name)
            wide = self.maps.widened(value, tensor)
            actual = self.outputs.get(value)
            fits = actual is not None and actual.shape == wide.shape
            error = relative_error(wide, actual) if actual is not None and fits else float("inf")
            deviation = Deviation.at(value.producer, name, error, f"relative error {error:.1e}")
            if OUTPUT_TOLERANCE < error <= _FACTOR * self.own.get(of_source, 0.0):
                continue
            self._note(deviation, OUTPUT_TOLERANCE)
            worst = max(worst, error)
        return worst

    def _note(self, deviation: Deviation, tolerance: float = VALUE_TOLERANCE) -> None:
        self.worst = max(self.worst, deviation.error)
        if self.first is None and not deviation.error <= tolerance:
            self.first = deviation

    def _deviation(self, node: Node, value: Value, a: torch.Tensor, b: torch.Tensor) -> Deviation:
        expected = self.maps.rescaled(value, a)
        if expected.shape != b.shape:
            detail = f"shape {tuple(b.shape)}, expected {tuple(expected.shape)}"
            return Deviation.at(node, value.name, float("inf"), detail)
        error = relative_error(*(self.maps.compared(value, a, wide) for wide in (expected, b)))
        return Deviation.at(node, value.name, error, f"relative error {error:.1e}")


def comparable(state: State, value: Value | None, result: Any) -> bool:
    """Whether a result of the source says what the clone's must be.

    A number does not, nor does what is inside a vmap, nor a view of a contracted weight, which is not repeated but
    shared out, nor what nobody reads, such as the positions of the greatest elements.
    """
    if value is None or value in state.facts.unread or not isinstance(result, torch.Tensor) or is_batchedtensor(result):
        return False
    return state.facts.source(value) not in state.facts.folded
