"""Answers that took long to find, kept on disk from one run to the next.

An answer lies in a file of its own whose name is a digest of all that it depends on, so what has become stale is never
asked for again. Nothing here is ever executed or unpickled. A file that is damaged, or that cannot be read or
written, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphclone.version import __version__

LIMIT = 4096
"""How many answers are kept; beyond, those that nobody has asked for longest are dropped."""

_DIGEST = hashlib.sha256().digest_size

_SETTINGS = ("TRANSFORMERS_", "TORCH", "PYTORCH_", "USE_", "DISABLE_")
"""What variables of the environment begin with that libraries take for settings."""

_refusals: list[None] = []
"""One for every block that wants no cache."""


@contextmanager
def no_cache() -> Iterator[None]:
    """Neither read nor write the cache on disk within a ``with`` block, or within a function that this decorates.

    Examples:
        >>> with gc.no_cache():
        ...     traced = gc.trace(model, (x,))
    """
    _refusals.append(None)
    try:
        yield
    finally:
        _refusals.pop()


def folder() -> Path:
    """The folder of answers: ``graphclone`` in ``XDG_CACHE_HOME``, which is ``~/.cache`` where it is not set."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "graphclone"


def key(*parts: Any) -> str:
    """The name of an answer that depends on these parts, on the versions of all that is installed, and on its settings.

    Raises:
        TypeError: a part is no plain value, so that it cannot be told apart from others.
    """
    text = json.dumps([environment(), _state(), *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read(name: str) -> Any:
    """The answer of that name, a tree of plain values; None where there is none."""
    if _refusals:
        return None
    try:
        path = folder() / name
        data = path.read_bytes()
        digest, packed = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(packed).digest() != digest:
            return None
        answer = json.loads(zlib.decompress(packed))
    except (OSError, RuntimeError, ValueError, zlib.error):  # RuntimeError: nobody has a home
        return None
    with suppress(OSError):
        os.utime(path)
    return answer


def write(name: str, answer: Any) -> None:
    """Keep an answer; where that is not possible, there will be none.

    Args:
        name: as ``key`` makes it.
        answer: a tree of plain values, as JSON knows them.
    """
    if _refusals:
        return
    packed = zlib.compress(json.dumps(answer, separators=(",", ":")).encode(), 1)
    with suppress(OSError, RuntimeError):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder(), prefix=".", delete=False) as file:
            file.write(hashlib.sha256(packed).digest() + packed)
        Path(file.name).replace(folder() / name)
        _trim()


@cache
def _trim() -> None:
    """Drop what was asked for longest ago where there is too much; once in a process."""
    with os.scandir(folder()) as entries:
        files = sorted((entry.stat().st_mtime, entry.path) for entry in entries)
    for _, path in files[: max(0, len(files) - LIMIT)]:
        Path(path).unlink(missing_ok=True)


# What every answer depends on


@cache
def environment() -> list[str]:
    """The versions of all that is installed, the code of this library, and the machine."""
    folders = (Path(path or ".") for path in sys.path)
    installed = (path.name for folder in folders if folder.is_dir() for path in folder.glob("*.*-info"))
    return [
        __version__,
        sys.version,
        platform.machine(),
        torch.__version__,
        str(torch.version.git_version),
        np.__version__,
        torch.backends.cpu.get_cpu_capability(),
        str(torch.cuda.is_available()),
        own_code(),
        *sorted(set(installed)),
    ]


@cache
def own_code() -> str:
    """A digest of this library: what it makes of a model changes with it, whatever its version says."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(p for part in (root, root / "passes", root / "models") for p in part.rglob("*.py")):
        digest.update(f"\0{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _state() -> list[str]:
    """What a process may have set that traces depend on."""
    variables = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith(_SETTINGS))
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))
    return [str(torch.get_default_dtype()), str(torch.get_default_device()), *map(str, modes), *variables]
