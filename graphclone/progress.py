"""The callback type by which long tasks report progress, and amounts in words."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""A function that is called with the name of a task, the number of steps done, and the number of steps in all."""


def silent(what: str, done: int, total: int) -> None:
    """Ignore progress."""


def in_bytes(size: int) -> str:
    """Bytes in the largest unit of which there is a whole one: 444 kB, and 5.07 GB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:,.{max(0, 3 - len(str(size // unit)))}f} {name}"
    return f"{size} bytes"
