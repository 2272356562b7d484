"""Symbols of dynamic axes: which may depend on others, as the length of a mask is that of the past plus that of the
new; and sizes to try for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, islice

_MOST = 60

IMAGES = (224, 32, 64, 128, 640, 320, 256, 416, 512, 299)
"""Heights and widths that models are made for which take others by their declaration only, likeliest first."""

SIGNALS = (160, 256, 512, 1024, 1536, 4096, 16000)
"""Lengths of pieces of sound that models are made for which take others by their declaration only."""


def sums(symbols: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Symbols that may stand for the sum of two others, those that appear last first; a few dozen at most."""

    def all_of_them() -> Iterator[tuple[str, str, str]]:
        for whole in reversed(symbols):
            others = [symbol for symbol in reversed(symbols) if symbol != whole]
            for a, b in combinations(others, 2):
                yield whole, a, b

    return islice(all_of_them(), _MOST)
