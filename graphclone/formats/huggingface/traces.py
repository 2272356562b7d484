"""Shapes, runs and traces of a checkpoint's class for each configuration, each asked for once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from graphclone.algebra.axes import Axis
from graphclone.clones.source import After
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.config_solver import Config, Shapes, differences
from graphclone.formats.huggingface.operations import Run
from graphclone.formats.huggingface.reader import BY_PLACES, Checkpoint, free_inner_outputs
from graphclone.formats.huggingface.unreached import LeftOut
from graphclone.formats.torch.into import untied
from graphclone.graph.ir import Graph
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.matching import match
from graphclone.pipeline.runner import Timing, run
from graphclone.pipeline.state import Request, State


class Traces:
    """The models that a checkpoint's class makes of other configurations, without their weights.

    Args:
        checkpoint: the source.
        left_out: what their graphs are to lack.
    """

    def __init__(self, checkpoint: Checkpoint, left_out: LeftOut | None = None) -> None:
        self.checkpoint = checkpoint
        self.left_out = left_out or LeftOut()
        self._unchecked = _Unchecked(**{f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)})
        self._runs: dict[str, Run] = {}
        self._graphs: dict[str, Graph] = {}

    def shapes(self, fields: Config) -> Shapes:
        """The shape of every parameter, also where numbers do not agree yet, since they are tried one by one."""
        try:
            shapes = self.checkpoint.shapes(fields)
        except Exception:  # a configuration may be refused in any way
            shapes = self._unchecked.shapes(fields)
        return {name: shape for name, shape in shapes.items() if name not in self.left_out}

    def moves(self, before: Config, after: Config) -> bool | None:
        """Whether anything in a run has another shape; None where that cannot be seen."""
        try:
            return self._run(before).shapes != self._run(after).shapes
        except Exception:  # a configuration that is refused together with others only, or code that needs data
            return None

    def repeats(self, before: Config, after: Config) -> bool | None:
        """Whether a run is the same to the last number; None where it is not, but for what may fold into constants."""
        try:
            ours, theirs = self._run(before), self._run(after)
        except Exception:  # as for moves
            return None
        if ours.whole and ours.whole == theirs.whole:
            return True
        return False if ours.weights != theirs.weights else None

    def _run(self, fields: Config) -> Run:
        key = repr(fields)
        if key not in self._runs:
            try:
                self._runs[key] = self.checkpoint.run(fields)
            except Exception:  # as for shapes
                self._runs[key] = self._unchecked.run(fields)
        return self._runs[key]

    def graph(self, fields: Config) -> Graph:
        """The canonical graph of the model with these fields; a graph of one's own."""
        key = repr(fields)
        if key not in self._graphs:
            graph = self.checkpoint.traced(fields, f"the wide {self.checkpoint.name}")
            free_inner_outputs(graph)
            self.left_out.taken_from(graph)
            run((Canonicalize(),), State(graph))
            self._graphs[key] = graph
        return self._graphs[key].copy()


class _Unchecked(Checkpoint):
    """A checkpoint whose class is not asked whether the numbers of a configuration agree."""

    def with_fields(self, fields: Config) -> Any:
        """The configuration object with other fields; the class validates what it reads, not what is set later."""
        config = super().with_fields(self.fields)
        for where, (_, new) in differences(self.fields, fields).items():
            *path, last = where
            holder: Any = reduce(_part, path, config)
            container = isinstance(holder, dict | list)
            if container:
                holder[last] = new
            else:
                setattr(holder, str(last), new)
        return config


def _part(holder: Any, key: str | int) -> Any:
    container = isinstance(holder, dict | list)
    return holder[key] if container else getattr(holder, str(key))


@dataclass(frozen=True)
class Grown:
    """A source grown into the model of a configuration.

    Attributes:
        fields: the configuration.
        state: after all passes.
        timings: of the passes.
        notes: what the user should know.
    """

    fields: Config
    state: State
    timings: Sequence[Timing]
    notes: Sequence[str] = ()

    @property
    def model(self) -> Traced:
        """The graph of the clone, and what is known about its dims."""
        return Traced(self.state, self.timings)


def computed_tables(state: State) -> dict[Axis, str]:
    """The dims that tables have which the code computes and which are not saved, each with the name of one."""
    facts = state.facts
    tables = [i for i in state.graph.initializers if i.kind == "constant"]
    return {leaf: i.name for i in tables for axis in facts.of[i.value] for leaf in facts.axes.leaves(axis)}


def growing_table(goal: State) -> str | None:
    """The first table that the code computes and that would grow."""
    tables = (name for leaf, name in computed_tables(goal).items() if goal.growth_of(leaf).new_size > leaf.size)
    return next(tables, None)


def grown_into(traces: Traces, fields: Config, source: Graph, request: Request, after: After | None = None) -> Grown:
    """The source grown into the model with these fields; what that model does not tie is not tied.

    Raises:
        GraphcloneError: it is not the source at other widths.
    """
    target = traces.graph(fields)
    state = State(source.copy(), dataclasses.replace(request, untie=untied(source, target)))
    timings = match(state, target, after)
    if BY_PLACES in source.notes and (table := growing_table(state)) is not None:
        reason = "would grow, which the class computes anew for other places of tokens"
        raise GraphcloneError(f"{table} {reason}, where nothing is known of it; ask for other dims")
    return Grown(fields, state, timings)
