"""The command line: inspect, clone, verify, study, score, passes, rules.

Exit codes: 0 done, 1 not equivalent, 2 bad input, usage or something unsupported, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from graphclone.cli.arguments import (
    Arguments,
    CloneArguments,
    InspectArguments,
    PassesArguments,
    RulesArguments,
    ScoreArguments,
    StudyArguments,
    VerifyArguments,
)
from graphclone.cli.grammar import parsed
from graphclone.cli.interrupts import Terminated, exit_code, interruptible
from graphclone.cli.remedies import said
from graphclone.errors import GraphcloneError, NotEquivalentError
from graphclone.runtime import collector, ranks
from graphclone.runtime.quiet import silenced

DONE, NOT_EQUIVALENT, REFUSED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = parsed(argv)
    try:
        with (
            interruptible(),
            collector.seldom(),
            nullcontext() if arguments.debug else silenced(logging.WARNING),
        ):
            code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, head say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        return _fail(*_end(error), arguments.debug)
    return code


def _end(error: BaseException) -> tuple[str, int]:
    """What a command says of an error that ends it, and its exit code."""
    if isinstance(error, KeyboardInterrupt):
        number = signal.SIGTERM if Terminated in map(type, (error, error.__context__)) else signal.SIGINT
        return said(error) or "interrupted; nothing was left behind", exit_code(number)
    if isinstance(error, GraphcloneError):
        return said(error), NOT_EQUIVALENT if isinstance(error, NotEquivalentError) else REFUSED
    if isinstance(error, MemoryError):
        return f"not enough memory: {error or 'ask for smaller sizes'}", REFUSED
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'cannot print'}: {error.strerror}", REFUSED
    if isinstance(error, SystemExit):
        return f"code of the model ended the process: sys.exit({error.code!r})", REFUSED
    return f"a defect of graphclone, please report it with --debug: {type(error).__name__}: {error}", REFUSED


def _run(arguments: Arguments) -> int:
    """Call what the command is done by, whose modules import torch, and so are imported now."""
    module, _, name = _COMMANDS[type(arguments)].partition(":")
    command: Callable[[Arguments], int] = getattr(importlib.import_module(module), name)
    with (
        importlib.import_module("graphclone.runtime.cache").no_cache() if arguments.no_cache else nullcontext(),
        importlib.import_module("graphclone.terminal").for_programs() if arguments.json else nullcontext(),
    ):
        return command(arguments)


_COMMANDS: Mapping[type[Arguments], str] = {
    InspectArguments: "graphclone.cli.commands:inspect",
    CloneArguments: "graphclone.cli.clone_command:clone",
    VerifyArguments: "graphclone.cli.commands:verify",
    ScoreArguments: "graphclone.cli.score_command:score",
    StudyArguments: "graphclone.cli.study_command:study",
    PassesArguments: "graphclone.cli.commands:list_passes",
    RulesArguments: "graphclone.cli.commands:list_rules",
}
"""Where each command is."""


def _fail(message: str, code: int, debug: bool) -> int:
    """Say what went wrong; of several processes only the first to fail does."""
    if debug:
        traceback.print_exc()
    if not _first_to_fail():
        return code
    line = " ".join(message.split())
    print(f"graphclone: {line}", file=sys.stderr)
    return code


def _first_to_fail() -> bool:
    try:
        return ranks.current().fail()
    except GraphcloneError:  # it may be what went wrong
        return ranks.rank_of_environment() == 0


if __name__ == "__main__":
    sys.exit(main())
