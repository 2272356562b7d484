"""What is said of the inputs of a model: by its configuration, the files of its processors and its documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

MEDIA = {"image": 1, "video": 2, "audio": 3}
"""What the places of tokens may hold, and how ``mm_token_type_ids`` says so."""

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")

_ENTRY = re.compile(r"^\s*(\w+) \(([^\n]*?)\bshape\s+['`]*[(\[]([^)\]]*)[)\]]([^\n]*)", re.MULTILINE)
"""A parameter, its kind, the names of its sizes, and whether it may be left out."""


def processor_fields(folder: Path) -> dict[str, Any]:
    """The fields in the files of the processors in a folder; none where no such file can be read."""
    fields: dict[str, Any] = {}
    for name in _PROCESSORS:
        try:
            read = json.loads((folder / name).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(read, dict):
            parts = [part for part in read.values() if isinstance(part, dict) and "image_processor_type" in part]
            fields |= {**read, **dict(chain.from_iterable(part.items() for part in parts))}
    return fields


def text_config(config: Any) -> Any:
    """The part of a configuration that is about text; the whole where there are several, or none."""
    try:
        return config.get_text_config()
    except ValueError:  # it has several
        return config


def media_tokens(config: Any) -> dict[str, int]:
    """The tokens of a configuration whose places hold something else than text, by what that is."""
    ids = {kind: getattr(config, f"{kind}_token_id", None) for kind in MEDIA}
    ids |= {k: getattr(config, f"{k}_token_index", None) for k, token in ids.items() if token is None}
    return {kind: token for kind, token in ids.items() if isinstance(token, int)}


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
