"""Whether the traced graph is the user's module: both are run on the same inputs, in the module's own precision.

Everything else is proved of the graph. If that is another program than the module, it is proved of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.formats.torch.example import Example
from graphclone.formats.torch.running import SEED, RunError, run_module
from graphclone.formats.torch.samples import Sample, compare
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import lifted, output_tensors, outputs
from graphclone.runtime.tensors import state_dict
from graphclone.verification.checks import TRACE, Check, NoiseFloor, judge
from graphclone.verification.distance import Deviation

INTO = "wide module"

FAST_PATH = (
    "in eval mode and without gradients torch takes a fast path through nn.TransformerEncoder, which gives other "
    "numbers at padding; the clone computes what the model does with gradients"
)
_WITH_FAST_PATH = (torch.nn.TransformerEncoder, torch.nn.TransformerEncoderLayer, torch.nn.MultiheadAttention)

INSTANCE = "the model"
_ELSE = "something else than its trace"


def check_trace(source: Graph, example: Example, samples: Sequence[Sample]) -> Check:
    """Compare the trace with the module on every input set.

    Args:
        source: the trace.
        example: of a module in memory.
        samples: with what the module gives for them.
    """
    measured: list[list[NoiseFloor]] = []
    for sample in samples:
        measured.append(distances(source, sample, sample.module or ()))
        wrong = next((floor for floor in measured[-1] if floor.ok is False), None)
        if wrong is not None:
            return _wrong(wrong.value, wrong.clone, f"on {sample.inputs} the model computes {_ELSE}: {wrong}")
    if (later := differs_later(source, example, samples)) is not None:
        return _wrong(INSTANCE, float("inf"), later)
    check = judge(TRACE, measured)
    if any(map(partial(_fast_path_differs, source, example), samples)):
        return replace(check, summary=f"{check.summary}; {FAST_PATH}")
    return check


def _fast_path_differs(source: Graph, example: Example, sample: Sample) -> bool:
    """Whether the module computes something else where torch takes the fast path of attention."""
    assert example.model is not None
    if not any(isinstance(part, _WITH_FAST_PATH) for part in example.model.modules()):
        return False
    try:
        fast = run_module(example.model, source, example, sample.inputs.tensors, fast=True)
    except RunError:
        return True
    alike = all(ours.shape == theirs.shape for ours, theirs in zip(fast, sample.module or (), strict=True))
    return not alike or any(floor.ok is False for floor in distances(source, sample, fast))


def distances(source: Graph, sample: Sample, module: Sequence[torch.Tensor]) -> list[NoiseFloor]:
    """The errors of every output that the module gives for a sample, beside those of its trace."""
    names = [name for name, _ in output_tensors(source)]
    rows = zip(names, sample.exact, sample.own, module, strict=True)
    return [sample.floor(i, name, own, (exact, theirs)) for i, (name, exact, own, theirs) in enumerate(rows)]


def _wrong(value: str, error: float, detail: str) -> Check:
    first = Deviation(value, "", "", error, detail)
    return Check(TRACE, False, str(first), first=first)


def differs_later(source: Graph, example: Example, samples: Sequence[Sample]) -> str | None:
    """What is wrong with a later call, if earlier ones change what the model computes, and its trace does not know.

    For example, a counter in Python is a number in the trace, and what a first call keeps for the next is not kept.
    """
    assert example.model is not None
    sample, earlier = samples[0], [samples[-1].inputs, samples[0].inputs]
    module = run_module(
        example.model, source, example, sample.inputs.tensors, before=[inputs.tensors for inputs in earlier]
    )
    if all(map(torch.equal, module, sample.module or ())):
        return None
    tensors = {i.value: i.read().detach().clone() for i in source.initializers}
    for inputs in (*earlier, sample.inputs):
        torch.manual_seed(SEED)
        trace = outputs(source, tensors, inputs.copies())
    rows = enumerate(zip(output_tensors(source), sample.own, trace, module, strict=True))
    floors = (sample.floor(i, name, own, (lifted(now), later)) for i, ((name, _), own, now, later) in rows)
    return f"called again, the model computes {_ELSE}" if any(floor.ok is False for floor in floors) else None


def check_into(state: State, wide: torch.nn.Module, example: Example, samples: Sequence[Sample]) -> Check:
    """Load the clone's weights into the wide module and compare what that computes with the source.

    The module's own weights are left as they are.
    """
    if not has_data(wide):
        return Check(INTO, None, "not run: it has no data")
    weights, measured = state_dict(state), []
    for sample in samples:
        try:
            wide_outputs = run_module(wide, state.graph, example, sample.inputs.tensors, weights)
        except RunError as error:
            first = Deviation(INTO, "", "", float("inf"), f"{error}, on {sample.inputs}")
            return Check(INTO, False, str(first), first=first)
        measured.append(compare(state, sample, sample.own, wide_outputs))
    return judge(INTO, measured)


def has_data(module: torch.nn.Module) -> bool:
    tensors = (*module.parameters(), *module.buffers())
    return not any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors)
