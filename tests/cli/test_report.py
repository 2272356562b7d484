"""What inspection prints, in words."""

from __future__ import annotations

import pytest

from graphclone.cli.report import _depth, show_inspection
from graphclone.inspection import Inspection, Row, StackRow


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


def test_reasons_are_printed_once_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pinned = {"size": 3, "count": 1, "default": False, "freed_by": ("x",), "parameters": None, "matters": True}
    rows = [Row(name=name, pinned="the input keeps its shape (x)", **pinned) for name in ("a", "b")]
    free = Row("layers.*.attention.query_key_value", 12, 2, True, None, (), 243344, True)
    show_inspection(Inspection("model", 122064, 443808, 141, (free, *rows), (), (), ()))
    out = capsys.readouterr().out
    assert "  a, b: the input keeps its shape (x); --widen-io x frees it\n" in out
    assert " layers.*.attention.query_key_value     12      2   by default" in out
    assert max(map(len, out.splitlines())) <= 80
