"""Scores of checkpoints on downstream tasks, from the command line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from graphclone import terminal
from graphclone.cli.arguments import ScoreArguments
from graphclone.errors import GraphcloneError
from graphclone.study.downstream import score_checkpoint, task_names


def score(arguments: ScoreArguments) -> int:
    """Score every checkpoint on every task, and show a table."""
    folder = Path(arguments.tasks)
    if not folder.is_dir():
        raise GraphcloneError(f"--tasks {folder}: there is no such folder")
    for checkpoint in arguments.checkpoint:
        if not Path(checkpoint, "config.json").is_file():
            raise GraphcloneError(f"{checkpoint}: holds no config.json; give the folder of a checkpoint")
    names = task_names(folder)
    found = {checkpoint: score_checkpoint(checkpoint, folder, names) for checkpoint in arguments.checkpoint}
    if arguments.json:
        plain = {of: {name: asdict(score) for name, score in scores.items()} for of, scores in found.items()}
        terminal.show_json(plain)
        return 0
    grid = terminal.table("checkpoint")
    for name in names:
        grid.add_column(name, justify="right")
    for checkpoint, scores in found.items():
        grid.add_row(checkpoint, *(str(scores[name]) for name in names))
    terminal.console().print(grid)
    return 0
