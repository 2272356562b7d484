"""Whether a clone computes what its source computes, in six ways.

0. trace: the traced graph computes what the user's own module computes, on the example inputs and on others;
1. static: every value of the clone has the shape that the layouts predict;
2. depth: in float64 the blocks that were put in change nothing;
3. exact: in float64 every value is the source's, through the maps and but for rounding, on the example inputs, on
   random inputs of other sizes, and with other weights;
4. noise floor: in the model's own precision the clone is as near to float64 as the source is;
5. ONNX Runtime: so it is for the exported models.

A check that fails names the first value, in graph order, that is wrong, and the rule behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.doubts import settle_doubts
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.input_sets import example_tensors
from graphclone.formats.torch.running import SEED
from graphclone.formats.torch.samples import Sample, compare, draw_samples, own_tensors
from graphclone.formats.torch.static_check import check_static
from graphclone.formats.torch.trace_check import INTO, check_into, check_trace
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph, Value
from graphclone.pipeline.state import State
from graphclone.runtime.exclusive import exclusive
from graphclone.runtime.interpreter import ExecutionError, MemoryShortageError, execute, lifted, outputs
from graphclone.runtime.maps import Maps, widened_inputs
from graphclone.runtime.sessions import check_provider
from graphclone.runtime.tensors import Lazy, lifted_tensor, widened_tensors
from graphclone.verification.checks import (
    DEPTH,
    EXACT,
    ONNX_RUNTIME,
    STATIC,
    TRACE,
    Check,
    NoiseFloor,
    Report,
    judge,
    noise_floor,
    reference,
)
from graphclone.verification.depth import check_depth, is_deeper
from graphclone.verification.distance import Deviation
from graphclone.verification.exact import exact_check, perturbed
from graphclone.verification.lockstep import Lockstep, comparable, run_lockstep
from graphclone.verification.steps import Options, Step, run_steps

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone


@exclusive()
def verify(clone: Clone, options: Options, example: Example) -> Report:
    """Compare the clone of a module with the module.

    Args:
        clone: to be verified.
        options: how.
        example: the module and its example inputs.

    Raises:
        GraphcloneError: the source cannot be run, for example because it was traced without weights, or the provider is
            not there. What is wrong with the clone is in the report.
    """
    _check_weights(clone.graph)
    if options.onnx:
        check_provider(options.provider)
    modules = [module for module in (example.model, example.into) if module is not None]
    with untouched(*modules), torch.no_grad():
        verification = _ModuleVerification(clone.state, options, example)
        return run_steps(clone.graph.name, verification.steps(), verification.inputs, options.progress)


def _check_weights(graph: Graph) -> None:
    for initializer in graph.initializers:
        if isinstance(initializer.tensor, FakeTensor) or getattr(initializer.tensor, "is_meta", False):
            raise GraphcloneError(f"{graph.name}: traced without weights, so there is nothing to verify")


class _ModuleVerification:
    """The checks of a torch clone, and what several of them need."""

    def __init__(self, state: State, options: Options, example: Example) -> None:
        self.state = state
        self.options = options
        self.example = example

    def steps(self) -> tuple[Step, ...]:
        """What to look at, in order."""
        steps = [Step(TRACE, self.trace), Step(STATIC, self.static)]
        if self.options.exact:
            if is_deeper(self.state):
                steps.append(Step(DEPTH, self.depth))
            # What is wrong in float64 is looked at in the model's own precision, too.
            steps.append(Step("float64", self.exact, final=False))
        steps.append(Step("noise floor", self.noise))
        if (wide := self.example.into) is not None:
            steps.append(Step(INTO, lambda: check_into(self.state, wide, self.example, self.samples)))
        if self.options.onnx:
            steps.append(Step(ONNX_RUNTIME, self.onnx))
        return tuple(steps)

    @cached_property
    def samples(self) -> list[Sample]:
        """Input sets, with what the source makes of them."""
        settle_doubts(self.state, self.example)
        return list(draw_samples(self.state, self.example, self.options.sets, self.options.seed))

    def inputs(self) -> list[str]:
        """The input sets, for people."""
        return [str(sample.inputs) for sample in self.samples]

    @cached_property
    def tensors(self) -> Mapping[Value, torch.Tensor]:
        """The data of the clone's initializers."""
        return widened_tensors(self.state) if self.options.tensors is None else self.options.tensors

    def trace(self) -> Check | None:
        """The traced graph against the user's module."""
        samples = self.samples
        return check_trace(self.state.model, self.example, samples) if self.example.model is not None else None

    def static(self) -> Check:
        return check_static(self.state, example_tensors(self.state.graph, self.example))

    def depth(self) -> Check | None:
        return check_depth(self.state, [sample.inputs.tensors for sample in self.samples])

    def exact(self) -> Check:
        """Every value in float64, on every input set, and once with other weights."""
        sets = [sample.inputs for sample in self.samples]
        runs = [(inputs, lifted_tensor) for inputs in sets]
        runs.append((sets[0], perturbed))
        locksteps: list[Lockstep] = []
        try:
            for inputs, read in runs:
                locksteps.append(run_lockstep(self.state, inputs.tensors, read=read))
                if locksteps[-1].first is not None:
                    break
        except MemoryShortageError as shortage:
            return Check(EXACT, None, f"not checked: {shortage}", {"reason": str(shortage)})
        return exact_check(locksteps)

    def noise(self) -> Check:
        return check_noise(self.state, self.tensors, self.samples)

    def onnx(self) -> Check:
        from graphclone.formats.torch.onnx_check import check_onnx

        options = self.options
        return check_onnx(self.state, self.example, self.tensors, self.samples, options.provider, options.onnx)


