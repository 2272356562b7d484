"""Decide everything about the clone of a checkpoint before a weight is read.

The source is traced without its weights and the request turned into shapes; a configuration with those shapes is
solved for, its model traced as well, and the scales balanced around the constants of that model, whose code cannot be
changed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Any

from graphclone.algebra.axes import Axis, Cause, Kind
from graphclone.analysis.dims import dims, groups
from graphclone.clones.source import After
from graphclone.clones.summary import factors
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.formats.huggingface.config_solver import (
    Config,
    Field,
    ModelProbe,
    Shapes,
    Unfit,
    changed,
    differences,
    named,
    solve,
)
from graphclone.formats.huggingface.entries import ELSEWHERE, TIE, Entries, attach, fingerprint
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.reader import Checkpoint, drop_inner_outputs, quiet_transformers
from graphclone.formats.huggingface.unreached import widen_unreached
from graphclone.graph.alignment import align
from graphclone.graph.ir import Graph, Output, values_in
from graphclone.passes import analysis
from graphclone.passes.balance_scales import Unbalanced
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.choose_widths import ChooseWidths
from graphclone.passes.match_widths import MatchWidths
from graphclone.passes.matching import match
from graphclone.pipeline.runner import Timing, run
from graphclone.pipeline.state import Request, State
from graphclone.progress import Progress, silent
from graphclone.runtime import collector
from graphclone.runtime.shards import Shard, sharded

MAX_SHARD_SIZE = 5_000_000_000
"""Bytes of a shard, as ``save_pretrained`` has it."""


@dataclass(frozen=True)
class Plan:
    """Everything decided, nothing written.

    Attributes:
        checkpoint: the source.
        widened: the widened graph, whose source tensors are on disk.
        fields: the configuration of the wider model, as a dict.
        config: what config.json of the wider model says.
        width: of the model's states in source and clone; 0 where the configuration knows of none.
        shards: the files of weights: tensors in the order of the model, under the names and in the form of the source.
        fingerprint: of all that decides the bytes of the shards.
        notes: what the user should know.
    """

    checkpoint: Checkpoint
    widened: Traced
    fields: Config
    config: Config
    width: tuple[int, int]
    shards: Sequence[Shard]
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The fields of the configuration that change, with old and new value."""
        return {named(where): values for where, values in differences(self.checkpoint.fields, self.fields).items()}


@collector.seldom()
def plan(
    checkpoint: Checkpoint,
    request: Request,
    *,
    max_shard_size: int = MAX_SHARD_SIZE,
    progress: Progress = silent,
    after: After | None = None,
) -> Plan:
    """Decide everything about the clone of a checkpoint, from its configuration and the names on disk.

    Args:
        checkpoint: the source.
        request: what the user wants.
        max_shard_size: bytes of tensors in a file, at most, but for a tensor that is larger by itself.
        progress: told how far it is.
        after: called after every pass on the source's graph.

    Raises:
        GraphcloneError: it cannot be widened as asked, or no configuration has such weights.
    """
    progress("tracing", 0, 0)
    source = checkpoint.traced(checkpoint.fields, checkpoint.name)
    inner = drop_inner_outputs(source)
    notes = list(attach(source, checkpoint))
    goal = State(source.copy(), request)
    run((*analysis(), ChooseWidths()), goal, after=after)
    progress("solving the configuration", 0, 0)
    target = _Target(checkpoint, goal)
    try:
        fields = target.solved()
    except Unfit as unfit:
        raise _refusal(checkpoint, source, request, target, unfit) from unfit
    state = State(source.copy(), request)
    try:
        timings = match(state, target.traced(fields), after)
    except Unbalanced as unbalanced:
        fields, state, timings, note = _relieved(target, fields, source, request, unbalanced, after)
        notes.append(note)
    with quiet_transformers():
        notes += widen_unreached(state, checkpoint.on_meta(checkpoint.config))
    notes += _wider_outputs(state, inner)
    config = _config(checkpoint, fields)
    shards = sharded(Entries(checkpoint, fields).of(state), max_shard_size)
    mark = fingerprint(shards, config, request.strategy)
    return Plan(checkpoint, Traced(state, timings), fields, config, _width(checkpoint, fields), shards, mark, notes)


def _wider_outputs(state: State, inner: Sequence[Output]) -> Iterator[str]:
    by_name = {value.name: axes for value, axes in state.facts.of.items()}
    for output in inner:
        axes = (axis for value in values_in(output.operand) for axis in by_name.get(value.name, ()))
        if any(state.layout(axis).grows for axis in axes):
            yield f"{output.name}, which the model returns besides, is wider than the source's"


