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
from functools import cached_property, partial, reduce
from math import prod
from typing import Any

import torch

from graphclone.algebra.axes import Axis, Cause
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
from graphclone.formats.huggingface.conversion import ConvertedTensor, ModelTensor, unloaded
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.reader import Checkpoint, drop_inner_outputs, quiet_transformers
from graphclone.formats.huggingface.unreached import widen_unreached
from graphclone.formats.huggingface.weights import PICKLE_NOTE, PickledTensor
from graphclone.graph.alignment import align
from graphclone.graph.ir import Graph, Initializer, Output, values_in
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
from graphclone.runtime.shards import Bundle, Entry, Slot

_TIE = "tie_word_embeddings"

_ELSEWHERE = "an output of .onnx or .pt2 can hold it, since its code is written anew"


@dataclass(frozen=True)
class Plan:
    """Everything decided, nothing written.

    Attributes:
        checkpoint: the source.
        widened: the widened graph, whose source tensors are on disk.
        fields: the configuration of the wider model, as a dict.
        config: what config.json of the wider model says.
        entries: the tensors to be written, in the order of the model, under the names and in the form of the source.
        notes: what the user should know.
    """

    checkpoint: Checkpoint
    widened: Traced
    fields: Config
    config: Config
    entries: Sequence[Entry | Bundle]
    notes: list[str] = field(default_factory=list)

    @property
    def width(self) -> tuple[int, int]:
        """The width of the model's states in source and clone; 0 where the configuration knows of none."""
        configs = (self.checkpoint.config, self.checkpoint.with_fields(self.fields))
        before, after = (int(getattr(config.get_text_config(), "hidden_size", 0) or 0) for config in configs)
        return before, after

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The fields of the configuration that change, with old and new value."""
        return {named(where): values for where, values in differences(self.checkpoint.fields, self.fields).items()}


@collector.seldom()
def plan(checkpoint: Checkpoint, request: Request, progress: Progress = silent, after: After | None = None) -> Plan:
    """Decide everything about the clone of a checkpoint, from its configuration and the names on disk.

    Raises:
        GraphcloneError: it cannot be widened as asked, or no configuration has such weights.
    """
    progress("tracing", 0, 0)
    source = checkpoint.traced(checkpoint.fields, checkpoint.name)
    inner = drop_inner_outputs(source)
    notes = list(_attach(source, checkpoint))
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
    entries = _Entries(checkpoint, fields).of(state)
    return Plan(checkpoint, Traced(state, timings), fields, _config(checkpoint, fields), entries, notes)


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
    ties = [where for where, value in _flags(fields) if value and where[-1] == _TIE]
    if ties and any(i.kind == "parameter" and len(i.names) > 1 for i in source.initializers):
        state = State(source.copy(), dataclasses.replace(request, untie=True))
        timings = match(state, target.traced(fields), after)
        note = f"{_TIE} is turned off: nothing in the model can absorb the factor that a shared weight brings"
        return changed(fields, [(where, False) for where in ties]), state, timings, note
    for where, fewer in _fewer(target, fields) if isinstance(request.widen, int) else ():
        state = State(source.copy(), request)
        try:
            timings = match(state, target.traced(fewer), after)
        except Exception:  # the class may refuse it, too
            continue
        return fewer, state, timings, f"{named(where)} stays as it is: with it, {unbalanced}"
    raise GraphcloneError(f"{unbalanced}; {_ELSEWHERE}") from unbalanced


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
    return GraphcloneError(f"{text}; ask for other dims by name ({', '.join(target.grown())} grow), or {_ELSEWHERE}")


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
        self.recorded: dict[str, Any] = {}
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
            if self.matched and isinstance(self.goal.request.widen, int):
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

    def ratios(self, size: int) -> set[int]:
        """The factors by which axes of a size grow, be they whole axes or factors of axes."""
        facts = self.goal.facts
        axes = {facts.axes.find(axis) for of in facts.of.values() for axis in of}
        axes |= {leaf for axis in axes for leaf in facts.axes.leaves(axis)}
        return {self.goal.layout(axis).new_size // size for axis in axes if axis.size == size}

    def moves(self, before: Config, after: Config) -> bool | None:
        """Whether anything in a run has another shape; None where that cannot be seen."""
        try:
            return bool(self.run(before) != self.run(after))
        except Exception:  # a configuration that is refused together with others only, or code that needs data
            return None

    def run(self, fields: Config) -> Any:
        key = repr(fields)
        if key not in self.recorded:
            try:
                self.recorded[key] = self.checkpoint.runs(fields)
            except Exception:  # as for shapes
                self.recorded[key] = self.unchecked.runs(fields)
        return self.recorded[key]

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


# Weights


def _attach(graph: Graph, checkpoint: Checkpoint) -> Iterator[str]:
    """Give every weight of a graph its data on disk; what the user should know about that.

    Raises:
        GraphcloneError: a tensor is missing, or has another shape or kind of numbers than the model.
    """
    tensors = checkpoint.tensors
    used: set[str] = set()
    for initializer in graph.initializers:
        if initializer.kind != "constant":
            stored = [tensors[name] for name in initializer.names if name in tensors]
            if not stored:
                raise GraphcloneError(f"{checkpoint.name}: {initializer.name} is missing; complete the checkpoint")
            initializer.tensor = _checked(stored[0], initializer, checkpoint)
            _check_equal(stored, checkpoint)
            used.update(part.name for tensor in stored for part in tensor.parts)
    if unused := [name for name in checkpoint.weights if name not in used]:
        yield f"not part of the model and left out: {', '.join(unused[:3])}{' and more' * (len(unused) > 3)}"
    if any(isinstance(tensor, PickledTensor) for tensor in checkpoint.weights.values()):
        yield PICKLE_NOTE


def _checked(stored: ModelTensor, initializer: Initializer, checkpoint: Checkpoint) -> ModelTensor:
    shape = initializer.value.shape
    if stored.shape != shape:
        raise GraphcloneError(
            f"{stored.file}: {stored.name} is {stored.shape}, but the model of {CONFIG} has {shape}; "
            "the two do not belong together"
        )
    expected = getattr(torch, initializer.value.dtype)
    if stored.dtype.is_floating_point != expected.is_floating_point:
        raise GraphcloneError(f"{stored.file}: {stored.name} is {stored.dtype}, but {checkpoint.name} needs {expected}")
    return stored


def _check_equal(tensors: Sequence[ModelTensor], checkpoint: Checkpoint) -> None:
    """Weights that the model ties, and that are stored more than once, must be the same."""
    for other in tensors[1:]:
        if not torch.equal(tensors[0].read(), other.read()):
            raise GraphcloneError(
                f"{checkpoint.name}: {tensors[0].name} and {other.name} are tied in the model but differ on disk; "
                f"set {_TIE} to false in {CONFIG}"
            )


# What is written


class _Entries:
    """The tensors of a clone in the form that the source has them in."""

    def __init__(self, checkpoint: Checkpoint, fields: Config) -> None:
        self.checkpoint = checkpoint
        self.fields = fields

    def of(self, state: State) -> list[Entry | Bundle]:
        """One entry per tensor of the model, and a bundle where several of them are stored together.

        Raises:
            GraphcloneError: the form of the source cannot be restored.
        """
        recipes, tensors = state.recipes, self.checkpoint.tensors
        together: dict[int, list[Entry]] = {}  # what one conversion makes
        for i in state.graph.initializers:
            if i.kind != "constant":
                name = next((tensors[name].name for name in i.names if name in tensors), i.name)
                maker = i.tensor.conversion if isinstance(i.tensor, ConvertedTensor) else i
                together.setdefault(id(maker), []).append(Entry(name, i.tensor, recipes[i.value]))
        return [self._bundled(e) if isinstance(e[0].source, ConvertedTensor) else e[0] for e in together.values()]

    @cached_property
    def _wide(self) -> Any:
        """The wider model, without weights."""
        with quiet_transformers():
            return self.checkpoint.on_meta(self.checkpoint.with_fields(self.fields))

    def _bundled(self, entries: Sequence[Entry]) -> Bundle:
        """Tensors that the source has in another form, in that form."""
        restored = partial(unloaded, self._wide)
        shapes = {e.name: torch.empty(e.recipe.shape, dtype=e.source.dtype, device="meta") for e in entries}
        slots = [Slot(name, tuple(tensor.shape), tensor.dtype) for name, tensor in restored(shapes).items()]
        first = entries[0].source
        assert isinstance(first, ConvertedTensor)
        parts = [part.name for part in first.parts]
        if {slot.name for slot in slots} != set(parts):
            raise GraphcloneError(
                f"{self.checkpoint.name}: {parts[0]} and others become {entries[0].name} while loading, and "
                f"transformers makes {slots[0].name} of that, so it cannot be stored as it was; {_ELSEWHERE}"
            )
        return Bundle(tuple(entries), tuple(slots), restored)


# Configurations


def _config(checkpoint: Checkpoint, fields: Config) -> Config:
    """config.json of the wider model: the source's with the solved fields, and no others unless they matter."""
    changes = {where: new for where, (_, new) in differences(checkpoint.fields, fields).items()}
    config = _with(checkpoint.raw, checkpoint.fields, changes)
    loaded = checkpoint.understood(config)
    derived = {where: new for where, (_, new) in differences(loaded, fields).items() if where[-1] != "dtype"}
    return {**_with(config, checkpoint.fields, derived), "architectures": [checkpoint.cls.__name__]}


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
