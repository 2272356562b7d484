"""The invariants of every state, beside those of its graph: run between passes in tests."""

from __future__ import annotations

from graphclone.errors import InvariantError
from graphclone.graph.invariants import check_graph
from graphclone.pipeline.conditions import defect
from graphclone.pipeline.state import State


def check_state(state: State) -> None:
    """The graph is sound, values have axes of their sizes, and every scale and recipe is there once its pass has run.

    Raises:
        InvariantError: naming the first thing that is wrong.
    """
    check_graph(state.graph)
    if not state.has(State.analysis):
        return
    check_graph(state.source)
    _check_axes(state)
    for stage, condition in ((State.widths, "widths"), (State.scales, "scales"), (State.recipes, "recipes")):
        if state.has(stage) and (problem := defect(condition, state)) is not None:
            raise InvariantError(problem)


def _check_axes(state: State) -> None:
    """Every tensor that the facts are about has one axis for each of its own, of its size, widened or not yet."""
    graph, facts = state.graph, state.facts
    values = [*graph.inputs, *(i.value for i in graph.initializers), *(v for node in graph.nodes for v in node.outputs)]
    for value in values:
        axes = facts.of.get(value)
        if axes is None:
            continue
        if len(axes) != value.rank:
            raise InvariantError(f"{value.name} has {value.rank} axes, but the facts know {len(axes)}")
        sizes = tuple(axis.size for axis in axes)
        wide = tuple(state.layout(axis).new_size for axis in axes)
        if value.shape not in (sizes, wide):
            raise InvariantError(f"{value.name} is {value.shape}, which is neither {sizes} nor {wide}")
