"""The configuration of a model with more blocks: which numbers count them, and what its lists say of new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, combinations
from typing import Any

from graphclone.errors import GraphcloneError, one_line
from graphclone.formats.huggingface.config_solver import Config, Field, changed, numbers
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.traces import Traces, grown_into
from graphclone.graph.deepen import Slot
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State


def deepened(traces: Traces, source: Graph, goal: State) -> Config:
    """The source's configuration with as many blocks as a goal has, and all else as it was.

    A list with an entry for every block has for a new one that of the block which it is made after.

    Args:
        traces: of the checkpoint's class.
        source: its graph, with its weights.
        goal: the source as the user wants it, as far as its depth.

    Raises:
        GraphcloneError: no number of the configuration counts its blocks.
    """
    fields = traces.checkpoint.fields
    if not goal.has(State.depth):
        return fields
    names = {name for i in goal.graph.initializers if i.kind != "constant" for name in i.names}
    plans = [(sum(not slot.new for slot in slots), slots) for slots in goal.depth.plans]
    problem: str | None = None
    for candidate in _candidates(fields, plans):
        if _names(traces, candidate) == names:
            try:
                grown_into(traces, candidate, source, replace(goal.request, widen={}, sizes={}))
            except GraphcloneError as error:
                problem = problem or str(error)
            except Exception as error:  # its numbers may not agree, which the class says in its own way
                problem = problem or f"the class refuses it: {one_line(error)}"
            else:
                return candidate
    problem = problem or f"no number of {CONFIG} counts these blocks"
    raise GraphcloneError(f"{traces.checkpoint.name}: cannot be made deeper: {problem}")


def _candidates(fields: Config, plans: Sequence[tuple[int, Sequence[Slot]]]) -> Iterator[Config]:
    """Configurations in which numbers are the new depth that were the old one, and lists as long, few of them first."""
    counts = [(where, len(slots)) for old, slots in plans for where, value in numbers(fields) if value == old]
    counts = [(where, new) for where, new in counts if not isinstance(where[-1], int)]
    lists = [*_lists(fields, plans)]
    for chosen in _subsets(counts):
        if chosen and len({where for where, _ in chosen}) == len(chosen):
            yield from (changed(fields, [*chosen, *longer]) for longer in _subsets(lists))


def _subsets(items: Sequence[tuple[Field, Any]]) -> Iterator[tuple[tuple[Field, Any], ...]]:
    """All subsets, small ones first."""
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))


def _lists(
    fields: Config, plans: Sequence[tuple[int, Sequence[Slot]]], prefix: Field = ()
) -> Iterator[tuple[Field, list[Any]]]:
    """Every list with an entry for every block, with entries for the new ones."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _lists(value, plans, (*prefix, key))
        elif isinstance(value, list):
            slots = next((slots for old, slots in plans if old == len(value)), None)
            if slots is not None:
                yield (*prefix, key), [value[slot.block] for slot in slots]


def _names(traces: Traces, fields: Config) -> set[str] | None:
    try:
        return set(traces.shapes(fields))
    except Exception:  # a configuration may be refused in any way
        return None
