"""Input sets with what the source computes for them, in its own precision and in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import Exported, input_leaves
from graphclone.formats.torch.input_sets import InputSet, call_with, candidates, example_tensors
from graphclone.formats.torch.running import SEED, RunError, run_module
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.drawing import drawn_since
from graphclone.runtime.interpreter import ExecutionError, lifted, output_tensors, outputs
from graphclone.runtime.maps import Maps
from graphclone.runtime.tensors import Lazy, lifted_tensor
from graphclone.verification.checks import NoiseFloor, noise_floor, reference, rounding
from graphclone.verification.distance import measured_elements
from graphclone.verification.rounding import SHAKES, shaken


@dataclass(frozen=True)
class Sample:
    """The results of the source for one input set.

    Attributes:
        inputs: of the source.
        own: its outputs in its own precision.
        source: the trace that was run.
        module: what the user's own module computes for them; None where there is none.
        draws: whether it draws random numbers.
    """

    inputs: InputSet
    own: Sequence[torch.Tensor]
    source: Graph
    module: Sequence[torch.Tensor] | None = None
    draws: bool = False

    @cached_property
    def exact(self) -> Sequence[torch.Tensor]:
        """Its outputs in float64; its own where it draws random numbers, or where these overflow and float64 does not.

        Raises:
            ExecutionError: the trace cannot be run in float64.
        """
        if self.draws:
            return [lifted(tensor) for tensor in self.own]  # float64 draws other numbers
        inputs = [lifted(tensor) for tensor in self.inputs.tensors]
        exact = outputs(self.source, Lazy(self.source, lifted_tensor), inputs, lift=True)
        return [reference(truth, mine) for truth, mine in zip(exact, self.own, strict=True)]

    @cached_property
    def noise(self) -> Sequence[float]:
        """Greatest error of every output, of its own and of runs whose weights are a rounding off; run when asked."""
        runs = [
            self.own,
            *(_seeded_run(self.source, _shaken_tensors(self.source, s), self.inputs) for s in range(SHAKES)),
        ]
        return [max(rounding(truth, run[i]) for run in runs) for i, truth in enumerate(self.exact)]

    def floor(self, index: int, name: str, own: torch.Tensor, clone: tuple[torch.Tensor, torch.Tensor]) -> NoiseFloor:
        """The errors of an output.

        How far rounding takes the source at most is asked only where its own error does not explain that of the clone.

        Args:
            index: of the output.
            name: of the output.
            own: what the source gives, in torch or elsewhere.
            clone: what the clone should give, and what it gives.
        """
        return noise_floor(name, (self.exact[index], own), clone).unless_explained(lambda: self.noise[index])


def draw_samples(state: State, example: Example, sets: int, seed: int) -> Iterator[Sample]:
    """The example and random input sets of other sizes, all of which the source accepts, and its trace holds for.

    Args:
        state: gives the source.
        example: the inputs that come first.
        sets: how many, at most.
        seed: of the random ones; each has its own.

    Raises:
        GraphcloneError: the source cannot be run on the example inputs.
    """
    source = state.model
    examples = example_tensors(source, example)
    yield take_sample(state, example, InputSet(examples))
    for index in range(1, sets):
        input_sets = candidates(source, examples, index, seed + index)
        accepted = (sample for inputs in input_sets if (sample := _maybe_sample(state, example, inputs)) is not None)
        if (sample := next(accepted, None)) is not None:
            yield sample


def _maybe_sample(state: State, example: Example, inputs: InputSet) -> Sample | None:
    """None where the source refuses the inputs, its trace claims nothing, or nothing comes out that can be compared."""
    if not holds(state.graph, example, inputs):
        return None
    try:
        sample = take_sample(state, example, inputs)
    except (ExecutionError, RunError):
        return None
    return sample if all(map(measured_elements, sample.own)) else None


def holds(graph: Graph, example: Example, inputs: InputSet) -> bool:
    """Whether the trace of the source claims to hold for inputs."""
    exported = graph.origin_as(Exported)
    args, kwargs = call_with(graph, example, inputs.tensors)
    return not any(exported.guards.violations(input_leaves(exported.program, args, kwargs)))


def take_sample(state: State, example: Example, inputs: InputSet) -> Sample:
    """Run the source on inputs.

    Raises:
        ExecutionError: the trace cannot be run on them.
        RunError: the user's module cannot.
    """
    source, module = state.model, None
    if example.model is not None:
        module = run_module(example.model, source, example, inputs.tensors)
    own = _seeded_run(source, own_tensors(source), inputs)
    return Sample(inputs, own, source, module, draws=drawn_since(SEED) is not None)


def _seeded_run(graph: Graph, weights: Lazy, inputs: InputSet) -> list[torch.Tensor]:
    torch.manual_seed(SEED)
    return outputs(graph, weights, inputs.copies())


def _shaken_tensors(graph: Graph, seed: int) -> Lazy:
    """The initializers of a graph with every weight a rounding off."""
    return Lazy(graph, lambda initializer: shaken(initializer.read(), initializer.name, seed))


def own_tensors(graph: Graph) -> Lazy:
    """The initializers of a graph in their own precision, copied when they are read."""
    return Lazy(graph, lambda initializer: initializer.read().detach().clone())


def compare(
    state: State, sample: Sample, source: Sequence[torch.Tensor], clone: Sequence[torch.Tensor]
) -> list[NoiseFloor]:
    """The errors of every output that source and clone return for a sample, in their own precision."""
    maps = Maps(state, sample.inputs.tensors)
    outputs = zip(output_tensors(state.graph), sample.exact, source, clone, strict=True)
    return [
        sample.floor(index, name, own, (maps.widened(value, exact), wide))
        for index, ((name, value), exact, own, wide) in enumerate(outputs)
    ]
