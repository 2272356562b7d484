"""What can go wrong, in the words the user sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what led to it, one after the other."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


@dataclass(frozen=True)
class Remedy:
    """A parameter that helps. Whoever talks to people says it in their words: an option of the command line, say.

    Attributes:
        parameter: of the function that was called.
        effect: what it does.
        value: that it is given; None if it is to be left out.
    """

    parameter: str
    effect: str = ""
    value: Any = True

    def __str__(self) -> str:
        if self.value is None:
            return f"leave out {self.parameter}="
        return f"{self.parameter}={self.value!r} {self.effect}"


class GraphcloneError(Exception):
    """Bad input, usage, or something unsupported: one line saying what, where, and what to do. Exit code 2.

    Attributes:
        message: the line.
        remedy: what to do, where it is a parameter that helps.
    """

    def __init__(self, message: str = "", remedy: Remedy | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy is not None else self.message


class StrategyError(GraphcloneError, ValueError):
    """A strategy that does not exist, or gives no matrix that preserves the function."""


class NotEquivalentError(GraphcloneError):
    """The clone was not found to compute what the source computes. Exit code 1."""


class CannotJudgeError(NotEquivalentError):
    """Whether the clone computes what the source computes could not be found out, for the source's own sake."""


class StoppedError(GraphcloneError):
    """Another of the processes that share the work has failed, and says why."""


class InvariantError(AssertionError):
    """The graph broke its own rules: a defect of a pass, never of the input."""


class RuleError(InvariantError):
    """A rule broke down at a node: a defect of the rule, which refuses what it cannot state, whatever the input."""


class PipelineError(GraphcloneError, InvariantError):
    """A pass was to run on a state that is not what it requires. Exit code 2, for passes may be the user's."""
