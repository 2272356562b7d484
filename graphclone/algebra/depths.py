"""Requests for more blocks: how many, where, and what they start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Depths = int | Mapping[str, int]
"""A number of blocks, or numbers by the names of stacks."""

Where = Literal["spread", "end", "start"]
"""Where new blocks go: one after every so many of the source, or all behind the last, or all before the first."""

PLACES: tuple[Where, ...] = get_args(Where)

Start = Literal["copy", "random"]
"""What new blocks start from: a copy of the block before, or random numbers. Closing weights are 0 in either case."""

STARTS: tuple[Start, ...] = get_args(Start)
