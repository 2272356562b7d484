"""The package as a user gets it: built, installed into an environment of its own, and used from elsewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from graphclone.version import __version__
from tests.support.command_line import MODELS

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = ("graphclone", "passes", "models")

_ELSEWHERE = (".*", "build", "dist", "docs", "tests", "__pycache__", "*.egg-info")


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, from an sdist, from a copy of the tree that knows nothing of git."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*_ELSEWHERE))
    call = "import sys, setuptools.build_meta as backend; getattr(backend, f'build_{sys.argv[1]}')(sys.argv[2])"
    subprocess.run([sys.executable, "-c", call, "sdist", str(folder)], cwd=tree, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    shutil.unpack_archive(sdist, folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", call, "wheel", str(folder)], cwd=unpacked, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment in which graphclone is a wheel; what it needs is borrowed from ours."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in ours))
    programs = Path(sysconfig.get_path("scripts", "venv", paths))
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True, capture_output=True)
    return programs


def _run(installed: Path, folder: Path, program: str, *argv: str) -> str:
    """What a program of the environment prints, run in a folder that is no checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(installed / program), *argv]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_holds_every_file_of_the_library(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    places = {place: package.replace(".", "/") for package, place in packages.items()}
    kept = subprocess.run(["git", "ls-files", *LIBRARY], cwd=ROOT, capture_output=True, text=True, check=False)
    if kept.returncode:
        pytest.skip("not a checkout")
    files = {name for name in kept.stdout.splitlines() if not (ROOT / name).is_symlink()}
    assert names == {"/".join([places.get(first := name.split("/")[0], first), *name.split("/")[1:]]) for name in files}


def test_a_wheel_is_used_from_the_command_line(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(MODELS)
    assert _run(installed, tmp_path, "graphclone", "--version") == f"graphclone {__version__}\n"
    _run(installed, tmp_path, "graphclone", "clone", "my_models.py:mlp", "-o", "wide.safetensors")
    assert (tmp_path / "wide.safetensors").is_file()


@pytest.mark.slow
def test_a_wheel_is_used_from_python(installed: Path, tmp_path: Path) -> None:
    """Modules, data files and public names are those of the wheel."""
    code = """
import importlib, importlib.metadata, importlib.resources, pathlib, sys
import graphclone as gc
from graphclone.study.config import read

for name in (*gc.__all__, "passes", "models"):
    value = getattr(gc, name, None) or importlib.import_module(f"graphclone.{name}")
place = pathlib.Path(gc.__file__).parent
assert place.is_relative_to(sys.prefix), place
assert importlib.metadata.version("graphclone") == gc.__version__
assert read("mini")
assert (importlib.resources.files("graphclone.report") / "assets" / "frame.html").is_file()

import torch
model, inputs = torch.nn.Sequential(torch.nn.Linear(6, 14), torch.nn.Linear(14, 5)), (torch.ones(2, 6),)
clone = gc.clone(model.eval(), inputs, widen=2)
torch.testing.assert_close(clone.module()(*inputs), model(*inputs))
print(clone.state_dict()["0.weight"].shape[0])
"""
    assert _run(installed, tmp_path, "python", "-c", code) == "28\n"


# What belongs together


def test_there_is_one_version() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    released = re.findall(r"^## \[(\d\S*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation is not None
    assert citation[1] == released[0] == __version__
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def _requirements() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from map(Requirement, texts)


def test_every_library_that_is_imported_is_declared() -> None:
    imported = set()
    for path in (path for folder in LIBRARY for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0].replace("_", "-") for name in names}
    foreign = imported - {name.replace("_", "-") for name in sys.stdlib_module_names} - {"graphclone"}
    assert "torch" in foreign
    assert foreign <= {requirement.name.replace("_", "-") for requirement in _requirements()}


def test_what_the_tests_run_with_is_allowed() -> None:
    """Every version in constraints.txt is one that pyproject.toml takes."""
    pinned = _pinned()
    found = [requirement for requirement in _requirements() if _normal(requirement.name) in pinned]
    assert len(found) > 20
    assert not [str(one) for one in found if pinned[_normal(one.name)] not in one.specifier]


def test_what_make_installs_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = re.findall(r"-e '\.\[(.+)\]'", (ROOT / "Makefile").read_text())
    extras = {extra for extras in installed for extra in extras.split(",")}
    assert {"test", "release"} <= extras
    needs = (project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras))
    names = {_normal(Requirement(text).name) for texts in needs for text in texts} - {"graphclone"}
    assert names <= {*_pinned()}


def _pinned() -> dict[str, Version]:
    """The versions in constraints.txt."""
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#"))
    return {_normal(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")
