"""Which block stands where in a deeper stack."""

from __future__ import annotations

from typing import Any

import pytest

from graphclone.analysis.closing import Closing, Tower
from graphclone.analysis.depth import _aligned, arranged
from graphclone.errors import GraphcloneError
from graphclone.graph.blocks import Block, Stack
from graphclone.graph.deepen import Slot
from graphclone.graph.ir import Value

_X = Value("x", (2, 3), "float32")


def tower(kinds: str, closed: str = "") -> Tower:
    """A stack of blocks of kinds, each a letter; those of some kinds cannot be repeated."""
    blocks = tuple(Block(number, _X, _X, (), ()) for number in range(len(kinds)))
    closings = tuple(Closing(b, {}, "no" if kind in closed else "") for b, kind in zip(blocks, kinds, strict=True))
    return Tower(Stack("layers", blocks, tuple(map(ord, kinds))), closings)


def shown(slots: list[Slot]) -> str:
    """Blocks by their places, new ones in brackets."""
    return " ".join(f"({slot.block})" if slot.new else str(slot.block) for slot in slots)


@pytest.mark.parametrize(
    ("kinds", "depth", "where", "expected"),
    [
        ("aaa", 3, "spread", "0 1 2"),
        ("aaaa", 6, "spread", "0 1 (1) 2 3 (3)"),
        ("aaa", 4, "spread", "0 1 2 (2)"),
        ("aa", 7, "spread", "0 (0) (0) 1 (1) (1) (1)"),
        ("aa", 4, "end", "0 1 (1) (1)"),
        ("aa", 4, "start", "(0) (0) 0 1"),
        ("abab", 6, "spread", "0 1 2 3 (2) (3)"),
        ("abab", 8, "spread", "0 1 (0) (1) 2 3 (2) (3)"),
        ("abab", 6, "start", "(0) (1) 0 1 2 3"),
        ("abab", 5, "spread", "0 1 2 3 (3)"),  # no whole turn
        ("aab", 6, "spread", "0 (0) 1 (1) 2 (2)"),  # no turns at all
    ],
)
def test_new_blocks_are_made_after_those_before_them(kinds: str, depth: int, where: Any, expected: str) -> None:
    assert shown(arranged(tower(kinds), depth, where)) == expected


def test_what_cannot_be_repeated_is_not() -> None:
    assert shown(arranged(tower("baab", closed="b"), 8, "spread")) == "0 (1) 1 (1) 2 (2) 3 (2)"
    assert shown(arranged(tower("aba", closed="b"), 6, "spread")) == "0 (0) 1 (0) 2 (2)"


@pytest.mark.parametrize(
    ("ours", "theirs", "where", "expected"),
    [
        ("aa", "aaaa", "spread", "0 (0) 1 (1)"),
        ("aa", "aaaa", "end", "0 1 (1) (1)"),
        ("aa", "aaaa", "start", "(0) (0) 0 1"),
        ("abab", "ababab", "spread", "0 1 2 3 (2) (3)"),
        ("ab", "aab", "end", "0 (0) 1"),
        ("ba", "aba", "spread", "(1) 0 1"),
        ("abb", "aabbb", "spread", "0 (0) 1 2 (2)"),
    ],
)
def test_blocks_meet_those_that_do_the_same(ours: str, theirs: str, where: Any, expected: str) -> None:
    assert shown(_aligned(tower(ours).stack, ours, theirs, where)) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ("ab", "aaa", "layers: the target does not have the blocks of the source in their order"),
        ("aa", "aca", "layers: block 1 of the target is unlike all blocks of the source"),
    ],
)
def test_a_target_of_other_blocks_is_refused(ours: str, theirs: str, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message):
        _aligned(tower(ours).stack, ours, theirs, "spread")
