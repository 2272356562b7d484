"""The tables of mutants fit the library, and their runner tells what is noticed from what is not."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, StaleError, __main__, mutants
from tests.mutants.__main__ import BROAD, Outcome

MUTANTS = mutants()


def _misfits() -> Iterator[str]:
    """What is wrong with mutants: they are stale, change nothing or are no Python."""
    for mutant in MUTANTS:
        source = (ROOT / mutant.file).read_text()
        try:
            mutated = mutant.applied(source)
            compile(mutated, mutant.file, "exec")
        except (StaleError, SyntaxError) as error:
            yield f"{mutant.name}: {error}"
        else:
            if mutated == source:
                yield f"{mutant.name}: changes nothing"


def test_every_mutant_is_a_change_of_the_library_as_it_is() -> None:
    assert list(_misfits()) == []


def _is_there(test: str) -> bool:
    file, _, name = test.partition("::")
    if not (ROOT / file).is_file():
        return False
    definition = rf"^def {re.escape(name.partition('[')[0])}\("
    return not name or re.search(definition, (ROOT / file).read_text(), re.MULTILINE) is not None


def test_the_tests_that_kill_are_there() -> None:
    named = dict.fromkeys(test for mutant in MUTANTS for test in mutant.tests)
    assert [test for test in (*named, *BROAD) if not _is_there(test)] == []


def test_there_are_enough_of_them_and_no_two_have_one_name() -> None:
    assert len(MUTANTS) >= 67
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


def test_every_file_of_rules_and_every_pass_is_mutated() -> None:
    files = {path.relative_to(ROOT).as_posix() for folder in ("graphclone/rules", "passes")
             for path in (ROOT / folder).glob("*.py")}  # fmt: skip
    assert files - {mutant.file for mutant in MUTANTS} == {"passes/__init__.py"}


# The runner, on a tree of its own


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one function behind a symlink, and two tests: of ``double(2)``, and of ``double(3)``."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "parts").symlink_to("../parts")
    (tmp_path / "parts" / "double.py").write_text("def double(x):\n    return x * 2\n")
    for x in (2, 3):
        test = f"from library.parts.double import double\n\n\ndef test_it():\n    assert double({x}) == {2 * x}\n"
        (tmp_path / f"test_{x}.py").write_text(test)
    monkeypatch.setattr(__main__, "ROOT", tmp_path)
    monkeypatch.setattr(__main__, "BROAD", ("test_3.py",))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the tree needs none, and they take seconds to load
    return tmp_path


MISTAKE = Mutant("half", "parts/double.py", "x * 2", "x / 2", ("test_2.py",))


@pytest.mark.parametrize(
    ("mutant", "verdict", "detail"),
    [
        (MISTAKE, "killed", "test_2.py::test_it"),
        (replace(MISTAKE, new="x ** 2"), "killed", "test_3.py::test_it"),
        (replace(MISTAKE, new="x + x"), "survived", ""),
        (replace(MISTAKE, old="x * 3"), "stale", "half: its old text occurs 0 times in parts/double.py"),
        (replace(MISTAKE, old="x"), "stale", "half: its old text occurs 2 times in parts/double.py"),
        (replace(MISTAKE, tests=("test_4.py",)), "broken", "not found"),
    ],
)
def test_the_verdict_on_a_mutant(mutant: Mutant, verdict: str, detail: str, tree: Path) -> None:
    outcome = __main__.judge(mutant)
    assert outcome.verdict == verdict
    assert detail in outcome.detail
    assert (tree / "parts" / "double.py").read_text() == "def double(x):\n    return x * 2\n"


def test_tests_that_fail_anyway_say_nothing_of_mutants(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "parts" / "double.py").write_text("def double(x):\n    return x * 2 + 1\n")
    monkeypatch.setattr(__main__, "mutants", lambda: (MISTAKE,))
    monkeypatch.setattr(sys, "argv", ["tests.mutants", "half"])
    assert __main__.main() == 1
    assert capsys.readouterr().out == "the tests fail without any mutant: test_2.py::test_it\n"


@pytest.mark.parametrize("verdict", ["killed", "survived", "stale", "broken"])
def test_the_run_fails_unless_every_mutant_is_killed(
    verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdicts = {"half": "killed", "third": verdict}
    monkeypatch.setattr(__main__, "mutants", lambda: tuple(replace(MISTAKE, name=name) for name in verdicts))
    monkeypatch.setattr(__main__, "unfit", lambda chosen: None)
    monkeypatch.setattr(__main__, "judge", lambda mutant: Outcome(mutant.name, verdicts[mutant.name], 1.0, ""))
    monkeypatch.setattr(sys, "argv", ["tests.mutants"])
    assert __main__.main() == (0 if verdict == "killed" else 1)
    assert f"2 mutants, {2 if verdict == 'killed' else 1} killed" in capsys.readouterr().out
