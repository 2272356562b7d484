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

_LIBRARIES = (*_PACKAGES, "accelerate", "huggingface_hub", "numpy", "safetensors", "tqdm", "typing_extensions")
"""Packages, and those whose functions they import."""


def runs_installed_code(module: torch.nn.Module) -> bool:
    """Whether a model runs the code of torch and transformers as it is installed, and no other.

    Looked at are all classes of its parts and its configurations, and all that is defined in the files of transformers
    which these lie in or use.
    """
    if any("forward" in part.__dict__ for part in module.modules()):
        return False
    owners = {type(owner) for part in module.modules() for owner in (part, getattr(part, "config", None))}
    classes = {cls for owner in owners for cls in owner.__mro__} - {object, type(None)}
    homes = {cls.__module__ for cls in classes}
    if any(home.partition(".")[0] not in (*_PACKAGES, *sys.stdlib_module_names) for home in homes):
        return False
    members = [member for home in _used(homes) for member in vars(sys.modules[home]).values()]
    classes.update(member for member in members if isinstance(member, type) and _is_of_transformers(member.__module__))
    members += [member for cls in classes for member in vars(cls).values()]
    return all(_is_installed(function) for function in _functions(members))


def _used(homes: set[str]) -> set[str]:
    """The names of Python modules, with those of transformers that they use, and so on."""
    found: set[str] = set()
    todo = set(homes)
    while todo:
        found |= todo
        members = (member for home in todo for member in vars(sys.modules[home]).values())
        named = {str(getattr(item, "__module__", "")) for member in members for item in (member, type(member))}
        todo = {name for name in named - found if _is_of_transformers(name) and name in sys.modules}
    return found


def _is_of_transformers(name: str) -> bool:
    return name.partition(".")[0] == "transformers"


def _functions(members: Iterable[Any]) -> Iterator[FunctionType]:
    """The functions among what a class or a file defines, those of tables by name, too."""
    for member in members:
        function = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
        if isinstance(function, FunctionType):
            yield function
            continue
        tables = [member]
        if _is_of_transformers(type(member).__module__) and not isinstance(member, type):
            tables += getattr(member, "__dict__", {}).values()
        yield from (value for table in tables if type(table) is dict for value in _plain(table))


def _plain(table: Mapping[Any, Any]) -> list[FunctionType]:
    return [value for value in table.values() if isinstance(value, FunctionType)]


def _is_installed(function: FunctionType) -> bool:
    """Whether a function lies in a file of the packages, or of Python's own; or is made by such as these for them."""
    file = function.__code__.co_filename
    if file.startswith("<"):
        home = str(function.__globals__.get("__name__")).partition(".")[0]
        return home in (*_LIBRARIES, *sys.stdlib_module_names) or home.startswith("namedtuple_")
    return _is_in_folders(file)


@cache
def _is_in_folders(file: str) -> bool:
    return file.startswith(_folders())


@cache
def _folders() -> tuple[str, ...]:
    """What the paths of installed files begin with; of Python's own folder all but other packages."""
    packages = (str(_file(name)).removesuffix("__init__.py") for name in _LIBRARIES if name in sys.modules)
    standard = (str(path) for path in Path(sysconfig.get_path("stdlib")).iterdir() if path.name != "site-packages")
    return (*packages, *standard)


def _file(package: str) -> Path:
    return Path(str(sys.modules[package].__file__))


@cache
def installed_code() -> str:
    """A digest of the sizes and dates of all files of transformers, by which Python itself knows its compiled ones."""
    digest = hashlib.sha256()
    folders = [str(_file("transformers").parent)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    digest.update(f"{entry.path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
                elif entry.is_dir(follow_symlinks=False) and entry.name != "__pycache__":
                    folders.append(entry.path)
    return digest.hexdigest()