def _relieved(
    target: _Target, fields: Config, source: Graph, request: Request, unbalanced: Unbalanced, after: After | None
) -> tuple[Config, State, Sequence[Timing], str]:
    """A clone with embeddings that are not shared, or with one number that does not grow, and a note of that."""
    ties = [where for where, value in _flags(fields) if value and where[-1] == TIE]
    if ties and any(i.kind == "parameter" and len(i.names) > 1 for i in source.initializers):
        state = State(source.copy(), dataclasses.replace(request, untie=True))
        timings = match(state, target.traced(fields), after)
        note = f"{TIE} is turned off: nothing in the model can absorb the factor that a shared weight brings"
        return changed(fields, [(where, False) for where in ties]), state, timings, note
    for where, fewer in _fewer(target, fields) if not request.patterns else ():
        state = State(source.copy(), request)
        try:
            timings = match(state, target.traced(fewer), after)
        except Exception:  # the class may refuse it, too
            continue
        return fewer, state, timings, f"{named(where)} stays as it is: with it, {unbalanced}"
    raise GraphcloneError(f"{unbalanced}; {ELSEWHERE}") from unbalanced


def _fewer(target: _Target, fields: Config) -> list[tuple[Field, Config]]:
    """Configurations with one number as in the source, those with most parameters first."""
    candidates = []
    for where, (before, _) in differences(target.checkpoint.fields, fields).items():
        candidate = changed(fields, [(where, before)])
        try:
            shapes = target.built(candidate).values()
        except Exception:  # there is no such model
            continue
        candidates.append((sum(prod(shape) for shape in shapes), where, candidate))
    candidates.sort(key=lambda item: -item[0])
    return [(where, candidate) for _, where, candidate in candidates]


def _refusal(checkpoint: Checkpoint, source: Graph, request: Request, target: _Target, unfit: Unfit) -> GraphcloneError:
    """What to do about weights that no configuration has: let outputs grow, if that helps, or write something else."""
    goal = target.goal
    tables = (name for leaf, name in computed_tables(goal).items() if goal.growth_of(leaf).new_size > leaf.size)
    if (table := next(tables, None)) is not None:
        unfit = Unfit(f"{table} would be repeated, but the code computes it anew from the widths; {unfit}")
    text = f"no {CONFIG} can say this: {unfit}"
    outputs = tuple(output.name for output in source.outputs)
    if not request.widen_io:
        freed = State(source.copy(), dataclasses.replace(request, widen_io=outputs))
        try:
            run((*analysis(), ChooseWidths()), freed)
            _Target(checkpoint, freed).solved()
        except GraphcloneError:
            pass
        else:
            remedy = Remedy("widen_io", "lets them grow", list(outputs))
            return GraphcloneError(f"{text}; the outputs are as wide as the model", remedy)
    return GraphcloneError(f"{text}; ask for other dims by name ({', '.join(target.grown())} grow), or {ELSEWHERE}")


def computed_tables(state: State) -> dict[Axis, str]:
    """The dims that tables have which the code computes and which are not saved, each with the name of one."""
    facts = state.facts
    tables = [i for i in state.graph.initializers if i.kind == "constant"]
    return {leaf: i.name for i in tables for axis in facts.of[i.value] for leaf in facts.axes.leaves(axis)}


class _Unchecked(Checkpoint):
    """A checkpoint whose class is not asked whether the numbers of a configuration agree."""

    def with_fields(self, fields: Config) -> Any:
        """The configuration object with other fields; the class validates what it reads, not what is set later."""
        config = super().with_fields(self.fields)
        for where, (_, new) in differences(self.fields, fields).items():
            *path, last = where
            holder = reduce(lambda part, key: getattr(part, str(key)), path, config)
            if isinstance(last, int):
                holder[last] = new
            else:
                setattr(holder, last, new)
        return config


