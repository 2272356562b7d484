"""The configuration of a model with more blocks: which numbers count them, and what its lists say of new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from graphclone.errors import GraphcloneError, one_line
from graphclone.formats.huggingface.config_solver import Config, Field, changed, numbers, subsets
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.traces import Traces, grown_into
from graphclone.graph.deepen import Slot
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State


def deepened(traces: Traces, source: Graph, goal: State) -> Config:
    """The source's configuration with as many blocks as a goal has, and all else as it was.

    A list with an entry for every block has for a new one that of the block which it is made after. A list of places of
    blocks has the new ones, and those of the blocks that are made after them.

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
    counts = _Counts(traces, [(sum(not slot.new for slot in slots), slots) for slots in goal.depth.plans])
    problem, nearest = "", (len(names), f"no number of {CONFIG} counts these blocks")
    for changes, candidate in counts.candidates():
        own = counts.names(candidate)
        if own is None:
            continue
        if own != names:
            nearest = min(nearest, (len(own ^ names), _described(changes, own, names)))
            continue
        try:
            grown_into(traces, candidate, source, replace(goal.request, widen={}, sizes={}))
        except GraphcloneError as error:
            problem = problem or str(error)
        except Exception as error:  # its numbers may not agree, which the class says in its own way
            problem = problem or f"the class refuses it: {one_line(error)}"
        else:
            return candidate
    raise GraphcloneError(f"{traces.checkpoint.name}: cannot be made deeper: {problem or nearest[1]}")


Change = tuple[Field, Any]
"""A field of a configuration, and what is to stand there."""


class _Counts:
    """The numbers of a configuration that count blocks, and its lists that say something of each.

    Args:
        traces: of the checkpoint's class.
        plans: the old depth of each stack that is made deeper, and what stands at every place of it.
    """

    def __init__(self, traces: Traces, plans: Sequence[tuple[int, Sequence[Slot]]]) -> None:
        self.traces, self.fields = traces, traces.checkpoint.fields
        self.own, self.plans = self.names(self.fields), plans
        self.counted = [*numbers(self.fields, least=1)]
        changes = ((where, len(slots)) for old, slots in plans for where, n in self.counted if n == old)
        self.numbers = self.counting(changes)
        self.lists = [*_lists(self.fields, plans)]

    def counting(self, changes: Iterable[Change]) -> list[Change]:
        """The changes that alone change what weights there are."""
        return [change for change in dict.fromkeys(changes) if self.names(changed(self.fields, [change])) != self.own]

    def of_the_first(self) -> list[Change]:
        """Numbers that count the first blocks of a stack, which are of another kind, and how many there will be."""
        firsts = ((where, n, slots) for old, slots in self.plans for where, n in self.counted if n < old)
        changes = ((where, n, sum(slot.block < n for slot in slots)) for where, n, slots in firsts)
        return self.counting((where, new) for where, n, new in changes if new != n)

    def names(self, fields: Config) -> set[str] | None:
        """The weights of a configuration; None where the class refuses it, in whatever way."""
        try:
            return set(self.traces.shapes(fields))
        except Exception:  # whatever its code raises
            return None

    def candidates(self) -> Iterator[tuple[Sequence[Change], Config]]:
        """Numbers that are the new depth where they were the old one, with configurations that say so.

        Few changes come first. A configuration may have longer lists besides.
        """
        depths = [*subsets(self.numbers)][1:]
        firsts = chain([()], ((change,) for change in self.of_the_first()))
        for first in firsts:
            for chosen in depths:
                for longer in subsets(self.lists):
                    changes = (*chosen, *first, *longer)
                    if len({where for where, _ in changes}) == len(changes):
                        yield (*chosen, *first), changed(self.fields, changes)


def _described(changes: Sequence[Change], own: set[str], names: set[str]) -> str:
    """What a configuration is not as it should be, by its weights."""
    name = min(own ^ names)
    fault = f"has {name}, which no block would have" if name in own else f"has no {name}, which a block would have"
    numbers = ", ".join(f"{'.'.join(map(str, where))} = {new}" for where, new in changes)
    return f"with {numbers} in {CONFIG} the class {fault}"


def _lists(
    fields: Config, plans: Sequence[tuple[int, Sequence[Slot]]], prefix: Field = ()
) -> Iterator[tuple[Field, list[Any]]]:
    """Every list with an entry for every block, with entries for the new ones; every list of some of their places."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _lists(value, plans, (*prefix, key))
        elif isinstance(value, list):
            for old, slots in plans:
                if old == len(value):
                    yield (*prefix, key), [value[slot.block] for slot in slots]
                if value and all(type(item) is int and 0 <= item < old for item in value):
                    yield (*prefix, key), [place for place, slot in enumerate(slots) if slot.block in value]
