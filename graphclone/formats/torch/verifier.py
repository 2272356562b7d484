"""Whether a clone computes what its source computes, in five ways.

0. trace: the traced graph computes what the user's own module computes, on the example inputs and on others;
1. static: every value of the clone has the shape that the layouts predict;
2. exact: in float64 every value is the source's, through the maps and but for rounding, on the example inputs, on
   random inputs of other sizes, and with other weights;
3. noise floor: in the model's own precision the clone is as near to float64 as the source is;
4. ONNX Runtime: so it is for the exported models.

A check that fails names the first value, in graph order, that is wrong, and the rule behind it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.file_verifier import verify_files
from graphclone.formats.torch.input_sets import example_tensors
from graphclone.formats.torch.running import SEED
from graphclone.formats.torch.samples import Sample, compare, draw_samples, own_tensors
from graphclone.formats.torch.static_check import check_static
from graphclone.formats.torch.trace_check import INTO, NAME, check_into, check_trace, settle
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph, Initializer, Value
from graphclone.pipeline.state import State
from graphclone.progress import Progress, silent
from graphclone.runtime.interpreter import ExecutionError, execute, lifted, outputs
from graphclone.runtime.maps import Maps, widened_inputs
from graphclone.verification.checks import Check, NoiseFloor, Report, judge, noise_floor, reference
from graphclone.verification.lockstep import (
    Deviation,
    Lazy,
    Lockstep,
    comparable,
    lifted_tensor,
    run_lockstep,
    widened_tensors,
)

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.runtime.sessions import Provider

__all__ = ["Check", "Report", "verify", "verify_files"]

_PERTURBATION = 0.1
"""Spread of the noise on other weights, relative to the weights' own; zeros get some too."""


