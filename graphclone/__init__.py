"""graphclone makes trained networks wider without changing what they compute.

    import graphclone as gc

    clone = gc.clone(model, args, widen=2)
    clone.verify().raise_if_failed()
    wide = clone.module()

What it is made of is imported when it is first used, so that ``import graphclone`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphclone.api import clone, trace
    from graphclone.clone import Clone, Traced
    from graphclone.errors import GraphcloneError, NotEquivalentError
    from graphclone.growth import Growth
    from graphclone.models import build
    from graphclone.strategies import Strategy

__version__ = "0.1.0"

__all__ = [
    "Clone",
    "GraphcloneError",
    "Growth",
    "NotEquivalentError",
    "Strategy",
    "Traced",
    "build",
    "clone",
    "trace",
]

_HOMES = {
    "Clone": "clone",
    "GraphcloneError": "errors",
    "Growth": "growth",
    "NotEquivalentError": "errors",
    "Strategy": "strategies",
    "Traced": "clone",
    "build": "models",
    "clone": "api",
    "trace": "api",
}
"""The module of each public name."""


class _Package(ModuleType):
    """The package as a module that keeps its public names.

    Importing the submodule ``graphclone.clone`` would bind it to that name here, over the function.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
