"""Take tensors that hold no numbers out of what functions remember from call to call."""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake
from torch.utils import _pytree as pytree

_OTHERS = frozenset({"graphclone", "torch", "sympy", "mpmath", "numpy"}) | sys.stdlib_module_names
"""Packages whose functions remember much, and nothing of a model."""

_DEPTH = 2
"""How far objects within objects are looked into: a mask, and the function that it keeps."""

_PLAIN = frozenset({str, int, float, bool, bytes, type(None), torch.dtype, torch.device})
"""Types of things that keep nothing."""

_Cached = type(functools.lru_cache(lambda: None))


@contextmanager
def forgotten(*modules: torch.nn.Module) -> Iterator[None]:
    """Let functions forget what they were given for a run without numbers, on fake tensors or on the meta device.

    A function under ``functools.lru_cache`` would return it to the next caller, who has numbers. So would a dict in
    which a class, or the file that it is defined in, keeps what it has made. What holds numbers is remembered.

    Args:
        modules: those that are run or traced in the block.
    """
    before = {function: function.cache_info() for function in _FUNCTIONS.found()}
    try:
        yield
    finally:
        called = (function for function in _FUNCTIONS.found() if function.cache_info() != before.get(function))
        for function in called:
            if _holds_none(gc.get_referents(function)):
                function.cache_clear()
        for table in _tables(modules):
            for key in [key for key, value in table.items() if _holds_none(value)]:
                del table[key]


class _Functions:
    """The functions of the process that remember results: also those in closures, and methods.

    To find them takes a look at every object there is. An object is one more reference to its type, so as long as these
    are as many as before and those that were found are alive, there are no others.
    """

    def __init__(self) -> None:
        self._references = 0
        self._found: list[weakref.ref[Any]] = []

    def found(self) -> list[Any]:
        alive = [function for reference in self._found if (function := reference()) is not None]
        if sys.getrefcount(_Cached) != self._references or len(alive) < len(self._found):
            alive = [item for item in gc.get_referrers(_Cached) if type(item) is _Cached]
            self._found = [weakref.ref(function) for function in alive]
            self._references = sys.getrefcount(_Cached)
        return [function for function in alive if _package(function.__module__) not in _OTHERS]


_FUNCTIONS = _Functions()


def _tables(modules: Iterable[torch.nn.Module]) -> Iterator[dict[Any, Any]]:
    """The dicts that the classes of modules keep, or the files in which these are defined."""
    classes = {cls for module in modules for part in module.modules() for cls in type(part).__mro__}
    own = {cls for cls in classes if _package(cls.__module__) not in _OTHERS}
    homes = [sys.modules[home] for home in {cls.__module__ for cls in own} if home in sys.modules]
    for owner in (*own, *homes):
        yield from (table for name, table in vars(owner).items() if type(table) is dict and not name.startswith("__"))


def _package(home: str | None) -> str:
    return str(home).partition(".")[0]


def _holds_none(value: Any, depth: int = _DEPTH) -> bool:
    """Whether a tensor without numbers is among the leaves of a value, or in what these are made of."""
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            if leaf.is_meta or is_fake(leaf):
                return True
        elif depth and type(leaf) not in _PLAIN and (parts := _parts(leaf)) and _holds_none(parts, depth - 1):
            return True
    return False


def _parts(thing: Any) -> list[Any]:
    """What an object keeps, such as a mask its blocks, and what a function has taken from where it was written."""
    if isinstance(thing, type | ModuleType | torch.nn.Module):
        return []
    cells = getattr(thing, "__closure__", None) or ()
    return [*getattr(thing, "__dict__", {}).values(), *chain.from_iterable(map(gc.get_referents, cells))]
