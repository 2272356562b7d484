"""Input sets with what the source computes for them, in its own precision and in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from graphclone.checks import NoiseFloor, error, noise_floor, reference
from graphclone.input_sets import InputSet, candidates, example_tensors
from graphclone.interpreter import ExecutionError, lifted, output_tensors, outputs
from graphclone.ir import Graph
from graphclone.lockstep import Lazy, lifted_tensor, measured_elements
from graphclone.maps import Maps
from graphclone.pipeline import State
from graphclone.shaking import SHAKES, shaken

if TYPE_CHECKING:
    from graphclone.cloning import Clone


@dataclass(frozen=True)
class Sample:
    """What the source gives for one input set.

    Attributes:
        inputs: of the source.
        own: its outputs in its own precision.
        exact: its outputs in float64; its own where these overflow and float64 does not.
        noise: greatest error of every output, of its own and of runs whose weights are a rounding off.
    """

    inputs: InputSet
    own: Sequence[torch.Tensor]
    exact: Sequence[torch.Tensor]
    noise: Sequence[float]


def draw_samples(clone: Clone, sets: int, seed: int) -> Iterator[Sample]:
    """The example and random input sets of other sizes, all of which the source accepts.

    Args:
        clone: gives the example inputs and the source.
        sets: how many, at most.
        seed: of the random ones; each has its own.

    Raises:
        GraphcloneError: the source cannot be run on the example inputs.
    """
    source = clone.state.source
    assert source is not None
    examples = example_tensors(source, clone.args, clone.kwargs or {})
    yield _sample(source, InputSet(examples))
    for index in range(1, sets):
        tried = candidates(source, examples, index, seed + index)
        accepted = (sample for inputs in tried if (sample := _maybe_sample(source, inputs)) is not None)
        if (sample := next(accepted, None)) is not None:
            yield sample


def _maybe_sample(source: Graph, inputs: InputSet) -> Sample | None:
    """None where the source refuses the inputs, or returns nothing that could be compared."""
    try:
        sample = _sample(source, inputs)
    except ExecutionError:
        return None
    return sample if all(measured_elements(t) for t in sample.exact) else None


def _sample(source: Graph, inputs: InputSet) -> Sample:
    own = outputs(source, own_tensors(source), inputs.copies())
    lifted_inputs = [lifted(tensor) for tensor in inputs.tensors]
    exact = outputs(source, Lazy(source, lifted_tensor), lifted_inputs, lift=True)
    exact = [reference(truth, mine) for truth, mine in zip(exact, own, strict=True)]
    runs = [own, *(outputs(source, _shaken_tensors(source, seed), inputs.copies()) for seed in range(SHAKES))]
    noise = [max(error(truth, run[i]) for run in runs) for i, truth in enumerate(exact)]
    return Sample(inputs, own, exact, noise)


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
    floors = []
    maps = Maps(state, sample.inputs.tensors)
    returned = output_tensors(state.graph)
    for (name, value), exact, noise, own, wide in zip(returned, sample.exact, sample.noise, source, clone, strict=True):
        floor = noise_floor(name, (exact, own), (maps.widened(value, exact), wide))
        floors.append(replace(floor, source=max(floor.source, noise)))
    return floors
