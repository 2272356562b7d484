"""Completion of commands, options and paths by shells.

A script is written once, from the grammar, so that a shell need not start Python at every press of a key.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")

_FILES = frozenset({"MODEL", "SOURCE", "CLONE", "OUT", "TARGET", "FILE", "FILE.npz", "RUN.toml"})
_FOLDERS = frozenset({"DIR", "FOLDER"})
"""What arguments are called that are paths."""


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """A script that makes a shell complete the command line of a parser.

    Args:
        parser: whose options and subcommands are completed. What its arguments are called says which are paths.
        shell: one of ``SHELLS``.
    """
    import shtab

    for action in _actions(parser):
        kind = shtab.FILE if action.metavar in _FILES else shtab.DIRECTORY if action.metavar in _FOLDERS else None
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]  # which is where shtab looks
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its subcommands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
