"""Whether the traced graph is the user's module: both are run on the same inputs, in the module's own precision.

Everything else is proved of the graph. If that is another program than the module, it is proved of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import Exported
from graphclone.formats.torch.guards import Doubt, Guards
from graphclone.formats.torch.input_sets import InputSet, example_tensors
from graphclone.formats.torch.running import SEED, RunError, agree, run_module
from graphclone.formats.torch.samples import Sample, compare, take_sample
from graphclone.formats.torch.structure import has_orders, turned
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.drawing import resized
from graphclone.runtime.interpreter import output_tensors, outputs
from graphclone.runtime.tensors import state_dict
from graphclone.verification.checks import Check, NoiseFloor, judge
from graphclone.verification.distance import Deviation

TRACE = "trace"
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
        measured.append(_distances(source, sample))
        wrong = next((floor for floor in measured[-1] if floor.ok is False), None)
        if wrong is not None:
            return _wrong(wrong.value, wrong.clone, f"on {sample.inputs} the model computes {_ELSE}: {wrong}")
    if (later := _differs_later(source, example, samples[0])) is not None:
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
    return not alike or any(floor.ok is False for floor in _distances(source, replace(sample, module=fast)))


def _distances(source: Graph, sample: Sample) -> list[NoiseFloor]:
    """The errors of every output of the module, beside those of its trace."""
    assert sample.module is not None
    names = [name for name, _ in output_tensors(source)]
    rows = zip(names, sample.exact, sample.own, sample.module, strict=True)
    return [sample.floor(i, name, own, (exact, module)) for i, (name, exact, own, module) in enumerate(rows)]


def _wrong(value: str, error: float, detail: str) -> Check:
    first = Deviation(value, "", "", error, detail)
    return Check(TRACE, False, str(first), first=first)


def _differs_later(source: Graph, example: Example, sample: Sample) -> str | None:
    """What is wrong with a second call, if a first one changes what the model computes, and its trace does not know.

    For example, a counter in Python is a number in the trace.
    """
    assert example.model is not None
    module = run_module(example.model, source, example, sample.inputs.tensors, calls=2)
    if all(map(torch.equal, module, sample.module or ())):
        return None
    tensors = {i.value: i.read().detach().clone() for i in source.initializers}
    for _ in range(2):
        torch.manual_seed(SEED)
        trace = outputs(source, tensors, sample.inputs.copies())
    again = replace(sample, own=trace, module=module)
    same = all(floor.ok is not False for floor in _distances(source, again))
    return None if same else f"called again, the model computes {_ELSE}"


def check_into(state: State, wide: torch.nn.Module, example: Example, samples: Sequence[Sample]) -> Check:
    """Load the clone's weights into the wide module and compare what that computes with the source.

    The module's own weights are left as they are.
    """
    if not _has_data(wide):
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


def _has_data(module: torch.nn.Module) -> bool:
    tensors = (*module.parameters(), *module.buffers())
    return not any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors)


# Doubts


@torch.no_grad()
def settle_doubts(state: State, example: Example) -> None:
    """Find out whether the trace holds for single elements, where the code asks for them, and for any order of keys.

    Code that asks whether a size is 1 often computes the same either way. The module and its trace are run on inputs
    of that size; where they agree the trace holds there, else the clone goes on refusing it.
    """
    exported = state.graph.origin_as(Exported)
    if example.model is None or not _has_data(example.model):
        return
    guards = _settled_order(exported, example)
    doubts = [doubt for doubt in guards.doubts if doubt.size == 1]
    with untouched(example.model):
        settled = [doubt for doubt in doubts if _agrees(state, example, [doubt])]
        if len(settled) > 1 and not _agrees(state, example, settled):
            settled = []
    for doubt in settled:
        guards = guards.without(doubt)
    exported = replace(exported, guards=guards)
    state.graph.origin = exported
    state.source.origin = state.model.origin = exported


def _settled_order(exported: Exported, example: Example) -> Guards:
    """The guards, dicts with their keys in any order if the module computes the same with those in the opposite one."""
    assert example.model is not None
    if exported.guards.any_order or not has_orders(exported.program.call_spec.in_spec):
        return exported.guards
    given = (example.args, dict(example.kwargs))
    opposite = (tuple(map(turned, given[0])), {name: turned(value) for name, value in given[1].items()})
    return replace(exported.guards, any_order=agree(example.model, given, opposite))


def _agrees(state: State, example: Example, doubts: Sequence[Doubt]) -> bool:
    """Whether module and trace agree where the sizes in doubt are 1."""
    source = state.model
    examples = example_tensors(source, example)
    symbols = {_symbol(source, doubt) for doubt in doubts}
    single = InputSet(
        tuple(
            resized(tensor, {axis: 1 for axis, symbol in value.dynamic.items() if symbol in symbols})
            for value, tensor in zip(source.inputs, examples, strict=True)
        )
    )
    try:
        return all(floor.ok for floor in _distances(source, take_sample(state, example, single)))
    except GraphcloneError:
        return False


def _symbol(source: Graph, doubt: Doubt) -> str:
    """The symbol of the axis in doubt; other axes may have it, too."""
    guards = source.origin_as(Exported).guards
    tensors = [i for i, shape in enumerate(guards.shapes) if shape is not None]
    return source.inputs[tensors.index(doubt.input)].dynamic[doubt.axis]
