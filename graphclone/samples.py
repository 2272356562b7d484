"""Input sets with what the source computes for them, in its own precision and in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from graphclone.checks import NoiseFloor, noise_floor
from graphclone.input_sets import InputSet, candidates, example_tensors
from graphclone.interpreter import ExecutionError, lifted, output_tensors, outputs
from graphclone.ir import Graph
from graphclone.lockstep import Lazy, lifted_tensor
from graphclone.maps import Maps
from graphclone.pipeline import State

if TYPE_CHECKING:
    from graphclone.cloning import Clone


@dataclass(frozen=True)
class Sample:
    """What the source gives for one input set.

    Attributes:
        inputs: of the source.
        own: its outputs in its own precision.
        exact: its outputs in float64.
    """

    inputs: InputSet
    own: Sequence[torch.Tensor]
    exact: Sequence[torch.Tensor]


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
    return sample if all(t.isfinite().any() for t in sample.exact if t.numel()) else None


def _sample(source: Graph, inputs: InputSet) -> Sample:
    own = outputs(source, own_tensors(source), [tensor.clone() for tensor in inputs.tensors])
    lifted_inputs = [lifted(tensor) for tensor in inputs.tensors]
    return Sample(inputs, own, outputs(source, Lazy(source, lifted_tensor), lifted_inputs, lift=True))


def own_tensors(graph: Graph) -> Lazy:
    """The initializers of a graph in their own precision, copied when they are read."""
    return Lazy(graph, lambda initializer: initializer.tensor.detach().clone())


def compare(
    state: State, sample: Sample, source: Sequence[torch.Tensor], clone: Sequence[torch.Tensor]
) -> list[NoiseFloor]:
    """The errors of every output that source and clone return for a sample, in their own precision."""
    floors = []
    maps = Maps(state, sample.inputs.tensors)
    returned = output_tensors(state.graph)
    for (name, value), exact, own, wide in zip(returned, sample.exact, source, clone, strict=True):
        floors.append(noise_floor(name, (exact, own), (maps.widened(value, exact), wide)))
    return floors
