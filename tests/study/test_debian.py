"""English out of packages, with a mirror that is a folder."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from graphclone.errors import GraphcloneError
from graphclone.study import debian
from graphclone.study.corpus import prepare

PAGE = """<html><head><title>Not this</title><style>p { }</style></head>
<body><h1>Bread &amp; butter</h1><p>One <b>idea</b> a line.</p><script>nor(this)</script><ul><li>end</li></ul>"""
CONTROL = "Package: manual\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: words\n"

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb, a tool of Debian, is not here")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``manual`` that an apt-get of its own fetches."""
    root = tmp_path / "manual"
    files = {"doc/a.html": PAGE.encode(), "doc/b.dict.dz": gzip.compress(b"word: its meaning\n" * 40)}
    files |= {
        "doc/data.noun": b"00 n | a thing\nheader\n",
        "doc/plain": b"as it is\n",
        "DEBIAN/control": CONTROL.encode(),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    subprocess.run(
        ["dpkg-deb", "--build", str(root), str(tmp_path / "manual_1_all.deb")], check=True, capture_output=True
    )
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\ncp "{tmp_path}/$2_1_all.deb" . 2>/dev/null || {{ echo "E: Unable to locate" >&2; exit 100; }}\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    monkeypatch.setattr(debian, "PACKAGES", {"manual": ["doc/*"]})
    return tmp_path


@needs_dpkg
def test_packages_give_their_words(mirror: Path) -> None:
    folder = mirror / "text"
    folder.mkdir()
    debian.unpack(folder)
    texts = {path.name: path.read_text() for path in (folder / "manual").iterdir()}
    assert texts["a.html.txt"] == "Bread & butter\nOne idea a line.\nend\n"
    assert texts["b.dict.dz.txt"] == "word: its meaning\n" * 40
    assert texts["data.noun.txt"] == "a thing\n"
    assert texts["plain.txt"] == "as it is\n"


@needs_dpkg
def test_the_corpus_keeps_the_tokens_alone_and_is_the_same_again(mirror: Path) -> None:
    first, again = (prepare("debian-english", mirror / name) for name in ("one", "two"))
    assert first.digest == again.digest
    assert first.text
    assert "manual" in first.description
    assert {path.name for path in (mirror / "one").iterdir()} == {"train.npy", "validation.npy", "corpus.json"}


@needs_dpkg
def test_a_package_that_cannot_be_fetched_is_named(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "PACKAGES", {"missing": ["*"]})
    with pytest.raises(
        GraphcloneError, match="package missing: apt-get failed: E: Unable to locate; try apt-get update"
    ):
        prepare("debian-english", mirror / "corpus")
    assert not list((mirror / "corpus").iterdir())


@needs_dpkg
def test_a_package_without_what_is_looked_for_is_named(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "PACKAGES", {"manual": ["nowhere/*"]})
    with pytest.raises(GraphcloneError, match=r"package manual holds no text where it is looked for, nowhere/\*"):
        prepare("debian-english", mirror / "corpus")


def test_without_the_tools_of_debian_the_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraphcloneError, match="apt-get: not found; this corpus is made where Debian's tools are"):
        prepare("debian-english", tmp_path / "corpus")
