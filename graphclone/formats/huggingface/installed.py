"""Whether a model runs the code that is installed, and what tells that code from other code.

What has been found out about a class holds for another run only while its code is the same. A program may have put
functions of its own in place of some; what its classes do is known to that process alone.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import torch

_PACKAGES = ("torch", "transformers")

_LIBRARIES = (*_PACKAGES, "accelerate", "huggingface_hub", "numpy", "safetensors", "tqdm")
"""Packages, and those whose functions they import."""


def runs_installed_code(module: torch.nn.Module) -> bool:
    """Whether the code of a model's classes, and of all files that define them, is that of torch and transformers."""
    classes = {cls for part in module.modules() for cls in type(part).__mro__ if cls is not object}
    if any(part.__dict__.get("forward") for part in module.modules()):
        return False
    homes = {cls.__module__ for cls in classes}
    if any(home.partition(".")[0] not in (*_PACKAGES, *sys.stdlib_module_names) for home in homes):
        return False
    members = [member for cls in classes for member in vars(cls).values()]
    members += [member for home in homes for member in vars(sys.modules[home]).values()]
    return all(_is_installed(function) for function in _functions(members))


def _functions(members: Iterable[Any]) -> Iterator[FunctionType]:
    """The functions among what a class or a file defines, those of tables by name, too."""
    for member in members:
        function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
        if isinstance(function, FunctionType):
            yield function
        elif isinstance(member, Mapping) and type(member).__module__.startswith(_PACKAGES):
            yield from (value for value in member.values() if isinstance(value, FunctionType))


def _is_installed(function: FunctionType) -> bool:
    """Whether a function lies in a file of the packages, or of Python's own; or is made by such as these for them."""
    file = function.__code__.co_filename
    if file.startswith("<"):
        return str(function.__globals__.get("__name__")).partition(".")[0] in (*_LIBRARIES, *sys.stdlib_module_names)
    return file.startswith(_folders())


@cache
def _folders() -> tuple[str, ...]:
    """What the paths of installed files begin with; of Python's own folder all but other packages."""
    packages = (f"{_home(name)}{os.sep}" for name in _LIBRARIES if name in sys.modules)
    standard = (str(path) for path in Path(sysconfig.get_path("stdlib")).iterdir() if path.name != "site-packages")
    return (*packages, *standard)


def _home(package: str) -> Path:
    return Path(str(sys.modules[package].__file__)).parent


@cache
def installed_code() -> str:
    """A digest of the sizes and dates of all files of transformers, by which Python itself knows its compiled ones."""
    digest = hashlib.sha256()
    folders = [str(_home("transformers"))]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    digest.update(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
                elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                    folders.append(entry.path)
    return digest.hexdigest()
