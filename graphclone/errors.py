"""The exceptions of graphclone, with the messages that users see."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, and what it announces by a colon; its type where it says nothing."""
    return _announced(error) or type(error).__name__


def one_line(error: BaseException) -> str:
    """The type of an exception and the first line of what it says, and what that announces by a colon."""
    text = _announced(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _announced(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    end = next((place for place, line in enumerate(lines) if not line.endswith(":")), len(lines))
    return " ".join(lines[: end + 1])


def some(names: Collection[str]) -> str:
    """The first of some names, in words."""
    return ", ".join([*names][:_SHOWN]) + " and more" * (len(names) > _SHOWN)


_SHOWN = 3


def causes(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what led to it, one after the other."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


@dataclass(frozen=True)
class Remedy:
    """A parameter that would help. The command line shows it as an option.

    Attributes:
        parameter: its name, as in the function that was called.
        effect: what it does.
        value: the value to give it; None if it should be left out.
    """

    parameter: str
    effect: str = ""
    value: Any = True

    def __str__(self) -> str:
        if self.value is None:
            return f"leave out {self.parameter}="
        return f"{self.parameter}={self.value!r} {self.effect}"


class GraphcloneError(Exception):
    """Bad input, wrong usage, or something unsupported. One line says what, where, and what to do. Exit code 2.

    Attributes:
        message: the line.
        remedy: a parameter that would help, if there is one.

    Examples:
        >>> gc.clone(model, (x,), widen=0.5)
        Traceback (most recent call last):
        graphclone.errors.GraphcloneError: widen=0.5: a factor is a number such as 2, 1.5 or 4/3, and at least 1
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
    """The clone does not compute what the source computes, or this could not be shown. Exit code 1.

    Examples:
        >>> report = clone.verify(onnx=False, sets=1)
        >>> report.raise_if_failed()  # raises NotEquivalentError if a check has failed
        >>> report.ok
        True
    """


class CannotJudgeError(NotEquivalentError):
    """The clone could not be judged, because the source itself could not be measured. Exit code 1.

    Examples:
        >>> issubclass(gc.CannotJudgeError, gc.NotEquivalentError)
        True
    """


class StoppedError(GraphcloneError):
    """Another process of the same job has failed. That process prints the reason."""


class InvariantError(AssertionError):
    """The graph breaks its own rules. This is a defect of a pass, never of the input."""


class RuleError(InvariantError):
    """A rule raised an unexpected error at a node. This is a defect of the rule, never of the input."""


class PipelineError(GraphcloneError, InvariantError):
    """A pass was run on a state that lacks what the pass requires. Exit code 2, since a pass may be the user's own."""