def verify(
    clone: Clone,
    *,
    provider: Provider = "auto",
    onnx: bool | Path = True,
    exact: bool = True,
    sets: int = 3,
    seed: int = 0,
    tensors: Mapping[Value, torch.Tensor] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare a clone with its source.

    Args:
        clone: to be verified.
        provider: what ONNX Runtime runs on; ``auto`` is CUDA where there is a GPU.
        onnx: whether to export both to ONNX and run them, or the file that the clone has been written to.
        exact: whether to compare all values in float64.
        sets: how many input sets, the example included.
        seed: of the random ones.
        tensors: the data of the clone's initializers where they are not those of its recipes.
        progress: told how far it is.

    Raises:
        GraphcloneError: the source cannot be run, for one because it was traced without weights, or ``provider``
            is not there. What is wrong with the clone is in the report.
    """
    _check_weights(clone.graph)
    if onnx:
        from graphclone.runtime.sessions import check_provider

        check_provider(provider)
    modules = [module for module in (clone.model, clone.into) if module is not None]
    with untouched(*modules), torch.no_grad():
        return _Verification(clone, tensors, progress).report(provider, onnx, exact, sets, seed)


def _check_weights(graph: Graph) -> None:
    for initializer in graph.initializers:
        if isinstance(initializer.tensor, FakeTensor) or getattr(initializer.tensor, "is_meta", False):
            raise GraphcloneError(f"{graph.name}: traced without weights, so there is nothing to verify")


class _Verification:
    """The checks, one after the other. A clone that cannot even be run is not looked at any further."""

    def __init__(self, clone: Clone, tensors: Mapping[Value, torch.Tensor] | None, progress: Progress | None) -> None:
        self.clone = clone
        self.state = clone.state
        self.source = clone.state.source
        self.given = tensors
        self.progress = progress or silent
        self.samples: list[Sample] = []

    def report(self, provider: Provider, onnx: bool | Path, exact: bool, sets: int, seed: int) -> Report:
        made: list[Check] = []
        steps = self.steps(provider, onnx, exact, sets, seed)
        for number, (name, step) in enumerate(steps):
            self.progress(name, number, len(steps))
            if (check := step()) is not None:
                made.append(check)
            # What is wrong in float64 is looked at in the model's own precision, too; else what is wrong ends it.
            if name != "float64" and any(check.ok is False for check in made):
                break
        self.progress("done", len(steps), len(steps))
        return Report(self.clone.graph.name, tuple(made), tuple(str(sample.inputs) for sample in self.samples))

    def steps(
        self, provider: Provider, onnx: bool | Path, exact: bool, sets: int, seed: int
    ) -> list[tuple[str, Callable[[], Check | None]]]:
        """What to look at, in order; nothing after what is wrong."""
        steps: list[tuple[str, Callable[[], Check | None]]] = [(NAME, partial(self.trace, sets, seed))]
        steps.append(("static", self.static))
        if exact:
            steps.append(("float64", self.exact))
        steps.append(("noise floor", self.noise))
        if self.clone.into is not None:
            steps.append((INTO, lambda: check_into(self.clone, self.samples)))
        if onnx:
            steps.append(("ONNX Runtime", partial(self.onnx, provider, onnx)))
        return steps

    def trace(self, sets: int, seed: int) -> Check | None:
        """The traced graph against the user's module."""
        settle(self.clone)
        self.samples = list(draw_samples(self.clone, sets, seed))
        return check_trace(self.clone, self.samples) if self.clone.model is not None else None

    def static(self) -> Check:
        clone = self.clone
        return check_static(self.state, example_tensors(clone.graph, clone.args, clone.kwargs or {}))

    def noise(self) -> Check:
        return check_noise(self.state, self.tensors, self.samples)

    def onnx(self, provider: Provider, onnx: bool | Path) -> Check:
        from graphclone.formats.torch.onnx_check import check_onnx

        return check_onnx(self.clone, self.tensors, self.samples, provider, onnx)

    @cached_property
    def tensors(self) -> Mapping[Value, torch.Tensor]:
        """The data of the clone's initializers."""
        return widened_tensors(self.state) if self.given is None else self.given

    def exact(self) -> Check:
        """Every value in float64, on every input set, and once with other weights."""
        sets = [sample.inputs for sample in self.samples]
        runs = [(inputs, lifted_tensor) for inputs in sets]
        runs.append((sets[0], perturbed))
        found: list[Lockstep] = []
        for inputs, read in runs:
            found.append(run_lockstep(self.state, inputs.tensors, read=read))
            if found[-1].first is not None:
                break
        return exact_check(found)


def exact_check(found: Sequence[Lockstep]) -> Check:
    """The check that runs in float64 amount to."""
    output, worst = max(run.output for run in found), max(run.worst for run in found)
    first, values = found[-1].first, found[0].values
    figures = {"output": output, "worst": worst, "values": values, "runs": len(found)}
    unmeasured = [name for name in found[0].unmeasured if all(name in run.unmeasured for run in found)]
    if unmeasured and first is None:
        reason = f"{unmeasured[0]}: the source has no finite element there, in float64"
        return Check("exact", None, f"not checked: {reason}", {**figures, "reason": reason})
    measured = f"outputs to {output:.1e}, all {values} values to {worst:.1e}, relative, in float64"
    summary = str(first) if first else f"{measured}; {len(found)} runs"
    return Check("exact", first is None, summary, figures, first=first)


def perturbed(initializer: Initializer) -> torch.Tensor:
    """Another value for a parameter, in float64: weights that are zero or one hide what is wrong with them."""
    tensor = lifted(initializer.read())
    if initializer.kind != "parameter" or tensor.dtype != torch.float64:
        return tensor
    generator = torch.Generator().manual_seed(zlib.crc32(initializer.name.encode()))
    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
    spread = tensor.square().mean().sqrt().clamp(min=_PERTURBATION)
    return tensor + _PERTURBATION * spread * noise


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
    found = (_locate(state, tensors, sample.inputs.tensors) for sample in samples)
    return judge(name, measured, lambda: next(filter(None, found), None))


def _copied(graph: Graph, tensors: Mapping[Value, torch.Tensor]) -> Lazy:
    """The same data for a run that may write into it."""
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
                known = reference(truth, a)
                floor = noise_floor(value.name, (known, a), (maps.rescaled(match, known), b))
                yield floor, Deviation.at(node, value.name, floor.clone, str(floor))
