"""The configuration whose model has the widths that a request asks for, and the source grown into that model."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from math import prod
from typing import Any

from graphclone.algebra.axes import Cause, Kind
from graphclone.analysis.dims import dims, groups
from graphclone.clones.source import After
from graphclone.clones.summary import factors
from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.formats.huggingface.answers import Solution
from graphclone.formats.huggingface.config_solver import (
    Config,
    Field,
    ModelProbe,
    Unfit,
    Wanted,
    bases,
    changed,
    differences,
    named,
    solve,
)
from graphclone.formats.huggingface.depths import deepened
from graphclone.formats.huggingface.discarded import loose_dims
from graphclone.formats.huggingface.entries import ELSEWHERE, TIE
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.traces import Grown, Traces, computed_tables, growing_table, grown_into
from graphclone.graph.alignment import align
from graphclone.graph.ir import Graph, Value
from graphclone.passes.balance_scales import Unbalanced
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.choose_widths import ChooseWidths
from graphclone.passes.deepen import Deepen
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.match_widths import MatchWidths
from graphclone.passes.tables import OtherTableError
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.progress import Progress


def widened(traces: Traces, source: Graph, request: Request, progress: Progress, after: After | None) -> Grown:
    """The source as wide as asked, in a model that its class makes.

    The configuration of that model may have been found by an earlier run, and then is only checked.

    Args:
        traces: of the checkpoint's class.
        source: its graph, with its weights.
        request: what the user wants.
        progress: a callback that is told how many steps are done.
        after: called after every pass on the source's graph.

    Raises:
        GraphcloneError: it cannot be widened as asked, or no configuration has such weights.
    """
    if after is not None:  # somebody wants to see every pass
        return _found(traces, source, request, progress, after)
    found: list[Grown] = []

    def find() -> Solution:
        found.append(_found(traces, source, request, progress))
        return found[0].fields, found[0].notes

    checkpoint = traces.checkpoint
    fields, notes = checkpoint.answers.solution(checkpoint.fields, checkpoint.example_inputs, request, find)
    if not found:
        try:
            return dataclasses.replace(grown_into(traces, fields, source, request), notes=notes)
        except Exception:  # rules are others now, or the class refuses it
            find()
    return found[0]


def _found(traces: Traces, source: Graph, request: Request, progress: Progress, after: After | None = None) -> Grown:
    goal = _goal(source, request, after)
    _check_inputs(goal)
    progress("solving the configuration", 0, 0)
    target = _Target(traces, goal, _fields_as_deep(traces, source, goal))
    try:
        fields = target.solved()
    except Unfit as unfit:
        if names := _fitting(source, request, target, unfit, unsaid=True):
            grown = _found(traces, source, _of(request, names), progress, after)
            kept = ", ".join(_without(target.grown(), names))
            note = f"{kept}: as wide as before, since no number of the configuration says how wide"
            return dataclasses.replace(grown, notes=[*grown.notes, note])
        raise _refusal(source, request, target, unfit) from unfit
    try:
        return grown_into(traces, fields, source, request, after)
    except Unbalanced as unbalanced:
        return _relieved(traces, fields, source, request, unbalanced, after)


def _fields_as_deep(traces: Traces, source: Graph, goal: State) -> Config:
    """A configuration with as many blocks as a goal has; new blocks behind all others are named where they have one."""
    request = goal.request
    try:
        return deepened(traces, source, goal)
    except GraphcloneError as refusal:
        if request.new_blocks == "end":
            raise
        try:
            deepened(traces, source, _goal(source, dataclasses.replace(request, new_blocks="end")))
        except GraphcloneError:
            raise refusal from None
        raise GraphcloneError(refusal.message, Remedy("new_blocks", "works", "end")) from refusal


def _relieved(
    traces: Traces, fields: Config, source: Graph, request: Request, unbalanced: Unbalanced, after: After | None
) -> Grown:
    """A clone with embeddings that are not shared, or with one number that does not grow, and a note of that."""
    for relief, note in _reliefs(traces, fields, source, request, unbalanced):
        try:
            grown = grown_into(traces, relief, source, request, after)
        except Exception:  # the class may refuse it, or be other code with it
            continue
        return dataclasses.replace(grown, notes=[note])
    raise GraphcloneError(f"{unbalanced}; {ELSEWHERE}") from unbalanced


def _reliefs(
    traces: Traces, fields: Config, source: Graph, request: Request, unbalanced: Unbalanced
) -> Iterator[tuple[Config, str]]:
    """Configurations in which something more can absorb a factor, or there is none, each with what to note of it."""
    ties = [where for where, value in _flags(fields) if value and where[-1] == TIE]
    if ties and any(i.kind == "parameter" and len(i.names) > 1 for i in source.initializers):
        apart = changed(fields, [(where, False) for where in ties])
        yield apart, f"{TIE} is turned off: nothing in the model can absorb the factor that a shared weight brings"
    for where, fewer in _fewer(traces, fields) if not request.patterns else ():
        yield fewer, f"{named(where)} stays as it is: with it, {unbalanced}"


def _fewer(traces: Traces, fields: Config) -> list[tuple[Field, Config]]:
    """Configurations with one number as in the source, those with most parameters first."""
    candidates = []
    for where, (before, _) in differences(traces.checkpoint.fields, fields).items():
        candidate = changed(fields, [(where, before)])
        try:
            shapes = traces.shapes(candidate).values()
        except Exception:  # there is no such model
            continue
        candidates.append((sum(prod(shape) for shape in shapes), where, candidate))
    candidates.sort(key=lambda item: -item[0])
    return [(where, candidate) for _, where, candidate in candidates]


def _check_inputs(goal: State) -> None:
    """Refuse an input that would grow: nothing tells a class to take it twice."""
    for value in goal.graph.inputs:
        if any(goal.layout(axis).grows for axis in goal.facts.of.get(value, ())):
            outputs = [output.name for output in goal.graph.outputs if not output.free]
            remedy = Remedy("widen_io", "lets the outputs grow alone", outputs)
            raise GraphcloneError(f"{value.name} would grow, but the inputs of a checkpoint keep their shape", remedy)


def _refusal(source: Graph, request: Request, target: _Target, unfit: Unfit) -> GraphcloneError:
    """What to do about weights that no configuration has: let outputs grow, if that helps, or write something else."""
    goal = target.goal
    if (table := growing_table(goal)) is not None:
        unfit = Unfit(f"{table} would be repeated, but the code computes it anew from the widths; {unfit}", unfit.axes)
    text = f"no {CONFIG} can say this: {unfit}"
    outputs = tuple(output.name for output in source.outputs if not output.free)
    freed = dataclasses.replace(request, widen_io=outputs)
    if not all(map(request.frees, outputs)) and _problem(source, freed, target) is None:
        remedy = Remedy("widen_io", "lets them grow", list(outputs))
        return GraphcloneError(f"{text}; the outputs are as wide as the model", remedy)
    if possible := _possible(source, request, target, unfit):
        return GraphcloneError(f"{text}; {ELSEWHERE}", Remedy("widen", "works", possible))
    return GraphcloneError(f"{text}; {ELSEWHERE}")


def _possible(source: Graph, request: Request, target: _Target, unfit: GraphcloneError) -> dict[str, Any]:
    """The dims that a configuration can widen by the one factor that was asked for; none if they do not go together.

    Those that no number says are left out first. One may be in the way of all others, of which some cannot grow alone.
    """
    factor = request.factors
    if request.patterns or isinstance(factor, Mapping):
        return {}

    def fits(names: Sequence[str]) -> bool:
        return _problem(source, _of(request, names), target) is None

    grown = target.grown()

    def found() -> Iterator[Sequence[str]]:
        yield _fitting(source, request, target, unfit)
        alone = [name for name in grown if fits([name])]
        several = (*(_without(grown, {name}) for name in grown if name not in alone), alone)
        yield from filter(fits, filter(None, several))

    shown = factor if isinstance(factor, int) else str(factor)
    return dict.fromkeys(next(filter(None, found()), ()), shown)


def _fitting(
    source: Graph, request: Request, target: _Target, unfit: GraphcloneError, *, unsaid: bool = False
) -> list[str]:
    """What one factor can widen without the dims that no configuration can; nothing if that does not fit, either.

    Args:
        source: the model.
        request: of the factor.
        target: the search that has found none.
        unfit: why.
        unsaid: leave out those alone that no number of the configuration moves.
    """
    if request.patterns or isinstance(request.factors, Mapping):
        return []
    left, reason = target.grown(), unfit
    while isinstance(reason, Unfit) and (reason.unsaid or not unsaid) and (held := target.named(reason.axes)):
        if not (left := _without(left, held)):
            return []
        if (problem := _problem(source, _of(request, left), target)) is None:
            return left
        reason = problem
    return []


def _of(request: Request, names: Sequence[str]) -> Request:
    """The request that some dims alone grow by the one factor that is asked for."""
    factor = request.factors
    assert not isinstance(factor, Mapping)
    return dataclasses.replace(request, widen=dict.fromkeys(names, factor))


def _without(names: Sequence[str], others: Collection[str]) -> list[str]:
    return [name for name in names if name not in others]


def _problem(source: Graph, request: Request, target: _Target) -> GraphcloneError | None:
    """Why no configuration as deep as another makes what is asked for; None where one does."""
    try:
        _Target(target.traces, _goal(source, request), target.fields).solved()
    except GraphcloneError as error:
        return error
    return None


def _goal(source: Graph, request: Request, after: After | None = None) -> State:
    """The source with the widths that are asked for."""
    goal = State(source.copy(), request)
    run((Canonicalize(), Deepen(), InferDims(), ChooseWidths()), goal, after=after)
    return goal


class _Target:
    """The search for a configuration that has the wanted widths and is as deep as another."""

    def __init__(self, traces: Traces, goal: State, fields: Config) -> None:
        self.traces = traces
        self.goal = goal
        self.fields = fields
        self.matched: list[Config] = []
        self.has_other_tables = False
        asked_for = {dim.axis for dim in dims(goal.facts) if any(map(dim.matches, goal.request.patterns))}
        self.loose = loose_dims(goal.facts) - asked_for

    def solved(self) -> Config:
        """The configuration that makes the wanted widths.

        Where none makes them all, one is good enough that makes all weights as wide and that can be cloned into, unless
        the request names dims: heads may grow in size where they cannot in number.

        Raises:
            Unfit: there is none.
        """
        unfit: Unfit | None = None
        for fields in chain([self.fields], self.powers()):  # lazily: what the first try meets decides
            try:
                return solve(
                    fields, self.shapes(), ModelProbe(self.traces.shapes, self.unlike, self.traces.moves, self.ratios)
                )
            except Unfit as reason:
                unfit = unfit or reason
        if self.matched and not self.goal.request.patterns:
            return self.matched[0]
        assert unfit is not None, "the source's own fields were tried"
        raise unfit

    def powers(self) -> Iterator[Config]:
        """The source's configuration with a number raised to the power by which a table that the code computes grows.

        A table of powers of a number, such as rotary frequencies ``base ** (-i / size)``, then begins as the source's.
        """
        if not self.has_other_tables:
            return
        tables = {Fraction(self.goal.growth_of(leaf).new_size, leaf.size) for leaf in computed_tables(self.goal)}
        for where, value in bases(self.fields):
            yield from (changed(self.fields, [(where, value ** float(power))]) for power in sorted(tables - {1}))

    def grown(self) -> list[str]:
        """The names of the groups of dims that were to grow."""
        named_groups = groups(dims(self.goal.facts))
        return [group.name for group in named_groups if any(factor > 1 for factor in factors(self.goal, group))]

    def named(self, places: Collection[tuple[str, int]]) -> set[str]:
        """The names of the groups of dims that axes of parameters consist of."""
        facts = self.goal.facts
        values = {name: i.value for i in self.goal.graph.initializers for name in i.names}
        leaves = {leaf for name, axis in places for leaf in facts.axes.leaves(facts.of[values[name]][axis])}
        return {dim.group for dim in dims(facts) if dim.axis in leaves}

    def shapes(self) -> Wanted:
        """The wanted shape of every parameter; one that nothing reads may have any."""
        facts = self.goal.facts
        return {
            name: self.shape(i.value)
            for i in self.goal.graph.initializers
            if i.kind != "constant"
            and not any(axis.pin and axis.pin.kind is Cause.UNREAD for axis in facts.of[i.value])
            for name in i.names
        }

    def shape(self, value: Value) -> tuple[int | None, ...]:
        """The wanted shape of a value; None for an axis that may have any size."""
        facts = self.goal.facts
        return tuple(
            self.goal.layout(axis).new_size if self.loose.isdisjoint(facts.axes.leaves(axis)) else None
            for axis in facts.of[value]
        )

    def ratios(self, size: int) -> set[Fraction]:
        """The factors by which axes of a size grow, be they whole axes or factors of axes."""
        facts = self.goal.facts
        axes = {facts.axes.find(axis) for of in facts.of.values() for axis in of}
        axes |= {leaf for axis in axes for leaf in facts.axes.leaves(axis)}
        ratios = {axis: Fraction(self.goal.layout(axis).new_size, size) for axis in axes if axis.size == size}
        return {r for axis, r in ratios.items() if r.denominator == 1 or axis.kind is not Kind.CONCAT}  # no sum's

    def unlike(self, fields: Config) -> str | None:
        """The first value that does not have the width it should have, or why there can be no such clone."""
        try:
            target = self.traces.graph(fields)
        except GraphcloneError as error:
            return str(error)
        except Exception as error:  # its numbers may not agree
            return f"the class refuses it: {first_line(error.__cause__ or error)}"
        try:
            MatchWidths(target)(dataclasses.replace(self.goal))
        except GraphcloneError as error:
            self.has_other_tables |= isinstance(error, OtherTableError)
            return str(error)
        self.matched.append(fields)
        values = align(self.goal.graph, target).values
        for value, axes in self.goal.facts.of.items():
            shape, unread = self.shape(value), any(axis.pin and axis.pin.kind is Cause.UNREAD for axis in axes)
            if value in values and not unread and not _fits(shape, values[value].shape):
                actual = values[value].shape
                return f"{value.name} would be {shape}, but a configuration that fits all weights makes it {actual}"
        return None


def _fits(wanted: Sequence[int | None], shape: Sequence[int] | None) -> bool:
    """Whether a shape is as wanted."""
    return (
        shape is not None
        and len(wanted) == len(shape)
        and all(w in (None, s) for w, s in zip(wanted, shape, strict=True))
    )


def _flags(fields: Config, prefix: Field = ()) -> Iterator[tuple[Field, bool]]:
    for key, value in fields.items():
        if isinstance(value, bool):
            yield (*prefix, key), value
        elif isinstance(value, dict):
            yield from _flags(value, (*prefix, key))
