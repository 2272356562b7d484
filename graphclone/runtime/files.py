"""Files that appear whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphclone.errors import GraphcloneError


@contextmanager
def written(target: Path) -> Iterator[Path]:
    """A path to write to in place of the target, in a temporary folder beside it.

    When the block ends every file in that folder is moved beside the target, the target itself last. When it
    fails nothing is left behind.

    Raises:
        GraphcloneError: the folder does not exist or cannot be written to, or the disk is full.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise GraphcloneError(f"cannot write to {target.parent}: {error.strerror or error}") from error
    try:
        yield folder / target.name
        _move(folder, target)
    except OSError as error:
        raise GraphcloneError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name. The folder that it replaces, if there is one, goes away only then."""
    replaced = target.exists()
    if replaced:
        target.rename(aside(target))
    folder.rename(target)
    if replaced:
        shutil.rmtree(aside(target), ignore_errors=True)


def aside(target: Path) -> Path:
    """Where a folder lies for as long as it takes to replace it."""
    return target.with_name(f"{target.name}.replaced")


def _move(folder: Path, target: Path) -> None:
    targets: list[Path] = []
    try:
        for file in sorted(folder.iterdir(), key=lambda file: file.name == target.name):
            file.replace(target.parent / file.name)
            targets.append(target.parent / file.name)
    except OSError:
        for file in targets:
            file.unlink(missing_ok=True)
        raise
