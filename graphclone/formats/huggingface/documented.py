"""What the documentation of a model says of its inputs: their kinds, and their sizes by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ENTRY = re.compile(r"^\s*(\w+) \(([^\n]*?)\bshape\s+['`]*[(\[]([^)\]]*)[)\]]([^\n]*)", re.MULTILINE)
"""A parameter, its kind, the names of its sizes, and whether it may be left out."""


@dataclass(frozen=True)
class Documented:
    """An input as its model documents it.

    Attributes:
        kind: class of tensors.
        sizes: of its axes, by name or number, such as ``("batch_size", "sequence_length", "4")``.
        optional: it says that it can be left out.
    """

    kind: str
    sizes: tuple[str, ...]
    optional: bool


def documented_inputs(forward: Callable[..., Any]) -> dict[str, Documented]:
    """The inputs with a shape in the docstring of a method, by name; its own order."""
    return {
        name: Documented(
            kind, tuple(size.strip(" *`'") for size in sizes.split(",") if size.strip()), "optional" in rest
        )
        for name, kind, sizes, rest in _ENTRY.findall(forward.__doc__ or "")
    }
