"""Run the code blocks of a page of the documentation, in order, as a reader would type them.

``python -m tests.support.pages docs/start.md`` writes what the blocks print into the page.

==================================  =================================================================================
python                              is executed; all blocks of a page share their names
python title="model.py"             is written to that file
sh                                  every line is a command that must succeed
console                             what follows a command, up to the next ``$``, is what it prints
text title="Output"                 is what the block before it prints
title="Not run in the tests: .."    is not run, and says why
==================================  =================================================================================

Numbers with a decimal point, such as errors, differ from machine to machine and are not compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from graphclone.cli.__main__ import main
from tests.support.page_setups import SETUPS

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(?P<language>\w+)(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]*)"')
_DECIMAL = re.compile(r"\d[\d,]*\.\d+(e[+-]\d+)?|\d+e[+-]\d+|\d+(?= times the source)|\b(inf|nan)\b")

RUN = {"python", "sh", "console", "text"}
"""The languages of blocks that are run, or compared."""

READ = {"toml", "json"}
"""The languages of blocks that are only read."""

INSTALLING = {"pip", "make"}
"""Commands that set a machine up; whether what they name is there is another test."""


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        language: of its fence.
        title: of its fence.
        text: what stands in it.
        start: where that begins in the page.
    """

    language: str
    title: str
    text: str
    start: int

    @property
    def skipped(self) -> bool:
        return self.title.startswith("Not run in the tests: ")

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block; a backslash continues a line."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            return [line[2:] for line in text.splitlines() if line.startswith("$ ")]
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


class PageError(AssertionError):
    """A block does not do what the page says."""


def pages() -> list[str]:
    """The README and every page of the site, by their paths."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if "study" not in path.relative_to(ROOT / "docs").parts]
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in found)]


def blocks(page: str) -> list[Block]:
    """The code blocks of a page."""
    found = []
    for match in _FENCE.finditer((ROOT / page).read_text()):
        title = _TITLE.search(match["info"])
        found.append(Block(match["language"], title[1] if title else "", match["text"], match.start("text")))
    return found


def run(page: str) -> Iterator[tuple[Block, str]]:
    """Run the blocks of a page in the current folder; every block that shows what is printed, and what is.

    Raises:
        PageError: a command fails, where the page does not show its refusal.
    """
    SETUPS.get(page, lambda: None)()
    module = types.ModuleType("page")
    sys.modules["page"] = module  # dataclasses look up their module
    printed = ""
    for block in blocks(page):
        if block.skipped:
            continue
        if block.language == "python" and block.title.endswith(".py"):
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            line = (ROOT / page).read_text()[: block.start].count("\n")
            code = compile("\n" * line + block.text, page, "exec", dont_inherit=True)
            printed = _printed(lambda code=code: exec(code, vars(module)))  # type: ignore[misc]
        elif block.language == "sh":
            for command in block.commands:
                _command(command, may_fail=False)
        elif block.language == "console":
            yield block, "".join(f"$ {command}\n{_shown(command, block)}" for command in block.commands)
        elif block.title == "Output":
            yield block, printed


def _shown(command: str, block: Block) -> str:
    return _command(command, may_fail="\ngraphclone: " in block.text)


def _command(line: str, *, may_fail: bool) -> str:
    """What a command prints."""
    words = shlex.split(line, comments=True)
    if not words or words[0] in INSTALLING:
        return ""
    code = 0

    def call() -> None:
        nonlocal code
        code = _COMMANDS[words[0]](words[1:])

    printed = _printed(call, errors=True)
    if code and not may_fail:
        raise PageError(f"{line}: exit code {code}\n{printed}")
    return printed


def _graphclone(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stop:
        return int(stop.code or 0)


def _process(*start: str) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *start, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        print(done.stdout, end="")
        if done.returncode:
            print(done.stderr, end="")
        return done.returncode

    return run


def _ls(words: list[str]) -> int:
    print(*sorted(path.name for path in Path(words[0] if words else ".").iterdir()), sep="\n")
    return 0


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "graphclone": _graphclone,
    "ls": _ls,
    "python": _process(),
    "torchrun": _process("-m", "torch.distributed.run"),
}


def _printed(call: Callable[[], object], *, errors: bool = False) -> str:
    """What a call writes to the standard output; with ``errors`` to the other one, too."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out if errors else io.StringIO()):
        call()
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines() if line.strip()) + "\n"


def comparable(text: str) -> list[str]:
    """The words of an output, without what differs from machine to machine and without the lines of tables."""
    return _DECIMAL.sub("#", text).replace("─", " ").split()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in a folder, whose modules can be imported; nothing of them stays imported."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def update(page: str) -> None:
    """Write what the blocks of a page print into it."""
    text = (ROOT / page).read_text()
    with tempfile.TemporaryDirectory() as folder, working_in(Path(folder)):
        shown = list(run(page))
    for block, printed in reversed(shown):
        text = text[: block.start] + printed + text[block.start + len(block.text) :]
    (ROOT / page).write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "80")
    for name in sys.argv[1:]:
        update(name)
