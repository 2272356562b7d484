"""The part of the command line that turns one Hugging Face checkpoint into another."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from graphclone import report as pages
from graphclone import terminal
from graphclone.cli import report
from graphclone.cli.arguments import CloneArguments
from graphclone.cli.requests import Watch, command_line, request_of
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
                command=command_line(arguments),
                progress=advance,
                ranks=processes,
            )
    if not processes.first:
        return 0
    with nullcontext() if arguments.dry_run else report.after_writing(Path(arguments.output)):
        if arguments.html is not None:
            page = pages.page_of_clone(
                clone_plan.widened, command_line(arguments), written.verification, clone_plan.changes
            )
            pages.write(page, Path(arguments.html))
        _show(arguments, written, watch.graphs)
    return 0


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
