"""What a trace leaves open of the inputs it holds for, and a run of the module tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.example_inputs import own_tensors
from graphclone.formats.torch.export import Exported, input_leaves
from graphclone.formats.torch.guards import Doubt, Guards
from graphclone.formats.torch.input_sets import InputSet, example_tensors
from graphclone.formats.torch.running import agree
from graphclone.formats.torch.samples import take_sample
from graphclone.formats.torch.structure import has_orders, turned
from graphclone.formats.torch.trace_check import distances, has_data
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.drawing import resized


@torch.no_grad()
def settle_doubts(state: State, example: Example) -> None:
    """Find out whether the trace holds for single elements, where the code asks for them, and for more than was traced.

    Code that asks whether a size is 1 often computes the same either way. The module and its trace are run on inputs
    of that size; where they agree the trace holds there, else the clone goes on refusing it.
    """
    exported = state.graph.origin_as(Exported)
    if example.model is None or not has_data(example.model):
        return
    guards = _settled_order(exported, example)
    guards = replace(guards, apart=tuple(_apart(exported, example)))
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
        calls = [pytree.tree_unflatten(given, spec) for given in (shared, own_tensors(shared))]
        return not agree(model, *calls)

    if pairs and matters(pairs):
        yield from (pair for pair in pairs if matters([pair]))


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
        return all(floor.ok for floor in distances(source, take_sample(state, example, single)))
    except GraphcloneError:
        return False


def _symbol(source: Graph, doubt: Doubt) -> str:
    """The symbol of the axis in doubt; other axes may have it, too."""
    guards = source.origin_as(Exported).guards
    tensors = [i for i, shape in enumerate(guards.shapes) if shape is not None]
    return source.inputs[tensors.index(doubt.input)].dynamic[doubt.axis]
