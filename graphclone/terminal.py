"""The terminal: tables, text, JSON, and bars for what takes long."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn, TextIO

from rich import box
from rich.console import Console
from rich.table import Column, Table

from graphclone.progress import Progress, silent

_PIPE_WIDTH = 160
"""Columns where nothing says how wide the reader's screen is."""


def console() -> Console:
    """The standard output, as wide as the terminal or ``COLUMNS`` says, or wide enough for files and pipes."""
    known = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return _Console(highlight=False, markup=False, width=None if known else _PIPE_WIDTH)


class _Console(Console):
    """A console that leaves it to the command what to do when nobody reads on."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


_outputs: list[TextIO] = []
"""Where JSON goes while programs read it; the last one counts."""


@contextmanager
def for_programs() -> Iterator[None]:
    """Keep the standard output for JSON: what else is printed, by code of a model say, goes to the standard error."""
    _outputs.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _outputs.pop()


def show_json(value: object) -> None:
    """Print a value as JSON, for machines."""
    output = _outputs[-1] if _outputs else sys.stdout
    output.write(json.dumps(value, indent=2) + "\n")
    output.flush()  # whoever has just written a clone wants to know whether this was possible


def show_text(text: str) -> None:
    """Text as it is, never wrapped."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def table(*headings: str, title: str | None = None) -> Table:
    """A table without vertical lines. Words of its first columns that are too long are broken, never cut off."""
    columns = [Column(heading, overflow="fold") for heading in headings]
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


@contextmanager
def progress(text: str, *, shown: bool = True) -> Iterator[Progress]:
    """A bar with the time, on the standard error, while something takes long; only on a terminal, if it is to be shown.

    It moves to and fro until the first report.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    screen = Console(file=sys.stderr)  # this one, whatever is redirected meanwhile
    if not (shown and screen.is_terminal):  # before rich 15, bars that are disabled print an empty line
        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Bars(*columns, console=screen, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda what, done, total: bar.update(task, description=f"{text}: {what}", completed=done, total=total)
