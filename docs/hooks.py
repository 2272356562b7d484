"""What mkdocs is told besides its configuration: pages that are made while the site is built."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from graphclone.cli.grammar import parser
from graphclone.report.html import render_study
from graphclone.study.page import page_of_study
from graphclone.study.records import read_runs

COMMAND_LINE = "reference/command-line.md"

CURVES = "study/curves.html"


def on_files(files: Files, config: Any) -> Files:
    """Add the page of the command line, which is made of its parser, and that of the published study, of its runs."""
    files.append(File.generated(config, COMMAND_LINE, content=command_line()))
    files.append(File.generated(config, CURVES, content=curves()))
    return files


def curves() -> str:
    """The published runs with curves to point at."""
    runs = read_runs(Path(__file__).parent / "study" / "curves")
    return render_study("The published study", page_of_study(runs))


def command_line() -> str:
    """The reference of the command line, in Markdown."""
    top = parser()
    parts = [_HEAD, *_parts(top)]
    for name, command in _commands(top).items():
        parts += [f"\n## {name}\n\n{command.description}\n", *_parts(command)]
    return "\n".join(parts) + _TAIL


def _parts(command: argparse.ArgumentParser) -> Iterator[str]:
    """How a command is used, its options, and examples."""
    yield f"```text\n{command.format_usage()}```\n"
    yield from map(_group, command._action_groups)
    if command.epilog:
        yield f"\n```text\n{command.epilog.strip()}\n```\n"


_HEAD = """# Command line

This page is made from the parser itself. `graphclone COMMAND --help` prints the same.
"""

_TAIL = """
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | not equivalent, or it cannot be judged: nothing was written |
| 2 | bad input, bad usage, or something unsupported: one line says what, where, and what to do |
| 130, 143 | interrupted, terminated: one line says what is left |
"""


def _commands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (choice,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return dict(choice.choices)


def _group(group: argparse._ArgumentGroup) -> str:
    rows = list(_rows(group))
    if not rows:
        return ""
    title = {"options": "Options", "positional arguments": "Arguments"}.get(group.title or "", group.title or "")
    return "\n".join([f"\n### {title[:1].upper()}{title[1:]}\n", _TABLE, *rows, ""])


_TABLE = "| option | what it does |\n|---|---|"


def _rows(group: argparse._ArgumentGroup) -> Iterator[str]:
    for action in group._group_actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        value = _value(action)
        text = re.sub(r"([*_|<>\[\]])", r"\\\1", (action.help or "") % {**vars(action), "prog": "graphclone"})
        yield f"| {' '.join(part for part in (names, f'`{value}`' if value else '') if part)} | {text} |"


def _value(action: argparse.Action) -> str:
    """What stands behind an option, or the name of an argument."""
    if action.nargs == 0:
        return ""
    if action.choices is not None and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())
