"""The rules that the tree keeps as a whole: who may import what, and what the library must not know."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = ROOT / "graphclone"
COMMAND_LINE = LIBRARY / "cli"
DEMO = COMMAND_LINE / "demo.py"
"""It names the architecture of the weights that it shows."""

FRAMEWORKS = {"torch", "onnx", "onnx_ir", "onnx_graphsurgeon", "onnxruntime", "onnxscript"}

MAX_LINES = 500

MAX_MODULES = 12
"""Beside the packages of the library: what belongs into none of them is rare."""

_FAMILIES = r"gpt-?2|(?:gpt_?)?neox|pythia|olmo|llama|qwen|gemma|mistral|bert|resnet|vit"
# A family may carry a number (llama3) and stand in an identifier (llama_rope); `opt` must stand alone, for
# opt_level is an honest name.
_ARCHITECTURE = re.compile(rf"(?<![a-z0-9])(?:{_FAMILIES})\d*(?![a-z0-9])|\bopt\b", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_TEXT_TOKENS = {"NAME", "STRING", "FSTRING_MIDDLE", "COMMENT"}


def _python_files(*folders: str) -> list[Path]:
    """The Python files under each folder; symlinks are not followed, so every file comes once."""
    found = []
    for folder in folders:
        files = sorted(path for path in (ROOT / folder).rglob("*.py") if path.is_file())
        assert files, f"{folder}/ has no Python file: this test looks in the wrong place"
        found += files
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _architectures(source: str) -> Iterator[tuple[int, str]]:
    """Line and word of every architecture that identifiers, strings or comments name."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if tokenize.tok_name[token.type] in _TEXT_TOKENS:
            text = _CAMEL_CASE.sub(" ", token.string)
            for match in _ARCHITECTURE.finditer(text):
                yield token.start[0] + text.count("\n", 0, match.start()), match[0]


def test_no_library_file_names_an_architecture() -> None:
    named = [
        f"{_name(path)}:{line}: {word}"
        for path in _python_files("graphclone", "passes")
        if path != DEMO
        for line, word in _architectures(path.read_text())
    ]
    assert not named, "\n".join(named)


def _options(source: str) -> Iterator[tuple[int, str]]:
    """Line and word of every option of the command line that strings name."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"}:
            for match in _OPTION.finditer(token.string):
                yield token.start[0] + token.string.count("\n", 0, match.start()), match[0]


def test_only_the_command_line_speaks_of_its_options() -> None:
    """Errors carry a Remedy, which names a parameter."""
    named = [
        f"{_name(path)}:{line}: {word}"
        for path in _python_files("graphclone", "passes", "models")
        if COMMAND_LINE not in path.parents
        for line, word in _options(path.read_text())
    ]
    assert not named, "\n".join(named)


@pytest.mark.parametrize("source", ["'give --force'", "f'{x}; --widen-io {y} helps'", "'''\n--no-verify'''"])
def test_an_option_is_found(source: str) -> None:
    assert list(_options(source))


@pytest.mark.parametrize("source", ["x = '---'", "'a--b'", "'-- '", "# --force", "x = --y"])
def test_other_dashes_are_allowed(source: str) -> None:
    assert not list(_options(source))


def _members(folder: Path) -> set[str]:
    """The modules and packages that lie in a folder."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize("container", ["graphclone", "graphclone.formats"])
def test_the_layers_name_every_package(container: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [found for found in contracts if found.get("containers") == [container]]
    assert contract["type"] == "layers" and contract["exhaustive"] is True
    named = [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    assert sorted(named) == sorted(_members(ROOT / container.replace(".", "/")))


def test_what_the_contracts_name_is_there() -> None:
    """A contract about a module that is gone holds of nothing."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {module for contract in contracts for module in contract.get("source_modules", ())}
    assert named
    places = {module: ROOT / module.replace(".", "/") for module in named}
    gone = {name for name, place in places.items() if not (place.is_dir() or place.with_suffix(".py").is_file())}
    assert not gone


def test_the_library_consists_of_packages() -> None:
    found = {path.name for path in LIBRARY.iterdir() if path.name != "__pycache__" and not path.is_dir()}
    assert len(found) <= MAX_MODULES, found


def test_what_is_excepted_is_there() -> None:
    assert COMMAND_LINE.is_dir() and DEMO.is_file()


def test_no_file_is_too_long() -> None:
    lengths = {
        _name(path): len(path.read_text().splitlines())
        for path in _python_files("graphclone", "passes", "models", "tests")
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {_name(path.parent) for path in _python_files("graphclone", "passes", "models")}
    mapped = {folder: package for package, folder in settings["package-dir"].items()}
    packages = {mapped.get(folder, folder.replace("/", ".")) for folder in folders}
    assert packages <= set(settings["packages"])


@pytest.mark.parametrize(("package", "target"), [("passes", "../passes"), ("models", "../models")])
def test_the_top_level_packages_are_linked_into_the_library(package: str, target: str) -> None:
    link = ROOT / "graphclone" / package
    assert link.is_symlink()
    assert link.readlink() == Path(target)


def test_import_loads_little_and_no_framework() -> None:
    code = (
        f"import sys; import graphclone; print(*sorted({FRAMEWORKS!r} & sys.modules.keys())); print(len(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded, modules = run.stdout.split("\n")[:2]
    assert not loaded
    assert int(modules) < 250


@pytest.mark.parametrize(
    "source",
    [
        "# as OPT does",
        "x = 'opt-125m'",
        "llama_rope = 1",
        "class BertLayer: ...",
        "x = f'{1} GPT-2'",
        "gpt_neox = 1",
        "'''\nqwen2'''",
    ],
)
def test_an_architecture_is_found(source: str) -> None:
    assert list(_architectures(source))


@pytest.mark.parametrize(
    "source", ["opt_level = 1", "optional", "# vital, inviting, adopt", "vitality", "x = 'bertha'"]
)
def test_other_words_are_allowed(source: str) -> None:
    assert not list(_architectures(source))
