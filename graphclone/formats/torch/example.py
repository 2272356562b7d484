"""A module with what it is called with: all that a torch clone knows of its source beside the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Example:
    """The inputs that a module was traced with.

    Attributes:
        args: by position.
        kwargs: by name.
        model: the module itself; None where there is none in memory.
        into: the wide module whose widths were taken, if there is one.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    model: torch.nn.Module | None = None
    into: torch.nn.Module | None = None
