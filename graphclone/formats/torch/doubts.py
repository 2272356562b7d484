"""What a trace leaves open of the inputs it holds for, and a run of the module tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.example_inputs import separate_tensors
from graphclone.formats.torch.export import Exported, input_leaves
from graphclone.formats.torch.guards import Doubt, Guards
from graphclone.formats.torch.input_sets import InputSet, example_tensors
from graphclone.formats.torch.kinds import FLOAT, INTEGER, kind
from graphclone.formats.torch.running import SEED, RunError, agree, alike, copied, run_module
from graphclone.formats.torch.samples import draw_samples, own_tensors, take_sample
from graphclone.formats.torch.structure import has_orders, turned
from graphclone.formats.torch.trace_check import check_trace, differs_later, distances, has_data
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.drawing import resized
from graphclone.runtime.interpreter import ExecutionError, outputs

_DTYPES = {INTEGER: (torch.int32, torch.int64, torch.uint8), FLOAT: (torch.float16, torch.float64)}
"""In which a module is tried with numbers of a kind."""

_SETS = 3
"""The number of input sets, as verification has them."""


@torch.no_grad()
def settle_doubts(state: State, example: Example) -> None:
    """Find out whether the trace holds for single elements, where the code asks for them, and for more than was traced.

    Code that asks whether a size is 1 often computes the same either way. The module and its trace are run on inputs
    of that size; where they agree the trace holds there, else the clone goes on refusing it.
    """
    exported = state.graph.origin_as(Exported)
    if exported.settled or example.model is None or not has_data(example.model):
        return
    guards = _settled_order(exported, example)
    examples = example_tensors(state.model, example)
    guards = replace(
        guards,
        apart=tuple(_apart(exported, example)),
        contiguous=_reads_memory(state, example, examples),
        kinds_asked=guards.kinds_asked | _kinds_asked(state, example, examples),
    )
    doubts = [doubt for doubt in guards.doubts if doubt.size == 1]
    with untouched(example.model):
        settled = [doubt for doubt in doubts if _agrees(state, example, [doubt])]
        if len(settled) > 1 and not _agrees(state, example, settled):
            settled = []
    for doubt in settled:
        guards = guards.without(doubt)
    _keep(state, replace(exported, guards=guards, settled=True))


@torch.no_grad()
def confirm_trace(state: State, example: Example) -> None:
    """Run the module and its trace on the inputs that verification takes, in their own precision.

    Only where they differ by more than their precision lets expect are they measured, as verification measures them.

    Raises:
        GraphcloneError: the module computes something else than its trace, so that its clone would be another model.
    """
    exported = state.graph.origin_as(Exported)
    if exported.confirmed or example.model is None or not has_data(example.model):
        return
    samples = list(draw_samples(state, example, _SETS, seed=0))
    same = all(all(map(alike, sample.own, sample.module or ())) for sample in samples)
    if not same or differs_later(state.model, example, samples) is not None:
        check = check_trace(state.model, example, samples)
        if check.ok is False:
            raise GraphcloneError(f"{state.graph.name}: {check.summary}, so its clone would be another model")
    _keep(state, replace(exported, confirmed=True))


def _keep(state: State, exported: Exported) -> None:
    """Keep what runs have told, for all that is made of the trace."""
    state.graph.origin = state.source.origin = state.model.origin = exported


def _settled_order(exported: Exported, example: Example) -> Guards:
    """The guards, dicts with their keys in any order if the module computes the same with those in the opposite one."""
    assert example.model is not None
    if exported.guards.any_order or not has_orders(exported.program.call_spec.in_spec):
        return exported.guards
    given = (example.args, dict(example.kwargs))
    opposite = (tuple(map(turned, given[0])), {name: turned(value) for name, value in given[1].items()})
    return replace(exported.guards, any_order=agree(example.model, given, opposite))


def _apart(exported: Exported, example: Example) -> Iterator[tuple[int, int]]:
    """Pairs of inputs for which the module computes something else if they are one tensor than if they are equal."""
    model = example.model
    assert model is not None
    spec = exported.program.call_spec.in_spec
    leaves = input_leaves(exported.program, example.args, example.kwargs)
    pairs = [pair for pair in combinations(range(len(leaves)), 2) if exported.guards.may_be_one(*pair)]

    def matters(joined: Sequence[tuple[int, int]]) -> bool:
        shared = list(leaves)
        for a, b in joined:
            shared[b] = shared[a]
        calls = [pytree.tree_unflatten(given, spec) for given in (shared, separate_tensors(shared))]
        return not agree(model, *calls)

    if pairs and matters(pairs):
        yield from (pair for pair in pairs if matters([pair]))


def _kinds_asked(state: State, example: Example, examples: Sequence[torch.Tensor]) -> set[str]:
    """The kinds of numbers for which the module computes something else than its trace in another dtype."""

    def matters(of: str, dtype: torch.dtype) -> bool:
        others = [tensor.to(dtype) if kind(tensor.dtype) == of else tensor for tensor in examples]
        same = all(a is b for a, b in zip(others, examples, strict=True))
        return not same and not _holds(state, example, others)

    return {of for of, dtypes in _DTYPES.items() if any(matters(of, dtype) for dtype in dtypes)}


def _reads_memory(state: State, example: Example, examples: Sequence[torch.Tensor]) -> bool:
    """Whether the module computes something else than its trace of inputs that are not contiguous."""
    others = [_turned_in_memory(tensor) for tensor in examples]
    return not all(tensor.is_contiguous() for tensor in others) and not _holds(state, example, others)


def _turned_in_memory(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, last axis first in memory; a tensor of fewer than two axes as it is."""
    return tensor.movedim(-1, 0).contiguous().movedim(0, -1) if tensor.ndim > 1 else tensor


def _holds(state: State, example: Example, tensors: Sequence[torch.Tensor]) -> bool:
    """Whether the trace returns what the module does, in the same dtypes, or the module takes no such inputs."""
    source = state.model
    assert example.model is not None
    try:
        module = run_module(example.model, source, example, tensors)
    except RunError:
        return True
    torch.manual_seed(SEED)
    try:
        trace = outputs(source, own_tensors(source), copied(tensors))
    except ExecutionError:
        return False
    return all(map(alike, module, trace))


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
        sample = take_sample(state, example, single)
        return all(floor.ok for floor in distances(source, sample, sample.module or ()))
    except GraphcloneError:
        return False


def _symbol(source: Graph, doubt: Doubt) -> str:
    """The symbol of the axis in doubt; other axes may have it, too."""
    guards = source.origin_as(Exported).guards
    tensors = [i for i, shape in enumerate(guards.shapes) if shape is not None]
    return source.inputs[tensors.index(doubt.input)].dynamic[doubt.axis]
