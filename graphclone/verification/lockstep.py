"""Run source and clone side by side, and check the invariant at every value.

``T'[i1, .., ir] = c T[g1(i1), .., gr(ir)]``: in float64 it holds to rounding at every node or something is
wrong, and the first node where it does not is where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._functorch import is_batchedtensor

from graphclone.graph.ir import Graph, Initializer, Node, Value
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, execute, lifted, output_tensors
from graphclone.runtime.kernel import widen
from graphclone.runtime.maps import Maps, widened_inputs
from graphclone.runtime.threads import workers

Reader = Callable[[Initializer], torch.Tensor]
"""Gives the data of an initializer of the source."""

VALUE_TOLERANCE = 1e-10
OUTPUT_TOLERANCE = 1e-12
"""Greatest deviations in float64 of a value and of an output, relative to its greatest magnitude."""

_HUGE = 1e30
"""Magnitudes beyond this are masks; beside them everything else would look like rounding."""


@dataclass(frozen=True)
class Deviation:
    """A value that breaks the invariant.

    Attributes:
        value: its name.
        op: the op that computed it, by whose rule it should hold.
        scope: the module the op belongs to.
        error: greatest deviation over the greatest magnitude; infinite where shapes differ.
        detail: what was compared.
    """

    value: str
    op: str
    scope: str
    error: float
    detail: str

    @classmethod
    def at(cls, node: Node, value: str, error: float, detail: str) -> Deviation:
        """At a value that a node computed."""
        return cls(value, node.op, node.scope, error, detail)

    def __str__(self) -> str:
        where = f" in {self.scope}" if self.scope else ""
        by = f" (rule of {self.op}{where})" if self.op else ""
        return f"{self.value}{by}: {self.detail}"


@dataclass(frozen=True)
class Lockstep:
    """The result of a side-by-side run.

    Attributes:
        worst: greatest relative error of any value.
        output: greatest relative error of any output.
        values: how many values were compared.
        first: the first value, in graph order, that breaks the invariant.
        unmeasured: the outputs of which no element is finite, so that nothing is known about them.
    """

    worst: float
    output: float
    values: int
    first: Deviation | None
    unmeasured: tuple[str, ...] = ()


class Lazy(Mapping[Value, torch.Tensor]):
    """Tensors that are computed when they are read, and not kept."""

    def __init__(self, graph: Graph, read: Reader) -> None:
        self._initializers = graph.initializer_of()
        self._read = read

    def __getitem__(self, value: Value) -> torch.Tensor:
        return self._read(self._initializers[value])

    def __iter__(self) -> Iterator[Value]:
        return iter(self._initializers)

    def __len__(self) -> int:
        return len(self._initializers)


def lifted_tensor(initializer: Initializer) -> torch.Tensor:
    """An initializer of the source in float64."""
    return lifted(initializer.read())


def lazily_widened(state: State, read: Reader = lifted_tensor) -> Lazy:
    """The data of the clone's initializers, made from the source's by their recipes one at a time."""
    recipes = _recipes(state)
    return Lazy(state.graph, lambda i: widen(read(i), recipes[i.value]))


def widened_tensors(state: State) -> dict[Value, torch.Tensor]:
    """The data of all the clone's initializers in their own dtype, from their recipes."""
    recipes = _recipes(state)
    with workers() as pool:
        found = pool.map(lambda i: widen(i.read().detach(), recipes[i.value]), state.graph.initializers)
        return dict(zip((i.value for i in state.graph.initializers), found, strict=True))