class _Target:
    """The search for a configuration, and the traces it takes."""

    def __init__(self, checkpoint: Checkpoint, goal: State) -> None:
        self.checkpoint = checkpoint
        self.unchecked = _Unchecked(**{f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)})
        self.goal = goal
        self.runs: dict[str, Any] = {}
        self.traces: dict[str, Graph] = {}
        self.matched: list[Config] = []

    def solved(self) -> Config:
        """The configuration that makes the wanted widths.

        Where none makes them all, one is good enough that makes all weights as wide and that can be cloned into, unless
        the request names dims: heads may grow in size where they cannot in number.

        Raises:
            Unfit: there is none.
        """
        try:
            return solve(
                self.checkpoint.fields, self.shapes(), ModelProbe(self.built, self.unlike, self.moves, self.ratios)
            )
        except Unfit:
            if self.matched and not self.goal.request.patterns:
                return self.matched[0]
            raise

    def built(self, fields: Config) -> Shapes:
        """The shape of every parameter, also where numbers do not agree yet, since they are tried one by one."""
        try:
            return self.checkpoint.shapes(fields)
        except Exception:  # a configuration may be refused in any way
            return self.unchecked.shapes(fields)

    def grown(self) -> list[str]:
        """The names of the groups of dims that were to grow."""
        named_groups = groups(dims(self.goal.facts))
        return [group.name for group in named_groups if any(factor > 1 for factor in factors(self.goal, group))]

    def shapes(self) -> Shapes:
        """The wanted shape of every parameter; one that nothing reads may have any."""
        facts = self.goal.facts
        return {
            name: tuple(self.goal.layout(axis).new_size for axis in facts.of[i.value])
            for i in self.goal.graph.initializers
            if i.kind != "constant"
            and not any(axis.pin and axis.pin.kind is Cause.UNREAD for axis in facts.of[i.value])
            for name in i.names
        }

    def ratios(self, size: int) -> set[Fraction]:
        """The factors by which axes of a size grow, be they whole axes or factors of axes."""
        facts = self.goal.facts
        axes = {facts.axes.find(axis) for of in facts.of.values() for axis in of}
        axes |= {leaf for axis in axes for leaf in facts.axes.leaves(axis)}
        ratios = {axis: Fraction(self.goal.layout(axis).new_size, size) for axis in axes if axis.size == size}
        return {r for axis, r in ratios.items() if r.denominator == 1 or axis.kind is not Kind.CONCAT}  # no sum's

    def moves(self, before: Config, after: Config) -> bool | None:
        """Whether anything in a run has another shape; None where that cannot be seen."""
        try:
            return bool(self.run(before) != self.run(after))
        except Exception:  # a configuration that is refused together with others only, or code that needs data
            return None

    def run(self, fields: Config) -> Any:
        key = repr(fields)
        if key not in self.runs:
            try:
                self.runs[key] = self.checkpoint.runs(fields)
            except Exception:  # as for shapes
                self.runs[key] = self.unchecked.runs(fields)
        return self.runs[key]

    def unlike(self, fields: Config) -> str | None:
        """The first value that does not have the width it should have, or why there can be no such clone."""
        try:
            target = self.traced(fields)
            MatchWidths(target)(dataclasses.replace(self.goal))
        except GraphcloneError as error:
            return str(error)
        except Exception as error:  # its numbers may not agree
            return f"the class refuses it: {first_line(error.__cause__ or error)}"
        self.matched.append(fields)
        values = align(self.goal.graph, target).values
        for value, axes in self.goal.facts.of.items():
            shape = tuple(self.goal.layout(axis).new_size for axis in axes)
            unread = any(axis.pin and axis.pin.kind is Cause.UNREAD for axis in axes)
            if value in values and not unread and values[value].shape != shape:
                actual = values[value].shape
                return f"{value.name} would be {shape}, but a configuration that fits all weights makes it {actual}"
        return None

    def traced(self, fields: Config) -> Graph:
        """The canonical graph of the model with these fields, traced once however often it is asked for."""
        key = repr(fields)
        if key not in self.traces:
            graph = self.checkpoint.traced(fields, f"the wide {self.checkpoint.name}")
            drop_inner_outputs(graph)
            run((Canonicalize(),), State(graph))
            self.traces[key] = graph
        return self.traces[key].copy()


# Configurations


def _config(checkpoint: Checkpoint, fields: Config) -> Config:
    """config.json of the wider model: the source's with the solved fields, and no others unless they matter."""
    changes = {where: new for where, (_, new) in differences(checkpoint.fields, fields).items()}
    config = _with(checkpoint.raw, checkpoint.fields, changes)
    loaded = checkpoint.understood(config)
    derived = {where: new for where, (_, new) in differences(loaded, fields).items() if where[-1] != "dtype"}
    return {**_with(config, checkpoint.fields, derived), "architectures": [checkpoint.cls.__name__]}


def _width(checkpoint: Checkpoint, fields: Config) -> tuple[int, int]:
    """The width of a model's states, and that of the model with other fields."""
    configs = (checkpoint.config, checkpoint.with_fields(fields))
    before, after = (int(getattr(config.get_text_config(), "hidden_size", 0) or 0) for config in configs)
    return before, after


def _flags(fields: Config, prefix: Field = ()) -> Iterator[tuple[Field, bool]]:
    for key, value in fields.items():
        if isinstance(value, bool):
            yield (*prefix, key), value
        elif isinstance(value, dict):
            yield from _flags(value, (*prefix, key))


def _with(raw: Config, defaults: Config, changes: Mapping[Field, Any]) -> Config:
    """config.json with some fields set; a list or a nested configuration it does not have is that of the defaults."""
    config = copy.deepcopy(raw)
    for where, value in changes.items():
        holder: Any = config
        default: Any = defaults
        for key in where[:-1]:
            default = default[key]
            if isinstance(holder, dict) and holder.get(key) is None:
                holder[key] = copy.deepcopy(default)
            holder = holder[key]
        holder[where[-1]] = value
    return config
