"""The part of the command line that turns one Hugging Face checkpoint into another."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from graphclone import terminal
from graphclone.cli import report
from graphclone.cli.arguments import CloneArguments
from graphclone.cli.requests import Watch, request_of
from graphclone.clones import summary
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import MAX_SHARD_SIZE, plan
from graphclone.formats.huggingface.source import CheckpointSource
from graphclone.formats.huggingface.staging import check_target
from graphclone.formats.huggingface.training import training_state
from graphclone.formats.huggingface.writer import Written, write_checkpoint
from graphclone.runtime import ranks


def clone(arguments: CloneArguments, source: CheckpointSource) -> int:
    """Write a wider checkpoint, once it is verified."""
    for option, value in (("passes", arguments.passes), ("untie", arguments.untie)):
        if value:
            raise GraphcloneError(f"--{option} is not for checkpoints, whose code stays as it is")
    watch = Watch(arguments)
    processes = ranks.current()
    with terminal.progress(f"cloning {arguments.model}", shown=processes.first) as advance:
        checkpoint = source.open()
        check_target(Path(arguments.output), checkpoint.folder, force=arguments.force, resume=arguments.resume)
        limit = arguments.max_shard_size or MAX_SHARD_SIZE
        clone_plan = plan(checkpoint, request_of(arguments), max_shard_size=limit, progress=advance, after=watch)
        state = Path(arguments.optimizer) if arguments.optimizer and processes.first else None
        training = training_state(clone_plan, state) if state else None
        if arguments.dry_run:
            written = Written(clone_plan, None, clone_plan.notes)
        else:
            written = write_checkpoint(
                clone_plan,
                arguments.output,
                training=training,
                resume=arguments.resume,
                force=arguments.force,
                verify=not arguments.no_verify and (arguments.verify or True),
                command=_command(arguments),
                progress=advance,
                ranks=processes,
            )
    if processes.first:
        _show(arguments, written, watch.graphs)
    return 0


def _command(arguments: CloneArguments) -> str:
    """The command line that makes the clone again, without options that do not change what is written."""
    words = ["graphclone", "clone", arguments.model, "-o", arguments.output]
    for option, numbers in (
        ("--widen", arguments.widen),
        ("--size", arguments.size or None),
        ("--depth", arguments.depth),
    ):
        if isinstance(numbers, Mapping):
            words += [option, ",".join(f"{name}={number}" for name, number in numbers.items())]
        elif numbers is not None:
            words += [option, str(numbers)]
    words += ["--like", arguments.like] if arguments.like else []
    words += ["--keep-vocab"] if arguments.keep_vocab else []
    if arguments.depth is not None or arguments.like:
        words += ["--new-blocks", arguments.new_blocks, "--new-from", arguments.new_from]
    words += ["--strategy", arguments.strategy, "--seed", str(arguments.seed)]
    words += ["--widen-io", ",".join(arguments.widen_io)] if arguments.widen_io else []
    words += ["--snr-db", f"{arguments.snr_db:g}"] if arguments.snr_db is not None else []
    words += ["--dtype", arguments.dtype] if arguments.dtype else []
    words += ["--inputs", arguments.inputs] if arguments.inputs else []
    for name, sizes in arguments.input:
        words += ["--input", f"{name}={'x'.join(map(str, sizes))}"]
    words += ["--optimizer", arguments.optimizer] if arguments.optimizer else []
    words += ["--trust-remote-code"] if arguments.trust_remote_code else []
    return shlex.join(words)


def _show(arguments: CloneArguments, written: Written, graphs: dict[str, str]) -> None:
    widened, verification = written.plan.widened, written.verification
    if arguments.json:
        terminal.show_json(
            {
                **summary.clone_record(widened, arguments.output, written.notes, graphs, verification),
                "config": {name: list(values) for name, values in written.plan.changes.items()},
                "shards": [shard.file_name for shard in written.plan.shards],
            }
        )
        return
    for text in graphs.values():
        terminal.show_text(text)
    report.show_clone(widened)
    if arguments.timing:
        report.show_timings(widened.timings)
    report.show_changes(written.plan.changes)
    for note in written.notes:
        terminal.show_text(f"note: {note}")
    terminal.show_text(report.outcome(arguments, verification, sum(shard.nbytes for shard in written.plan.shards)))