def _recipes(state: State) -> Mapping[Value, Any]:
    return state.recipes


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
        ExecutionError: the source cannot be run on these inputs. A clone that cannot is a deviation.
    """
    inputs = [lifted(tensor) for tensor in inputs]
    tensors = lazily_widened(state, read) if tensors is None else tensors
    clone = execute(state.graph, tensors, widened_inputs(state, inputs), lift=True)
    return _Comparison(state, Maps(state, inputs), clone).run(state.source, Lazy(state.source, read), inputs)


class _Comparison:
    """A side-by-side run: the source leads, the clone follows by the names of the nodes."""

    def __init__(self, state: State, maps: Maps, clone: Iterator[tuple[Node, list[Any]]]) -> None:
        self.state = state
        self.maps = maps
        self.clone = clone
        self.by_name = {value.name: value for value in state.facts.of}
        self.returned = {value for _, value in output_tensors(state.graph)}
        self.kept: dict[Value, torch.Tensor] = {}
        self.worst = 0.0
        self.values = 0
        self.first: Deviation | None = None
        self.unmeasured: list[str] = []

    def run(self, source: Graph, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[Any]) -> Lockstep:
        returned = [value for _, value in output_tensors(source)]
        kept = dict(zip(source.inputs, inputs, strict=True))
        for node, results in execute(source, tensors, inputs, lift=True):
            computed = dict(zip(node.outputs, results, strict=True))
            kept.update((value, computed[value]) for value in node.outputs if value in returned)
            self._step(node, computed)
        for _ in self._clone_until(None):  # what was put in after the last node of the source
            pass
        outputs = [kept[v] if v in kept else tensors[v] for v in returned]
        error = self._output_error(outputs)
        return Lockstep(self.worst, error, self.values, self.first, tuple(self.unmeasured))

    def _step(self, node: Node, computed: Mapping[Value, Any]) -> None:
        """Compare one node, unless the clone has failed before."""
        for match, results in self._clone_until(node.name):
            for (value, a), b in zip(computed.items(), results, strict=True):
                if comparable(self.state, self.by_name.get(value.name), a):
                    self.values += bool(measured_elements(a))
                    self._note(self._deviation(match, self.by_name[value.name], a, b))

    def _clone_until(self, name: str | None) -> Iterator[tuple[Node, list[Any]]]:
        """Run the clone up to the node of that name, past nodes of its own, and yield it."""
        try:
            for node, results in self.clone:
                computed = zip(node.outputs, results, strict=True)
                self.kept.update((value, result) for value, result in computed if value in self.returned)
                if node.name == name:
                    yield node, results
                    return
        except ExecutionError as error:
            self._note(Deviation.at(error.node, error.node.outputs[0].name, float("inf"), error.reason))

    def _output_error(self, expected: Sequence[torch.Tensor]) -> float:
        """The greatest relative error of what the clone returns; infinite where it returns nothing."""
        worst = 0.0
        for (name, value), tensor in zip(output_tensors(self.state.graph), expected, strict=True):
            if value.producer is None:  # an input or an initializer, returned as it is
                continue
            if not measured_elements(tensor):
                self.unmeasured.append(name)
            wide = self.maps.widened(value, tensor)
            actual = self.kept.get(value)
            fits = actual is not None and actual.shape == wide.shape
            error = relative_error(wide, actual) if actual is not None and fits else float("inf")
            deviation = Deviation.at(value.producer, name, error, f"relative error {error:.1e}")
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
        error = relative_error(expected, b)
        return Deviation.at(node, value.name, error, f"relative error {error:.1e}")


def comparable(state: State, value: Value | None, result: Any) -> bool:
    """Whether a result of the source says what the clone's must be.

    A number does not, nor does what is inside a vmap, nor a view of a contracted weight, which is not repeated but
    shared out.
    """
    if value is None or not isinstance(result, torch.Tensor) or is_batchedtensor(result):
        return False
    return state.facts.source(value) not in state.facts.folded


def measured_elements(expected: torch.Tensor) -> int:
    """How many elements say something about what is compared with them: the finite ones. NaN equals nothing."""
    return int(expected.isfinite().sum())


def difference(expected: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Absolute deviation of every element: infinite where one is NaN; 0 where both are, which measures nothing."""
    if not expected.is_floating_point() and not expected.is_complex():
        return (expected != actual).to(torch.float64)
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    distance = (expected - actual).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    return torch.where(same, torch.zeros_like(distance), distance)


def magnitude(tensor: torch.Tensor) -> float:
    """The greatest finite magnitude, that of masks apart; 0 where there is none."""
    size = tensor.abs() if tensor.is_complex() else tensor.to(torch.float64).abs()
    size = size[size < _HUGE]
    return float(size.max()) if size.numel() else 0.0


def relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Greatest deviation over the greatest magnitude; 0 where nothing can be measured: see ``measured_elements``.

    Elements that are huge, masks as a rule, are held against their own magnitude.
    """
    if expected.numel() == 0 or torch.equal(expected, actual):
        return 0.0
    if not expected.is_floating_point() and not expected.is_complex():
        return float("inf")
    size, furthest = expected.abs().max(), (expected - actual).abs().max()
    if size < _HUGE and furthest.isfinite():  # nearly always, and much quicker
        return float(furthest) / max(float(size), 1e-300)
    return _relative_error_beside_masks(expected, actual)


def _relative_error_beside_masks(expected: torch.Tensor, actual: torch.Tensor) -> float:
    distance = difference(expected, actual)
    own = expected.abs()
    huge = (own >= _HUGE) & own.isfinite()
    of_masks = float((distance[huge] / own[huge]).max()) if huge.any() else 0.0
    of_others = float(distance[~huge].max()) if not huge.all() else 0.0
    return max(of_masks, of_others / max(magnitude(expected), 1e-300))
