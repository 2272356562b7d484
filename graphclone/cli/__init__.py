"""The command line: arguments, commands, and what they print."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, of the process or the given words; returns the exit code."""
    from graphclone.cli.__main__ import main as run

    return run(argv)