def check_noise(state: State, tensors: Mapping[Value, torch.Tensor], samples: Sequence[Sample]) -> Check:
    """Every output in the model's own precision, against the source in float64."""
    name = "noise floor"
    measured: list[list[NoiseFloor]] = []
    for sample in samples:
        try:
            torch.manual_seed(SEED)
            wide = outputs(state.graph, _copied(state.graph, tensors), widened_inputs(state, sample.inputs.tensors))
        except ExecutionError as error:
            first = Deviation.at(error.node, error.node.name, float("inf"), error.reason)
            return Check(name, False, str(first), first=first)
        measured.append(compare(state, sample, sample.own, wide))
    deviations = (_locate(state, tensors, sample.inputs.tensors) for sample in samples)
    return judge(name, measured, lambda: next(filter(None, deviations), None))


def _copied(graph: Graph, tensors: Mapping[Value, torch.Tensor]) -> Lazy:
    """Copies of tensors, for a run that may write into them."""
    return Lazy(graph, lambda initializer: tensors[initializer.value].clone())


def _locate(state: State, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[torch.Tensor]) -> Deviation | None:
    """The first value whose error is not of the size of rounding; a value that is far off goes first."""
    floors = list(_floors(state, tensors, inputs))
    for slack in (16.0, 1.0):
        for floor, deviation in floors:
            if floor.allows(slack) is False:
                return deviation
    return None


def _floors(
    state: State, tensors: Mapping[Value, torch.Tensor], inputs: Sequence[torch.Tensor]
) -> Iterator[tuple[NoiseFloor, Deviation]]:
    """The errors of every value, with the deviation it would be."""
    source = state.source
    by_name = {value.name: value for value in state.facts.of}
    maps = Maps(state, inputs)
    clone = execute(state.graph, _copied(state.graph, tensors), widened_inputs(state, inputs))
    own = execute(source, own_tensors(source), [tensor.clone() for tensor in inputs])
    exact = execute(source, Lazy(source, lifted_tensor), [lifted(tensor) for tensor in inputs], lift=True)
    for (node, ours), (_, truths) in zip(own, exact, strict=True):
        theirs = next(results for match, results in clone if match.name == node.name)
        for value, a, truth, b in zip(node.outputs, ours, truths, theirs, strict=True):
            match = by_name.get(value.name)
            if match is not None and comparable(state, match, a):
                exact_value = reference(truth, a)
                expected, actual = (maps.compared(match, a, wide) for wide in (maps.rescaled(match, exact_value), b))
                floor = noise_floor(value.name, (exact_value, a), (expected, actual))
                yield floor, Deviation.at(node, value.name, floor.clone, str(floor))
