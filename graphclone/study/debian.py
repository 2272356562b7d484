"""English text that needs no download from anywhere but a Debian mirror: the documentation that packages bring."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path

from graphclone.errors import GraphcloneError

PACKAGES: Mapping[str, Sequence[str]] = {
    "anarchism": ["usr/share/doc/anarchism/html/*.html"],
    "debian-handbook": ["usr/share/doc/debian-handbook/html/en-US/*.html"],
    "dict-gcide": ["usr/share/dictd/gcide.dict.dz"],
    "fortunes": ["usr/share/games/fortunes/*"],
    "perl-doc": ["usr/share/perl/*/pod/*.pod"],
    "vim-doc": ["usr/share/doc/vim/html/*.html"],
    "wordnet-base": ["usr/share/wordnet/data.*"],
}
"""Packages of Debian, and where their English is."""

_BLOCKS = frozenset("address br dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p pre table td th tr ul".split())
_SILENT = frozenset({"script", "style", "head"})


def unpack(folder: Path) -> None:
    """Fetch the packages as ``apt-get`` is set up to, and write their English into a folder, a file for each of theirs.

    Nothing is installed. Pages lose their markup, and compressed files are expanded.

    Args:
        folder: that exists; packages and what they hold are kept in it while this runs.

    Raises:
        GraphcloneError: there is no apt-get, a package cannot be fetched, or it holds no text.
    """
    for package, patterns in PACKAGES.items():
        fetched, root = folder / ".fetched", folder / ".unpacked" / package
        fetched.mkdir(exist_ok=True)
        root.mkdir(parents=True)
        _run(["apt-get", "download", package], fetched, package)
        (archive,) = fetched.glob(f"{package}_*.deb")
        _run(["dpkg-deb", "-x", str(archive), str(root)], fetched, package)
        archive.unlink()
        paths = sorted(path for pattern in patterns for path in root.glob(pattern))
        texts = [(path, text) for path in paths if path.is_file() and not path.is_symlink() and (text := _text(path))]
        if not texts:
            raise GraphcloneError(f"package {package} holds no text where it is looked for, {', '.join(patterns)}")
        (folder / package).mkdir()
        for path, text in texts:
            (folder / package / f"{path.name}.txt").write_bytes(text)


def _run(command: Sequence[str], folder: Path, package: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise GraphcloneError(f"{command[0]}: not found; this corpus is made where Debian's tools are") from None
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("E:")] or ["no reason given"]
        raise GraphcloneError(f"package {package}: {command[0]} failed: {lines[0]}; try apt-get update") from error


def _text(path: Path) -> bytes:
    """What a file says."""
    data = path.read_bytes()
    if path.suffix in {".dz", ".gz"}:
        data = gzip.decompress(data)
    if path.suffix == ".html":
        page = _Page()
        page.feed(data.decode("utf-8", errors="replace"))
        page.close()
        return "".join(page.lines()).encode()
    if path.name.startswith("data."):  # WordNet: what a word means follows a bar
        return b"".join(line.partition(b"| ")[2].strip() + b"\n" for line in data.splitlines() if b"| " in line)
    return data


class _Page(HTMLParser):
    """The words of a page, a line for every block."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 (the name that HTMLParser calls)
        self._silent += tag in _SILENT
        if tag in _BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT and self._silent > 0
        if tag in _BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data)

    def lines(self) -> Iterator[str]:
        """Lines that hold something, each with its end."""
        for line in "".join(self._parts).splitlines():
            if words := line.strip():
                yield words + "\n"
