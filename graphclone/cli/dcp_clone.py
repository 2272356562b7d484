"""The part of the command line that writes checkpoints of ``torch.distributed.checkpoint``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone import terminal
from graphclone.cli import report
from graphclone.cli.arguments import CloneArguments
from graphclone.cli.requests import Watch, request_of
from graphclone.clones import saving, summary
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.layouts import CONFIG
from graphclone.formats.huggingface.source import CheckpointSource
from graphclone.formats.huggingface.training import training_state
from graphclone.formats.onnx.source import OnnxSource
from graphclone.runtime import ranks

if TYPE_CHECKING:
    from graphclone.clones.clone import Clone
    from graphclone.clones.source import Source
    from graphclone.verification.checks import Report


def clone(arguments: CloneArguments, source: Source) -> int:
    """Write the state dict of a clone, once the clone is verified; several processes share the work."""
    from graphclone.formats.torch.dcp import check_target, save_dcp

    _refuse_options(arguments, source)
    processes, watch = ranks.current(), Watch(arguments)
    target = Path(arguments.output)
    if processes.first:
        read = (arguments.model, arguments.weights, arguments.optimizer)
        check_target(target, force=arguments.force, sources=map(Path, filter(None, read)))
    with terminal.progress(f"cloning {source.name}", shown=processes.first):
        state = Path(arguments.optimizer) if arguments.optimizer and processes.first else None
        result, extras, beside = _cloned(arguments, source, state, watch)
        verification = None
        if not arguments.dry_run:
            verification = _verified(result, processes) if not arguments.no_verify else None
            save_dcp(result.state, target, force=arguments.force, ranks=processes, extras=extras, beside=beside)
    if processes.first:
        with nullcontext() if arguments.dry_run else report.after_writing(target):
            _show(arguments, result, verification, watch.graphs)
    return 0


def _refuse_options(arguments: CloneArguments, source: Source) -> None:
    if isinstance(source, OnnxSource):
        raise GraphcloneError(f"{source.name}: an .onnx file has no state dict, so it becomes no DCP checkpoint")
    options = ("passes", "max_shard_size", "verify", "resume")
    for option in (*options, "untie") if isinstance(source, CheckpointSource) else options:
        if getattr(arguments, option):
            raise GraphcloneError(f"--{option.replace('_', '-')} is not for DCP checkpoints")


def _cloned(
    arguments: CloneArguments, source: Source, state: Path | None, watch: Watch
) -> tuple[Clone, dict[str, str], dict[str, Any]]:
    """The clone, texts of files to be written beside it, and what the state of an optimizer has grown to."""
    request = request_of(arguments)
    if not isinstance(source, CheckpointSource):
        clone = source.clone(request, after=watch)
        return clone, {}, _optimizer(clone, state) if state else {}
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    planned = replace(source, dtype=dtype, trust_remote_code=arguments.trust_remote_code).planned(request, after=watch)
    training = training_state(planned.plan, state) if state else None
    optimizer = training.source.beside_a_model(training.grown) if training else {}
    return planned.clone, {CONFIG: json.dumps(planned.plan.config, indent=2) + "\n"}, optimizer


def _optimizer(clone: Clone, path: Path) -> dict[str, Any]:
    """The state of a module's optimizer, grown with it."""
    from graphclone.formats.torch.optimizer_states import read_state

    stored = read_state(path)
    try:
        return stored.beside_a_model(stored.grown(clone.parameters, stored.kind))
    except GraphcloneError as error:  # what helps there is no option here
        raise GraphcloneError(f"{path}: {error.message}") from error


def _verified(result: Clone, processes: ranks.Ranks) -> Report | None:
    """What the first process found out, once it has."""
    verification = result.verify(onnx=False) if processes.first else None
    if verification is not None:
        verification.raise_if_failed()
    processes.gathered(None)
    return verification


def _show(arguments: CloneArguments, result: Clone, verification: Report | None, graphs: dict[str, str]) -> None:
    notes = result.graph.notes
    if arguments.json:
        terminal.show_json(summary.clone_record(result, arguments.output, notes, graphs, verification))
        return
    for text in graphs.values():
        terminal.show_text(text)
    report.show_clone(result)
    report.show_notes(notes)
    if arguments.timing:
        report.show_timings(result.timings)
    terminal.show_text(report.outcome(arguments, verification, saving.size_in_bytes(result.graph)))
