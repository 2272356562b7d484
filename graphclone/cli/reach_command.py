"""``graphclone inspect MODEL --like TARGET``: how far a checkpoint can grow towards a published shape."""

from __future__ import annotations

from typing import Any

from graphclone import terminal
from graphclone.cli import report
from graphclone.cli.arguments import InspectArguments
from graphclone.clones import summary
from graphclone.clones.source import Source
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.config_solver import differences, named
from graphclone.formats.huggingface.likeness import Reach
from graphclone.formats.huggingface.source import CheckpointSource


def inspect_reach(arguments: InspectArguments, source: Source, like: str) -> int:
    """Show what can be reached, dim by dim, and refuse where that is not all.

    Raises:
        GraphcloneError: something cannot be reached, or the source is no checkpoint.
    """
    if not isinstance(source, CheckpointSource):
        raise GraphcloneError(f"--like is for Hugging Face checkpoints, and {source.name} is none")
    with terminal.progress(f"tracing {source.name}"):
        found = source.reach(like, keep_vocab=arguments.keep_vocab)
    changes = _changes(source, found)
    if arguments.json:
        terminal.show_json(_record(like, found, changes))
    elif found.grown is not None:
        nearest = "what is nearest to it and can be reached" if found.obstacles else "it can be reached"
        terminal.show_text(f"{source.name} -> {like}: {nearest}")
        report.show_clone(found.grown.model)
        report.show_changes(changes)
        report.show_notes(found.grown.notes)
    found.raise_if_short(like)
    return 0


def _changes(source: CheckpointSource, found: Reach) -> dict[str, tuple[Any, Any]]:
    if found.grown is None:
        return {}
    return {
        named(where): values
        for where, values in differences(source.open(weightless=True).fields, found.grown.fields).items()
    }


def _record(like: str, found: Reach, changes: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {"target": like, "obstacles": [str(obstacle) for obstacle in found.obstacles]}
    if found.grown is not None:
        before, after = summary.parameters(found.grown.model)
        record |= {
            "dims": summary.clone_rows(found.grown.model),
            "parameters": {"source": before, "clone": after},
            "config": {name: list(values) for name, values in changes.items()},
            "notes": list(found.grown.notes),
        }
    return record
