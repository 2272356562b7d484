"""The paper's experiment (HyperCloning, arXiv 2409.12903): does a wide model train faster from its clone?

``run_study(read("mini"), "study-mini")`` runs a study that comes with graphclone, and gives the path of its report.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphclone.study.config import Base, Comparison, Data, Model, Study, Training, read
    from graphclone.study.execute import run_study
    from graphclone.study.recipes import Recipe

__all__ = ["Base", "Comparison", "Data", "Model", "Recipe", "Study", "Training", "read", "run_study"]

_HOMES = dict.fromkeys(__all__, "config") | {"Recipe": "recipes", "run_study": "execute"}
"""The module of each public name: reports are read without an import of torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
