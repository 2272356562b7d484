"""Decide everything about the clone of a checkpoint before a weight is read.

The source is traced without its weights and the request turned into shapes; a configuration with those shapes is
solved for, its model traced as well, and the scales balanced around the constants of that model, whose code cannot be
changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from graphclone.clones.source import After
from graphclone.clones.traced import Traced
from graphclone.errors import some
from graphclone.formats.huggingface.config_solver import (
    Config,
    Field,
    differences,
    named,
)
from graphclone.formats.huggingface.discarded import is_discarded, names_of
from graphclone.formats.huggingface.entries import Entries, attach, fingerprint
from graphclone.formats.huggingface.likeness import likened
from graphclone.formats.huggingface.reader import Checkpoint, free_inner_outputs, part_of
from graphclone.formats.huggingface.traces import Traces
from graphclone.formats.huggingface.unreached import LeftOut, widen_unreached
from graphclone.formats.huggingface.widths import widened
from graphclone.graph.ir import values_in
from graphclone.pipeline.state import Request, State
from graphclone.progress import Progress, silent
from graphclone.runtime import collector
from graphclone.runtime.exclusive import exclusive
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
        shards: the files of weights: tensors in the order of the model, under the names and in the form of the source.
        fingerprint: of all that decides the bytes of the shards.
        notes: what the user should know.
    """

    checkpoint: Checkpoint
    widened: Traced
    fields: Config
    config: Config
    shards: Sequence[Shard]
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The fields of the configuration that change, with old and new value."""
        return {named(where): values for where, values in differences(self.checkpoint.fields, self.fields).items()}


@collector.seldom()
@exclusive()
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
        max_shard_size: the most bytes of tensors in one file. A larger tensor gets a file of its own.
        progress: a callback that is told how many steps are done.
        after: called after every pass on the source's graph.

    Raises:
        GraphcloneError: it cannot be widened as asked, or no configuration has such weights.
    """
    progress("tracing", 0, 0)
    source = checkpoint.traced(checkpoint.fields, checkpoint.name)
    free_inner_outputs(source)
    left_out = LeftOut.of(source, checkpoint.tensors, request.omit)
    left_out.taken_from(source)
    notes = [*source.notes, *left_out.notes, *attach(source, checkpoint, left_out)]
    traces = Traces(checkpoint, left_out)
    if request.like is not None:
        grown = likened(traces, source, request, after)
    else:
        grown = widened(traces, source, request, progress, after)
    state, fields = grown.state, grown.fields
    notes += grown.notes
    build = partial(checkpoint.blank_with, fields)
    left_out.check(checkpoint.blank, build)
    notes += widen_unreached(state, build)
    notes += _free_besides(state)
    if in_vain := names_of(source):
        notes.append(f"returned to nobody, so that it is not compared: what {some(in_vain)} computes")
    config = _config(checkpoint, fields)
    shards = sharded(Entries(checkpoint, fields).of(state), max_shard_size)
    mark = fingerprint(shards, config, request.strategy)
    return Plan(checkpoint, grown.model, fields, config, shards, mark, notes)


def _free_besides(state: State) -> list[str]:
    """Take out the outputs that the model computes with and nobody relies on; returns what becomes of them."""
    axes_of = {value.name: axes for value, axes in state.facts.of.items()}
    scale_of = {value.name: scale for value, scale in state.scales.values.items()}
    others: dict[str, str] = {}
    kept = []
    for output in state.graph.outputs:
        names = [value.name for value in values_in(output.operand)]
        layouts = [state.layout(axis) for name in names for axis in axes_of.get(name, ())]
        factors = sorted({f"{scale_of[name]:.3g}" for name in names if name in scale_of})
        own = ["has numbers of its own"] * any(layout.padded for layout in layouts)
        own += [f"is {factor} times as large" for factor in factors]
        inner = output.free and not is_discarded(output)
        if inner and own:
            others[part_of(output)] = f"is wider than the source's and {' and '.join(own)}, so that it is not compared"
            continue
        if inner and any(layout.grows for layout in layouts):
            others.setdefault(part_of(output), "is wider than the source's")
        kept.append(output)
    state.graph.outputs = kept
    return [f"{part}, which the model returns besides, {what}" for part, what in sorted(others.items())]


def _config(checkpoint: Checkpoint, fields: Config) -> Config:
    """config.json of the wider model: the source's with the solved fields, and no others unless they matter."""
    changes = {where: new for where, (_, new) in differences(checkpoint.fields, fields).items()}
    config = _with(checkpoint.raw, checkpoint.fields, changes)
    loaded = checkpoint.understood(config)
    derived = {where: new for where, (_, new) in differences(loaded, fields).items() if where[-1] != "dtype"}
    return {**_with(config, checkpoint.fields, derived), "architectures": [checkpoint.cls.__name__]}


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
