"""Grow a checkpoint into the shape of a published one: what is taken of its configuration, and what is in the way.

A target is a configuration; its weights are never read. The source's class makes the target's model, and the source is
grown into it. What says who a checkpoint is and not how large, such as its labels and its special tokens, stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from graphclone.clones.source import After
from graphclone.errors import GraphcloneError, Remedy, first_line
from graphclone.extras import required
from graphclone.formats.huggingface.config_solver import Config, Field, changed, differences, named
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.reader import Checkpoint, imported
from graphclone.formats.huggingface.traces import Grown, Traces, grown_into
from graphclone.graph.alignment import align
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import Request
from graphclone.runtime.tensors import data_of

_VOCABULARY = "vocab_size"
_TOKENS = ("_token_id", "_token_ids", "_token_index")
_KIND = "model_type"

_REFUSAL = "the class refuses it"

_PAIRS = 24
"""How many pairs of fields are tried where no field alone is in the way."""


@dataclass(frozen=True)
class Obstacle:
    """A difference between source and target that no weights bridge.

    Attributes:
        changes: the fields of the configuration that bring it, with the values in source and target; none where it is
            not known which.
        reason: what is in the way.
        remedy: what to do about it, if anything.
    """

    changes: Mapping[Field, tuple[Any, Any]]
    reason: str
    remedy: Remedy | None = None

    def __str__(self) -> str:
        shown = (f"{named(w)} is {old} in the source and {new} in the target" for w, (old, new) in self.changes.items())
        return ": ".join(part for part in (", ".join(shown), self.reason) if part)


@dataclass(frozen=True)
class Reach:
    """The extent to which a source can grow towards a target.

    Attributes:
        grown: into the target, or into what is nearest to it; None where nothing could be told.
        obstacles: what is in the way of the whole.
    """

    grown: Grown | None
    obstacles: list[Obstacle]

    def raise_if_short(self, like: str) -> None:
        """Refuse a target that cannot be reached.

        Raises:
            GraphcloneError: with what is in the way, in the configuration's words.
        """
        if self.obstacles:
            whole = "; ".join(map(str, self.obstacles))
            remedy = next((obstacle.remedy for obstacle in self.obstacles if obstacle.remedy), None)
            raise GraphcloneError(f"{like} cannot be reached: {whole}", remedy)


def likened(traces: Traces, source: Graph, request: Request, after: After | None) -> Grown:
    """The source grown into the shape that ``request.like`` has.

    Args:
        traces: of the checkpoint's class.
        source: its graph, with its weights.
        request: what the user wants.
        after: called after every pass on the source's graph.

    Raises:
        GraphcloneError: there is no such target, or something in it cannot be reached, in the configuration's words.
    """
    found = reach(traces, source, request, after)
    found.raise_if_short(str(request.like))
    assert found.grown is not None, "there is an obstacle otherwise"
    return found.grown


def reach(traces: Traces, source: Graph, request: Request, after: After | None = None) -> Reach:
    """Find how far a source can grow towards ``request.like``, and what is in the way of the rest.

    Raises:
        GraphcloneError: there is no such target, or it is of another kind of model.
    """
    checkpoint = traces.checkpoint
    target = _wanted(checkpoint, _target_fields(checkpoint, str(request.like)))
    obstacles = []
    for where, values in _vocabularies(checkpoint.fields, target):
        if not request.keep_vocab:
            reason = "no weight can make up for another vocabulary"
            obstacles.append(Obstacle({where: values}, reason, Remedy("keep_vocab", "keeps the source's")))
        target = changed(target, [(where, values[0])])
    target, notes, unknown = _without_unseen(traces, target)
    search = _Search(traces, source, request, after)
    while True:
        attempt = search.attempt(target)
        if isinstance(attempt, Grown):
            kept = {w: v for w, v in unknown.items() if differences(checkpoint.fields, target).get(w) == v}
            without = search.attempt(_as_in_source(target, kept)) if kept else attempt
            if kept and isinstance(without, Grown):  # either way it is the source on the example inputs
                attempt, notes = without, [*notes, _unseen_note(kept)]
            notes = [*attempt.notes, *notes, *checkpoint.notes]
            return Reach(Grown(attempt.fields, attempt.state, attempt.timings, notes), obstacles)
        culprits = search.culprits(target)
        if not culprits:
            return Reach(None, [*obstacles, Obstacle({}, attempt)])
        obstacles += culprits
        target = _as_in_source(target, {w: v for culprit in culprits for w, v in culprit.changes.items()})


class _Search:
    """Attempts to grow the source, each made once."""

    def __init__(self, traces: Traces, source: Graph, request: Request, after: After | None) -> None:
        self.traces = traces
        self.source = source
        self.request = request
        self.after = after
        self.attempts: dict[str, Grown | str] = {}

    def attempt(self, fields: Config) -> Grown | str:
        """The source grown into the model with these fields, or why it cannot be."""
        key = repr(fields)
        if key not in self.attempts:
            self.attempts[key] = self._attempted(fields)
        return self.attempts[key]

    def _attempted(self, fields: Config) -> Grown | str:
        try:
            self.traces.graph(fields)
        except Exception as error:  # a class refuses in any way
            return f"{_REFUSAL}: {first_line(error.__cause__ or error)}"
        try:
            after = None if self.attempts else self.after
            return grown_into(self.traces, fields, self.source, self.request, after)
        except GraphcloneError as error:
            return str(error)

    def culprits(self, target: Config) -> list[Obstacle]:
        """The field, or the two fields, with which the target can be reached once they are as in the source."""
        changes = differences(self.traces.checkpoint.fields, target)
        for fields in [*((where,) for where in changes), *islice(combinations(changes, 2), _PAIRS)]:
            reverted = {where: changes[where] for where in fields}
            if isinstance(self.attempt(_as_in_source(target, reverted)), Grown):
                return self.obstacles(target, reverted)
        return []

    def obstacles(self, target: Config, changes: Mapping[Field, tuple[Any, Any]]) -> list[Obstacle]:
        """What fields are in the way of: each by itself, or together where the class takes none of them alone."""
        apart = []
        for where, values in changes.items():
            others = {other: theirs for other, theirs in changes.items() if other != where}
            reason = self.attempt(_as_in_source(target, others))
            assert isinstance(reason, str), "fewer fields would have been enough"
            apart.append(Obstacle({where: values}, reason))
        if any(obstacle.reason.startswith(_REFUSAL) for obstacle in apart):
            whole = self.attempt(target)
            assert isinstance(whole, str), "there is something in the way"
            return [Obstacle(changes, whole)]
        return apart


# The target's configuration


def _target_fields(checkpoint: Checkpoint, text: str) -> Config:
    """The target's configuration, with the defaults of its class.

    Raises:
        GraphcloneError: there is none, or it is for another kind of model.
    """
    raw = _read(text)
    kind, wanted = checkpoint.raw.get(_KIND), raw.get(_KIND)
    if kind != wanted:
        raise GraphcloneError(f"{text}: is for a {wanted}, and {checkpoint.name} is a {kind}; give one of its kind")
    try:
        return checkpoint.understood(raw)
    except Exception as error:  # validators raise whatever they like
        raise GraphcloneError(f"{text}: transformers refuses it: {first_line(error)}") from error


def _read(text: str) -> Config:
    path = Path(text)
    if path.is_dir():
        path /= CONFIG
    if not path.is_file():
        path = _downloaded(text)
    try:
        raw = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise GraphcloneError(f"{path}: cannot be read: {first_line(error)}") from error
    if not isinstance(raw, dict) or _KIND not in raw:
        raise GraphcloneError(f"{path}: is no configuration: it has no {_KIND}")
    return raw


def _downloaded(text: str) -> Path:
    """The configuration of a hub id, and nothing else of it."""
    huggingface_hub = required("huggingface_hub", "hf", "a hub id")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(text, CONFIG))
    except (HFValidationError, LocalEntryNotFoundError, OSError, HfHubHTTPError) as error:
        what = f"give a {CONFIG}, a folder with one, or a hub id where there is a network"
        raise GraphcloneError(f"{text}: no such target: {first_line(error)}; {what}") from error


def _wanted(checkpoint: Checkpoint, target: Config) -> Config:
    """The target's configuration, with the source's own labels, tokens and dtype."""
    general = set(imported().PretrainedConfig().to_dict())
    changes = {}
    for where, values in differences(checkpoint.fields, target).items():
        if not any(str(key) in general or str(key).endswith(_TOKENS) for key in where):
            changes[where] = values[1]
    return changed(checkpoint.fields, [*changes.items()])


def _vocabularies(source: Config, target: Config) -> Iterator[tuple[Field, tuple[Any, Any]]]:
    yield from (item for item in differences(source, target).items() if item[0][-1] == _VOCABULARY)


_Changes = Mapping[Field, tuple[Any, Any]]
"""Fields with their values in source and target."""


def _without_unseen(traces: Traces, target: Config) -> tuple[Config, list[str], _Changes]:
    """The target without what its trace does not show, such as a window that is longer than the example input.

    What cannot be seen cannot be proved, so it stays as it is in the source.

    Returns:
        The target; notes of what stays; and fields of which it is not known whether they are seen.
    """
    changes = differences(traces.checkpoint.fields, target)
    shapes = _shapes(traces, target)
    if shapes is None:
        return target, [], {}
    shapeless = {w: v for w, v in changes.items() if shapes == _shapes(traces, _as_in_source(target, {w: v}))}
    alike = {w: _alike(traces, target, _as_in_source(target, {w: v})) for w, v in shapeless.items()}
    unseen = {w: v for w, v in shapeless.items() if alike[w]}
    unknown = {w: v for w, v in shapeless.items() if alike[w] is None}
    if len(unknown) > 1 and _alike(traces, target, _as_in_source(target, unknown)):
        unseen, unknown = {**unseen, **unknown}, {}
    return _as_in_source(target, unseen), [_unseen_note(unseen)] if unseen else [], unknown


def _as_in_source(target: Config, changes: _Changes) -> Config:
    return changed(target, [(where, old) for where, (old, _) in changes.items()])


def _unseen_note(changes: _Changes) -> str:
    kept = ", ".join(f"{named(where)} {old} (not {new})" for where, (old, new) in changes.items())
    return f"as in the source, since its effect is not seen on the example inputs: {kept}"


def _shapes(traces: Traces, fields: Config) -> Any:
    try:
        return traces.checkpoint.shapes(fields)
    except Exception:  # a configuration may be refused in any way
        return None


def _alike(traces: Traces, a: Config, b: Config) -> bool | None:
    """Whether the models of two configurations compute the same, to the last number in their code.

    A run shows that soonest. Where it differs in constants, the graphs may still be the same once these are folded.
    Graphs that cannot be laid side by side tell nothing.
    """
    repeats = traces.repeats(a, b)
    if repeats is not None:
        return repeats
    try:
        ours, theirs = traces.graph(a), traces.graph(b)
    except Exception:  # one is refused
        return None
    try:
        alignment = align(ours, theirs)
    except GraphcloneError:  # they are not the same code
        return None
    if _parameters(ours) != _parameters(theirs):  # what is tied
        return False
    by_value = theirs.initializer_of()
    for initializer in ours.initializers:
        value = initializer.value
        if initializer.kind == "constant" and value in alignment.values:
            pair = data_of(initializer), data_of(by_value[alignment.values[value]])
            if any(data is None for data in pair) or not _equal(*pair):
                return False
    return not any(pair.differs for pair in alignment.literals)


def _parameters(graph: Graph) -> set[tuple[str, ...]]:
    """The names of every tensor that the class has, and not those of what has been folded."""
    return {tuple(initializer.names) for initializer in graph.initializers if initializer.kind != "constant"}


def _equal(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and (a == b).all())
