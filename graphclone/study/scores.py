"""Scores beside the loss: counts of right predictions, of tokens and of things in source code.

Every prediction is the likeliest next token given all true tokens before it.
"""

from __future__ import annotations

import keyword
import re
import string
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

_KEYWORDS = frozenset(word.encode() for word in keyword.kwlist)
_IDENTIFIER = re.compile(rb"(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]{2,}")
_INDENTATION = re.compile(rb"(?<=\n)[ \t]*(?![ \t\r\n\f\0])")


def _bytes_of(characters: str) -> NDArray[np.uint8]:
    return np.frombuffer(characters.encode(), np.uint8)


_BRACKETS = _bytes_of(")]}")
_BLANKS = _bytes_of(" \t")
_WORD = _bytes_of(f"{string.ascii_letters}{string.digits}_")


class Tally(NamedTuple):
    """The number of right predictions, and of all."""

    hits: int = 0
    total: int = 0


_NOTHING = Tally()


@dataclass(frozen=True)
class Counts:
    """The counts of some windows; counts of several batches or processes add up with ``+``.

    Attributes:
        accuracy: tokens.
        brackets: closing brackets, any of ``)]}``.
        indentation: lines whose indentation is right in every character and ends where it should.
        identifiers: names seen before in their window that are right from their second character to their end.
    """

    accuracy: Tally = _NOTHING
    brackets: Tally = _NOTHING
    indentation: Tally = _NOTHING
    identifiers: Tally = _NOTHING

    def __add__(self, other: Counts) -> Counts:
        return Counts.from_tensor(self.as_tensor() + other.as_tensor())

    def as_tensor(self) -> torch.Tensor:
        """Eight whole numbers, int64, for processes to sum: hits and total of each, in the order of the fields."""
        return torch.tensor(astuple(self), dtype=torch.int64).flatten()

    @classmethod
    def from_tensor(cls, numbers: torch.Tensor) -> Counts:
        """Read counts from the tensor that `as_tensor` made, on any device."""
        return cls(*(Tally(int(hits), int(total)) for hits, total in numbers.reshape(-1, 2).tolist()))

    def rates(self) -> dict[str, float | None]:
        """The share that was right of each, 0 to 1; None where there was nothing to count."""
        tallies = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: tally.hits / tally.total if tally.total else None for name, tally in tallies.items()}


def scores(tokens: torch.Tensor, predicted: torch.Tensor, text: bool) -> Counts:
    """Count the right predictions in windows of tokens.

    Indentation is counted at every line that begins within the window and is not blank: all its spaces and tabs
    are predicted, and after them no further one. Identifiers are counted where one of three characters or more
    that is no keyword comes again in its window, in code, comments and strings alike: all characters after the
    first are predicted, and after the last no further one. What the edge of the window cuts is not counted.

    Args:
        tokens: (windows, context + 1), whole numbers.
        predicted: (windows, context), the predictions of ``tokens[:, 1:]``.
        text: whether tokens are bytes of text; if not, only accuracy is counted.
    """
    true, guessed = tokens.numpy(force=True), predicted.numpy(force=True)
    right = guessed == true[:, 1:]
    accuracy = Tally(int(right.sum()), right.size)
    if not text:
        return Counts(accuracy)
    brackets = np.isin(true[:, 1:], _BRACKETS)
    windows = _Windows(true, guessed)
    return Counts(
        accuracy,
        Tally(int(right[brackets].sum()), int(brackets.sum())),
        windows.tally(windows.indentations(), _BLANKS),
        windows.tally(windows.identifiers(), _WORD),
    )


class _Windows:
    """Windows of text laid end to end with a byte 0 after each, so that one search finds things in all of them."""

    def __init__(self, true: NDArray[Any], guessed: NDArray[Any]) -> None:
        self.width = true.shape[1] + 1
        self.text = np.pad(true, ((0, 0), (0, 1))).astype(np.uint8).tobytes()
        # The first token of a window is not predicted, nor is the byte after its end.
        self.guessed = np.pad(guessed, ((0, 0), (1, 1))).ravel()
        wrong = self.guessed != np.frombuffer(self.text, np.uint8)
        self.wrong_before = np.concatenate([[0], np.cumsum(wrong)])

    def indentations(self) -> list[tuple[int, int]]:
        """Where indentations begin and end."""
        return [match.span() for match in _INDENTATION.finditer(self.text)]

    def identifiers(self) -> list[tuple[int, int]]:
        """Where identifiers that were there before go on from their first character, and end."""
        spans = []
        names: set[bytes] = set()
        window = -1
        for match in _IDENTIFIER.finditer(self.text):
            start, end = match.span()
            if start // self.width != window:
                window, names = start // self.width, set()
            if start % self.width == 0 or end % self.width == self.width - 1 or match[0] in _KEYWORDS:
                continue  # what touches an edge may be longer than it looks
            if match[0] in names:
                spans.append((start + 1, end))
            names.add(match[0])
        return spans

    def tally(self, spans: list[tuple[int, int]], more: NDArray[np.uint8]) -> Tally:
        """How many spans are predicted in every character, and nothing that would prolong them after their last."""
        starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
        exact = self.wrong_before[starts] == self.wrong_before[ends]
        hits = exact & ~np.isin(self.guessed[ends], more)
        return Tally(int(hits.sum()), len(spans))
