"""The part of the command line that turns one Hugging Face checkpoint into another."""

from __future__ import annotations

import shlex
from argparse import Namespace
from typing import TYPE_CHECKING

import torch

from graphclone import inspection
from graphclone.cli import report
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.shards import sharded
from graphclone.pipeline.printer import print_state
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import State

if TYPE_CHECKING:
    from graphclone.formats.huggingface.writer import Written


def refuse_options(arguments: Namespace) -> None:
    """Refuse options that mean something for checkpoints only.

    Raises:
        GraphcloneError: for the first of them.
    """
    for option in ("dtype", "max_shard_size", "resume", "trust_remote_code"):
        if getattr(arguments, option):
            raise GraphcloneError(f"--{option.replace('_', '-')} is for Hugging Face checkpoints that become folders")


def clone(arguments: Namespace) -> int:
    """Write a wider checkpoint, once it is verified."""
    from graphclone.formats.huggingface.writer import MAX_SHARD_SIZE, Written, plan_checkpoint, write_checkpoint

    for option in ("passes", "untie"):
        if getattr(arguments, option):
            raise GraphcloneError(f"--{option} is not for checkpoints, whose code stays as it is")
    graphs: dict[str, str] = {}

    def after(step: Pass, state: State) -> None:
        if "dims" in step.ensures:
            inspection.refuse_pinned(state, arguments.widen)
        if step.name in arguments.print_after:
            graphs[step.name] = print_state(state)

    with report.progress(f"cloning {arguments.model}") as advance:
        made = plan_checkpoint(
            arguments.model,
            arguments.output,
            widen=arguments.widen,
            widen_io=arguments.widen_io,
            strategy=arguments.strategy,
            snr_db=arguments.snr_db,
            seed=arguments.seed,
            dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
            trust_remote_code=arguments.trust_remote_code,
            resume=arguments.resume,
            force=arguments.force,
            progress=advance,
            after=after,
        )
        limit = arguments.max_shard_size or MAX_SHARD_SIZE
        if arguments.dry_run:
            written = Written(made, sharded(made.entries, limit), None, made.notes)
        else:
            written = write_checkpoint(
                made,
                arguments.output,
                max_shard_size=limit,
                resume=arguments.resume,
                force=arguments.force,
                verify=not arguments.no_verify,
                command=_command(arguments),
                progress=advance,
            )
    _show(arguments, written, graphs)
    return 0


def _command(arguments: Namespace) -> str:
    """The command line that makes the same again, but for options that do not change what is written."""
    widen = arguments.widen
    text = str(widen) if isinstance(widen, int) else ",".join(f"{name}={factor}" for name, factor in widen.items())
    words = ["graphclone", "clone", arguments.model, "-o", arguments.output, "--widen", text]
    words += ["--strategy", arguments.strategy, "--seed", str(arguments.seed)]
    words += ["--widen-io", ",".join(arguments.widen_io)] if arguments.widen_io else []
    words += ["--snr-db", f"{arguments.snr_db:g}"] if arguments.snr_db is not None else []
    words += ["--dtype", arguments.dtype] if arguments.dtype else []
    words += ["--trust-remote-code"] if arguments.trust_remote_code else []
    return shlex.join(words)


def _show(arguments: Namespace, written: Written, graphs: dict[str, str]) -> None:
    made, verification = written.plan.clone, written.verification
    if arguments.json:
        report.show_json(
            {
                **report.clone_record(made, arguments.output, written.notes, graphs, verification),
                "config": {name: list(values) for name, values in written.plan.changes.items()},
                "shards": [shard.file_name for shard in written.shards],
            }
        )
        return
    for text in graphs.values():
        report.show_text(text)
    report.show_clone(made)
    if arguments.timing:
        report.show_timings(made.timings)
    changes = (f"{name} {old} -> {new}" for name, (old, new) in written.plan.changes.items())
    report.show_text(f"config.json: {', '.join(changes)}")
    for note in written.notes:
        report.show_text(f"note: {note}")
    report.show_text(report.outcome(arguments, verification, sum(shard.nbytes for shard in written.shards)))
