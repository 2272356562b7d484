"""What can go wrong, in the words the user sees."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class GraphcloneError(Exception):
    """Bad input, usage, or something unsupported: one line saying what, where, and what to do. Exit code 2."""


class StrategyError(GraphcloneError, ValueError):
    """A strategy that does not exist, or gives no matrix that preserves the function."""


class NotEquivalentError(GraphcloneError):
    """The clone was not found to compute what the source computes. Exit code 1."""


class CannotJudgeError(NotEquivalentError):
    """Whether the clone computes what the source computes could not be found out, for the source's own sake."""


class InvariantError(AssertionError):
    """The graph broke its own rules: a defect of a pass, never of the input."""


class PipelineError(GraphcloneError, InvariantError):
    """A pass was to run on a state that is not what it requires. Exit code 2, for passes may be the user's."""
