"""The command line on a terminal: its width, its colours, and completion by a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from graphclone import terminal
from graphclone.cli.__main__ import main
from graphclone.cli.completion import SHELLS, completion
from graphclone.cli.grammar import parser
from graphclone.clones.sharing import DEVICES

LONG = """
from torch import nn
import torch


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a_module_with_a_name_that_leaves_no_room_for_any_other_column_of_the_table = nn.Linear(6, 14)
        self.down = nn.Linear(14, 5)

    def forward(self, x):
        return self.down(self.a_module_with_a_name_that_leaves_no_room_for_any_other_column_of_the_table(x))


def long():
    return Model(), (torch.ones(2, 6),)
"""


@pytest.mark.parametrize(
    "argv",
    [["passes"], ["inspect", "long.py:long"], ["inspect", "long.py:long", "--all"], ["inspect", "my_models:keyword"]],
    ids=" ".join,
)
def test_tables_are_whole_in_80_columns(
    argv: list[str], folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "long.py").write_text(LONG)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(argv) == 0
    out = capfd.readouterr().out
    table = [line for line in out.splitlines() if line.startswith(" ")]
    assert table and max(map(len, table)) <= 80
    assert "…" not in out


@pytest.mark.parametrize(("columns", "width"), [("", 160), ("80", 80), ("wide", 160)])
def test_pipes_are_as_wide_as_is_said(columns: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.console().width == width


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color(no_color: str) -> None:
    """A bar is coloured on a terminal, but for those who want no colours."""
    import pty

    code = "from graphclone.terminal import progress\nwith progress('working'): pass"
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color}
    subprocess.run([sys.executable, "-c", code], stderr=writer, env=environment, check=True)
    os.close(writer)
    text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "working" in text
    coloured = re.search(r"\x1b\[(\d+;)*(3|9)\d", text) is not None
    assert coloured is not bool(no_color)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_completed(shell: str) -> None:
    script = completion(parser(), shell)
    for word in ("inspect", "clone", "verify", "study", "score", "passes", "rules", "widen-io", "new-blocks", "spread"):
        assert word in script


def test_paths_are_completed(folder: Path) -> None:
    """A shell is asked what follows, as the TAB key asks it."""
    (folder / "there.onnx").touch()
    (folder / "kept").mkdir()
    (folder / "script").write_text(completion(parser(), "bash"))
    asked = {"graphclone cl": "clone", "graphclone inspect th": "there.onnx", "graphclone clone --weights ke": "kept"}
    for line, answer in asked.items():
        words = line.split()
        said = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_graphclone; echo ${{COMPREPLY[*]}}"
        run = subprocess.run(["bash", "-c", f"source ./script; {said}"], capture_output=True, text=True, check=True)
        assert run.stdout.split() == [answer], line


def test_a_script_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--completion", "bash"])
    assert end.value.code == 0
    assert "complete " in capfd.readouterr().out


def test_help_names_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["inspect", "--help"])
    assert set(DEVICES) <= set(re.split(r"\W+", capsys.readouterr().out))


def test_every_option_with_a_value_has_an_example_or_its_values() -> None:
    """Help shows what is written after an option: an example, the choices, or the default."""
    commands = next(action.choices for action in parser()._actions if action.choices and action.dest != "completion")
    bare = [
        f"{name} {action.option_strings[-1]}"
        for name, command in commands.items()
        for action in command._actions
        if action.option_strings and action.nargs != 0 and not action.choices
        if not re.search(r"for example \S|default: |, or ", action.help or "")
    ]
    assert not bare
