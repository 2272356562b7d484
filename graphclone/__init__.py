"""graphclone makes trained networks wider and deeper without changing what they compute.

    import graphclone as gc

    clone = gc.clone(model, args, widen=2)
    clone.verify().raise_if_failed()
    wide = clone.module()

What it is made of is imported when it is first used, so that ``import graphclone`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphclone.version import __version__ as __version__

if TYPE_CHECKING:
    from graphclone.algebra.growth import Growth
    from graphclone.algebra.strategies import Strategy
    from graphclone.api import clone, grow_optimizer, slow_copies, trace
    from graphclone.clones.clone import Clone
    from graphclone.clones.traced import Traced
    from graphclone.errors import CannotJudgeError, GraphcloneError, NotEquivalentError
    from graphclone.formats.huggingface.writer import clone_checkpoint
    from graphclone.formats.torch.sharded import load_into
    from graphclone.models import build
    from graphclone.optimizers.warming import warm_moments
    from graphclone.runtime.cache import no_cache

__all__ = [
    "CannotJudgeError",
    "Clone",
    "GraphcloneError",
    "Growth",
    "NotEquivalentError",
    "Strategy",
    "Traced",
    "build",
    "clone",
    "clone_checkpoint",
    "grow_optimizer",
    "load_into",
    "no_cache",
    "slow_copies",
    "trace",
    "warm_moments",
]

_HOMES = {
    "CannotJudgeError": "errors",
    "Clone": "clones.clone",
    "GraphcloneError": "errors",
    "Growth": "algebra.growth",
    "NotEquivalentError": "errors",
    "Strategy": "algebra.strategies",
    "Traced": "clones.traced",
    "build": "models",
    "clone": "api",
    "clone_checkpoint": "formats.huggingface.writer",
    "grow_optimizer": "api",
    "load_into": "formats.torch.sharded",
    "no_cache": "runtime.cache",
    "slow_copies": "api",
    "trace": "api",
    "warm_moments": "optimizers.warming",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    member = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = member
    return member


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
