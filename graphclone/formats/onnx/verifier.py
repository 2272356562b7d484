"""Whether the clone of an ONNX file computes what the file computes.

1. static: read anew, every tensor of the clone has the shape that the layouts predict;
2. exact: in float64, by onnx's reference implementation, every value is the source's, through the maps;
3. ONNX Runtime: outputs are as near to float64 as the source's are, or, where float64 is not to be had, as near to
   the source's as those are to a source with other rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.compared import compared_numbers
from graphclone.formats.onnx.drawn_inputs import DrawnInputs, Feeds, UserInputs
from graphclone.formats.onnx.reader import Origin
from graphclone.formats.onnx.reading import read_facts
from graphclone.formats.onnx.runs import Run, check_clone, output, rounding_floor, shapes_of, source_runs
from graphclone.formats.onnx.saving import write_model
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.formats.onnx.writer import to_model
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, lifted, output_tensors, outputs
from graphclone.runtime.maps import Maps, RankError, widened_inputs
from graphclone.runtime.sessions import Provider, Session, check_provider
from graphclone.runtime.tensors import Lazy, lifted_tensor
from graphclone.verification.checks import (
    DEPTH,
    EXACT,
    ONNX_RUNTIME,
    STATIC,
    Check,
    NoiseFloor,
    Report,
    noise_floor,
    refused_clone,
    rounding,
)
from graphclone.verification.depth import check_depth, is_deeper
from graphclone.verification.distance import Deviation, measured_elements
from graphclone.verification.exact import exact_check, perturbed
from graphclone.verification.lockstep import Lockstep, run_lockstep
from graphclone.verification.steps import Options, Step, run_steps

EXACT_LIMIT = 200_000_000
"""Parameters of the largest clone whose every value is computed in float64."""

REFERENCE_SLACK = 16.0
"""How much farther than rounding the float64 reference may be from ONNX Runtime before it is not believed."""


def verify_onnx_model(state: State, options: Options, inputs: UserInputs) -> Report:
    """Compare the clone of an ONNX file with the file.

    Args:
        state: of the clone to be verified.
        options: how. The file that the clone has been written to is run, if it is given; else a temporary one is.
        inputs: arrays, or sizes, of inputs that the source accepts, by name.

    Raises:
        GraphcloneError: the source accepts no inputs of the types it declares, or the provider is not there.
    """
    check_provider(options.provider)
    with torch.no_grad():
        verification = _FileVerification(state, options, inputs)
        return run_steps(state.graph.name, verification.steps(), verification.inputs, options.progress)


class _FileVerification:
    """The checks of the clone of a file, and what several of them need."""

    def __init__(self, state: State, options: Options, user_inputs: UserInputs) -> None:
        self.state = state
        self.options = options
        self.user_inputs = user_inputs
        self.reference = Reference(state)
        self.samples: list[FileSample] = []
        self.truths: Truths | None = None

    def steps(self) -> tuple[Step, ...]:
        """What to look at, in order."""
        steps = [Step(STATIC, self.static)]
        if self.options.exact:
            if is_deeper(self.state):
                steps.append(Step(DEPTH, self.depth))
            steps.append(Step("float64", self.exact))
        if self.options.onnx:
            steps.append(Step(ONNX_RUNTIME, self.onnx))
        return tuple(steps)

    def inputs(self) -> list[str]:
        """The input sets, for people."""
        return [f"{shapes_of(s.feeds)} (seed {self.options.seed + i})" for i, s in enumerate(self.samples)]

    def static(self) -> Check:
        check = check_shapes(self.state)
        if check.ok:
            o = self.options
            reference = self.reference if o.exact else None
            self.samples = file_samples(self.state, o.provider, o.sets, o.seed, self.user_inputs, reference)
        return check

    def depth(self) -> Check | None:
        if (count := _parameters(self.state)) > EXACT_LIMIT:
            return Check(DEPTH, None, f"not checked: {_too_many(count)}", {"reason": _too_many(count)})
        return check_depth(self.state, [sample.inputs for sample in self.samples[:2]])

    def exact(self) -> Check:
        check, self.truths = check_values(self.state, self.samples, self.reference)
        return check

    def onnx(self) -> Check:
        return check_outputs(self.state, self.samples, self.truths, self.options.provider, self.options.onnx)


@dataclass(frozen=True)
class FileSample(Run):
    """The results of the source in ONNX Runtime on one input set.

    Attributes:
        inputs: the input set as tensors, in the order of the graph's inputs.
    """

    inputs: Sequence[torch.Tensor]


class Reference:
    """The results of the source in float64, kept by input set, since they take long to compute."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.results: dict[Hashable, Sequence[torch.Tensor]] = {}

    def __call__(self, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The outputs for tensors in the order of the graph's inputs.

        Raises:
            ExecutionError: they cannot be computed.
        """
        key = tuple((tensor.shape, to_array(tensor).tobytes()) for tensor in inputs)
        if key not in self.results:
            self.results[key] = _truth(self.state, inputs)
        return self.results[key]


def file_samples(
    state: State, provider: Provider, sets: int, seed: int, user_inputs: UserInputs, reference: Reference | None
) -> list[FileSample]:
    """Input sets that the source accepts, with what it gives for them.

    ONNX Runtime makes numbers of nothing, such as the mean of an empty image; in float64, where there is a reference,
    they are none.

    Raises:
        GraphcloneError: it accepts none, or nothing of the kind that is given.
    """
    origin = state.graph.origin_as(Origin)
    source = Session(origin.path, provider)
    known_sizes = origin.reading.assignment if origin.reading.refused else {}
    names = [value.name for value in state.graph.inputs]

    def holds(feeds: Feeds) -> bool:
        if reference is None or _parameters(state) > EXACT_LIMIT:
            return True
        try:
            return all(measured_elements(truth) for truth in reference([to_torch(feeds[name]) for name in names]))
        except ExecutionError:
            return True

    compared = compared_numbers(origin.model)
    drawn = DrawnInputs(source, known_sizes=known_sizes, user_inputs=user_inputs, holds=holds, compared=compared)
    input_sets = list(drawn.draw(sets, seed))
    runs = source_runs(origin.path, source, input_sets, provider, seed)
    return [
        FileSample(run.feeds, run.own, run.shaken_outputs, [to_torch(run.feeds[name]) for name in names])
        for run in runs
    ]


def _written(state: State, path: Path) -> Path:
    write_model(to_model(state), path)
    return path


def check_shapes(state: State) -> Check:
    """Every tensor of the clone, as onnx infers its shape, has the shape that was predicted."""
    origin = state.graph.origin_as(Origin)
    try:
        reading = read_facts(to_model(state), state.graph.name, origin.reading.assignment)
    except GraphcloneError as refusal:
        return refused_clone(STATIC, str(refusal))
    shapes = {value.name: fact.shape for value, fact in reading.facts.items()}
    values = [value for node in state.graph.nodes for value in node.outputs if value.is_tensor and value.name in shapes]
    for value in values:
        if shapes[value.name] != value.shape:
            assert value.producer is not None
            detail = f"shape {shapes[value.name]}, predicted {value.shape}"
            first = Deviation.at(value.producer, value.name, float("inf"), detail)
            return Check(STATIC, False, str(first), first=first)
    return Check(STATIC, True, f"all {len(values)} values have the predicted shape", {"values": len(values)})


Truths = Sequence[Sequence[torch.Tensor]]
"""What the source returns in float64, for every sample."""


def check_values(state: State, samples: Sequence[FileSample], reference: Reference) -> tuple[Check, Truths | None]:
    """Every value in float64, on two input sets, and once with other weights.

    Returns:
        The check, and the source's outputs in float64 where the reference that gave them can be believed.
    """
    count = _parameters(state)
    if count > EXACT_LIMIT:
        return _not_exact(_too_many(count)), None
    runs = [(sample.inputs, lifted_tensor) for sample in samples[:2]]
    runs.append((samples[0].inputs, perturbed))
    lockstep: list[Lockstep] = []
    try:
        truths = [reference(sample.inputs) for sample in samples]
        roundings = _roundings(state, samples)
        for sample, truth in zip(samples, truths, strict=True):
            if reason := _disagreement(state, sample, truth, roundings):
                return _not_exact(reason), None
        for inputs, read in runs:
            lockstep.append(run_lockstep(state, inputs, read=read))
            if lockstep[-1].first is not None:
                break
    except (ExecutionError, RankError) as refusal:
        return _not_exact(str(refusal)), None
    return exact_check(lockstep), truths


def _parameters(state: State) -> int:
    return sum(initializer.value.elements for initializer in state.graph.initializers)


def _too_many(count: int) -> str:
    return f"{count:,} parameters are too many to run in float64"


def _not_exact(reason: str) -> Check:
    return Check(EXACT, None, f"not checked: {reason}", {"reason": reason})


def _truth(state: State, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the source returns in float64."""
    return outputs(state.model, Lazy(state.model, lifted_tensor), [lifted(tensor) for tensor in inputs], lift=True)


def _roundings(state: State, samples: Sequence[FileSample]) -> dict[str, float]:
    """What rounding makes of every output, at most: on one input set it may happen to make nothing."""
    names = [name for name, _ in output_tensors(state.graph)]
    return {
        name: max(rounding(output(s.own, name), output(other, name)) for s in samples for other in s.shaken_outputs)
        for name in names
    }


def _disagreement(
    state: State, sample: FileSample, truth: Sequence[torch.Tensor], roundings: Mapping[str, float]
) -> str:
    """Where the reference computes another function than ONNX Runtime does, on the source; empty if nowhere.

    Its float64 is then no truth to measure rounding against, and that both agree with it proves nothing. What ONNX
    Runtime's optimiser makes of a file, such as products of integers where there were none, is not held against it.
    """
    reason = _departure(state, sample.own, truth, roundings)
    if not reason:
        return ""
    try:
        plain = Session(state.graph.origin_as(Origin).path, "cpu", optimised=False)
        return _departure(state, plain.run(sample.feeds), truth, roundings)
    except GraphcloneError:  # there are operators that only the optimiser makes runnable
        return reason


def _departure(state: State, results: Feeds, truth: Sequence[torch.Tensor], roundings: Mapping[str, float]) -> str:
    """The first output that is farther from its truth than rounding explains."""
    for (name, _), exact in zip(output_tensors(state.graph), truth, strict=True):
        measured = noise_floor(
            name,
            (output(results, name), output(results, name)),
            (output(results, name), exact),
            to_torch(results[name]).dtype,
        )
        floor = replace(measured, source=roundings[name])
        if floor.allows(REFERENCE_SLACK) is False:
            off = f"{floor.clone:.1e} off, where rounding makes {floor.source:.1e}"
            return f"the reference does not compute what ONNX Runtime does with the source: {name} is {off}"
    return ""


def check_outputs(
    state: State, samples: Sequence[FileSample], truths: Truths | None, provider: Provider, onnx: bool | Path
) -> Check:
    """Compare the outputs on every input set with what rounding makes of the source's."""
    source = state.graph.origin_as(Origin).path

    def measure(wide: Session, samples: Sequence[FileSample]) -> list[list[NoiseFloor]]:
        known: Sequence[Sequence[torch.Tensor] | None] = truths or [None] * len(samples)
        return [list(_compared(state, wide, sample, truth)) for sample, truth in zip(samples, known, strict=True)]

    with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder:
        path = onnx if isinstance(onnx, Path) else _written(state, Path(folder) / "clone.onnx")
        return check_clone(source, path, provider, samples, measure)


def _compared(
    state: State, wide: Session, sample: FileSample, truths: Sequence[torch.Tensor] | None
) -> Iterator[NoiseFloor]:
    """The errors of all outputs on one input set: against float64 where that is known, else against the source."""
    widened = zip(state.graph.inputs, widened_inputs(state, sample.inputs), strict=True)
    clone_outputs = wide.run({value.name: to_array(tensor) for value, tensor in widened})
    maps = Maps(state, sample.inputs)
    for index, (name, value) in enumerate(output_tensors(state.graph)):
        expected, actual = output(sample.own, name), to_torch(clone_outputs[name])
        truth = expected if truths is None else truths[index]
        shaken_outputs = [output(other, name) for other in sample.shaken_outputs]
        clone = (maps.widened(value, truth), lifted(actual))
        yield rounding_floor(name, truth, [expected, *shaken_outputs], clone, actual.dtype)
