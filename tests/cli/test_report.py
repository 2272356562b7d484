"""What inspection prints, in words."""

from __future__ import annotations

import pytest

from graphclone.cli.report import _depth
from graphclone.inspection import StackRow


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (StackRow("layers", 2, 1, ""), "layers=2: 2 blocks, or more of them"),
        (StackRow("", 7, 6, "why"), "7: 7 blocks of 6 kinds, and no more: why"),
    ],
)
def test_the_option_for_a_stack_can_be_typed(stack: StackRow, text: str) -> None:
    """A stack has no name where the model itself is one."""
    assert _depth(stack) == text
