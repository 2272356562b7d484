"""The documentation: each block does what its page says, each example of a docstring is right, and the site builds."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graphclone as gc
from graphclone.cli.grammar import parser
from tests.support import pages
from tests.support.marks import slow_but
from tests.support.page_setups import tiny_decoder
from tests.support.pages import ROOT, Block, blocks, comparable

pytestmark = pytest.mark.filterwarnings("ignore")

NOT_OURS = {"docs/study.md"}
"""Pages whose commands take hours."""

PAGES = [page for page in pages.pages() if page not in NOT_OURS]
ELSEWHERE = {"docs/train-on.md"}
"""Pages that a test of their own runs."""

RUNNING = [
    page for page in PAGES if page not in ELSEWHERE and any(block.language in pages.RUN for block in blocks(page))
]
QUICK = {"docs/concepts/growth-maps.md", "docs/tutorials/own-rule.md"}


# Blocks


@pytest.mark.parametrize("page", slow_but(QUICK, RUNNING))
def test_every_block_does_what_the_page_says(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setitem(sys.modules, "page", None)
    with pages.working_in(tmp_path):
        for block, printed in pages.run(page):
            assert comparable(printed) == comparable(block.text), f"{page}: {block.text.splitlines()[0]}"


@pytest.mark.slow
def test_the_first_program_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A reader types it into a new interpreter, which has imported nothing that the tests have."""
    found = blocks("docs/start.md")
    clone = next(line for block in found for line in block.commands if " clone " in line)
    program = next(block.text for block in found if block.language == "python")
    for words in (["-m", *shlex.split(clone)], ["-c", program]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert "greatest difference" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_known_kind(page: str) -> None:
    assert {block.language for block in blocks(page)} <= pages.RUN | pages.READ


@pytest.mark.parametrize("page", PAGES)
def test_all_code_stands_in_fences(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"\n\n {4}(?![-*\d ]).*", text) == [] or "::: " in text


def _lines() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("sh", "console"):
                yield from ((page, line) for line in block.commands)


def _words(line: str) -> list[str]:
    return shlex.split(line, comments=True)


COMMANDS = sorted({line for _, line in _lines() if "graphclone" in _words(line) and not line.startswith("pip")})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line: str) -> None:
    """Those that are not run, too."""
    words = _words(line)
    parser().parse_args(words[words.index("graphclone") + 1 :])


def test_what_is_installed_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [_words(line) for _, line in _lines()]
    named = {name for words in lines if words[:1] == ["pip"] for name in re.findall(r"\[(.*?)\]", words[-1])}
    assert named and named <= set(extras)
    made = {words[1] for words in lines if words[:1] == ["make"]}
    assert made and made <= targets


def test_what_is_not_run_says_why() -> None:
    skipped = [block for page in PAGES for block in blocks(page) if block.title.startswith("Not run")]
    assert skipped
    assert all(block.skipped for block in skipped)


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("error 1.8e-06, 1 times the source's own", "error 2.0e-06, 0.9 times the source's own", True),
        (" ─── \n a   b ", "a b\n ──", True),
        ("2 blocks", "3 blocks", False),
        ("", "a", False),
    ],
)
def test_what_differs_from_machine_to_machine_is_not_compared(printed: str, shown: str, same: bool) -> None:
    assert (comparable(printed) == comparable(shown)) is same


# Docstrings


def _interface() -> dict[str, Any]:
    """Everything public, and what the pages tell users to use besides."""
    from graphclone import inspection
    from graphclone.callbacks import GrowthCallback
    from graphclone.pipeline.runner import Pass
    from graphclone.pipeline.state import Request, State
    from graphclone.report import page_of, page_of_clone, write
    from graphclone.rules import patterns
    from graphclone.rules.site import Site, says, stated
    from graphclone.verification.checks import Report

    public = {name: getattr(gc, name) for name in gc.__all__}
    own = (
        inspection.inspect,
        inspection.explain,
        inspection.missing_rules,
        GrowthCallback,
        Pass,
        Report,
        Request,
        State,
    )
    more = (page_of, page_of_clone, write, Site, says, stated)
    return {**public, **{member.__name__: member for member in (*own, *more)}, "patterns": patterns}


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the reference says its examples use."""
    import torch

    known: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(blocks("docs/reference/python.md")[0].text, known)
    known["folder"] = tmp_path_factory.mktemp("checkpoint") / "small"
    tiny_decoder().save_pretrained(known["folder"])
    return known


@pytest.mark.parametrize("name", list(_interface()))
def test_the_examples_of_docstrings_are_right(
    name: str, names: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    member = _interface()[name]
    module = member if inspect.ismodule(member) else sys.modules[member.__module__]
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(member, name, module=module, globs={**vars(module), **names})
    assert test.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, clear_globs=False).failed == 0, capfd.readouterr().out


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(
        (ROOT / "docs" / "reference" / f"{page}.md").read_text() for page in ("python", "rules-and-passes", "reports")
    )
    shown = {line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    assert set(_interface()) <= shown


# The site

needs_mkdocs = pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed")


@needs_mkdocs
def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = (tmp_path / "reference" / "command-line" / "index.html").read_text()
    actions = [action for command in (parser(), *_commands().values()) for action in command._actions]
    assert {option for action in actions for option in action.option_strings if option not in commands} == set()
    assert "fonts.googleapis" not in (tmp_path / "index.html").read_text()
    assert "olmo-2x-long-clone-b1500-r2-s0" in (tmp_path / "study" / "curves.html").read_text()


def _commands() -> Any:
    (choice,) = (action for action in parser()._actions if hasattr(action, "add_parser"))
    return choice.choices


def test_the_pictures_are_what_the_script_draws() -> None:
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None and spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    sys.modules["pictures"] = pictures
    spec.loader.exec_module(pictures)
    drawn = {f"{name}.svg": draw().render() for name, draw in pictures.PICTURES.items()}
    assert {path.name: path.read_text() for path in pictures.FOLDER.iterdir()} == drawn


def test_a_block_knows_its_commands() -> None:
    block = Block("sh", "", "a \\\n  b\n# c\n\nd", 0)
    assert block.commands == ["a    b", "d"]
    assert Block("console", "", "$ a\nprinted\n$ b\n", 0).commands == ["a", "b"]
