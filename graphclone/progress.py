"""The callback type by which long tasks report progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""A function that is called with the name of a task, the number of steps done, and the number of steps in all."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""
