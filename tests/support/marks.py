"""Marks of tests that have a quick one of their kind beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[str], names: Iterable[str]) -> list[Any]:
    """Names as parameters of tests, all of them slow but for a few.

    Raises:
        ValueError: a quick one is none of them.
    """
    names = list(names)
    if missing := set(quick) - set(names):
        raise ValueError(f"there are no {', '.join(sorted(missing))}")
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]
