"""What inspection prints, in words."""

from __future__ import annotations

import pytest

from graphclone.cli.report import _depth, show_inspection
from graphclone.inspection import Inspection, Row, StackRow
from graphclone.progress import in_bytes


@pytest.mark.parametrize(
    ("stack", "text"),
    [
        (StackRow("layers", 2, 1, ""), "layers has 2 blocks and can have more: --depth layers=3"),
        (StackRow("", 4, 2, ""), "the model has 4 blocks of 2 kinds and can have more: --depth 6"),
        (StackRow("", 7, 6, "why"), "the model keeps its 7 blocks of 6 kinds: why"),
        (StackRow("layers", 1, 1, "why"), "layers keeps its 1 block: why"),
    ],
)
def test_the_option_for_a_stack_can_be_typed(stack: StackRow, text: str) -> None:
    """A stack has no name where the model itself is one."""
    assert _depth(stack) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (999, "999 bytes"),
        (1_000, "1.00 kB"),
        (443_999, "444 kB"),
        (12_345_678, "12.3 MB"),
        (5_073_879_040, "5.07 GB"),
        (1_342_000_000_000, "1,342 GB"),
    ],
)
def test_a_size_is_printed_in_a_unit_that_suits_it(size: int, text: str) -> None:
    assert in_bytes(size) == text


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
