"""Values of options as text: widths, sizes, depths, shapes, patterns."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction

from graphclone.algebra.depths import Depths
from graphclone.algebra.factors import Widen, fraction
from graphclone.errors import GraphcloneError


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not is_whole(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


_DIGITS = 18
"""More digits than any number of elements or bytes has."""


def is_whole(text: str) -> bool:
    return text.isdecimal() and len(text) <= _DIGITS


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name of an input, and its sizes; none for a scalar.

    Raises:
        ArgumentTypeError: it is not written so.
    """
    name, equals, sizes = text.rpartition("=")
    if not equals or not name or not all(map(is_whole, sizes.split("x") if sizes else ())):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SHAPE, such as x=1x3x64x64")
    return name, tuple(int(size) for size in sizes.split("x") if size)


def patterns(text: str) -> tuple[str, ...]:
    """Patterns between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def widths(text: str) -> Widen:
    """A factor, or factors by the names of dims.

    Raises:
        ArgumentTypeError: it is neither.
    """
    return _factor(text, text) if "=" not in text else {name: _factor(n, f"{name}={n}") for name, n in _by_name(text)}


def sizes(text: str) -> Mapping[str, int]:
    """Sizes by the names of dims.

    Raises:
        ArgumentTypeError: one is no whole number.
    """
    for name, number in _by_name(text):
        if not is_whole(number):
            raise argparse.ArgumentTypeError(f"'{name}={number}': a size is a whole number")
    return {name: int(number) for name, number in _by_name(text)}


def depth(text: str) -> Depths:
    """A number of blocks, or numbers by the names of stacks.

    Raises:
        ArgumentTypeError: one is no whole number.
    """
    items = [("", text)] if "=" not in text else list(_by_name(text))
    for _, number in items:
        if not is_whole(number):
            raise argparse.ArgumentTypeError(f"{text!r}: a depth is a whole number of blocks")
    return int(text) if "=" not in text else {name: int(number) for name, number in items}


def _by_name(text: str) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for item in text.split(","):
        name, equals, number = (part.strip() for part in item.partition("="))
        if not equals or not name:
            raise argparse.ArgumentTypeError(f"{item!r} is not NAME=NUMBER")
        if name in names:
            raise argparse.ArgumentTypeError(f"{text!r} says {name} twice")
        names.add(name)
        yield name, number


def size(text: str) -> int:
    """A number of bytes: 500MB, 5GB or 5000000.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(rf"(\d{{1,{_DIGITS}}}(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    count = int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500MB or 5GB")
    return count


def _factor(text: str, where: str) -> Fraction:
    try:
        return fraction(text, where)
    except GraphcloneError as error:
        raise argparse.ArgumentTypeError(f"{where!r}: {str(error).partition(': ')[2]}") from None
