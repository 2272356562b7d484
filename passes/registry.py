"""Every pass by name, and pipelines as text: ``canonicalize,infer-dims,choose-widths{factor=2}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from typing import Any

from graphclone.errors import GraphcloneError
from graphclone.passes import PASSES
from graphclone.pipeline.runner import Pass


def available(extra: Iterable[type[Any]] = ()) -> dict[str, type[Any]]:
    """Every pass by name: graphclone's own, those of installed plug-ins, and those given."""
    plugged = [entry.load() for entry in entry_points(group="graphclone.passes")]
    return {cls.name: cls for cls in (*PASSES, *plugged, *extra)}


def parse(text: str, extra: Iterable[type[Any]] = ()) -> tuple[Pass, ...]:
    """The pipeline written as ``canonicalize,infer-dims,choose-widths{factor=2}``.

    Raises:
        GraphcloneError: no such pass or option, or a value of the wrong type.
    """
    known = available(extra)
    return tuple(_parse_pass(item, known) for item in _split(text))


def _split(text: str) -> list[str]:
    items, depth, item = [], 0, ""
    for char in text:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            items.append(item)
            item = ""
        else:
            item += char
    return [part.strip() for part in (*items, item) if part.strip()]


def _parse_pass(item: str, known: Mapping[str, type[Any]]) -> Pass:
    name, brace, options = item.partition("{")
    if brace and not options.endswith("}"):
        raise GraphcloneError(f"pass {item!r}: the options have no closing brace")
    cls = known.get(name.strip())
    if cls is None:
        raise GraphcloneError(f"no pass is called {name.strip()!r}; there are {', '.join(known)}")
    fields = {option.name: option for option in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.removesuffix("}").split(","))):
        key, _, value = option.partition("=")
        field_name = key.strip().replace("-", "_")
        if field_name not in fields:
            raise GraphcloneError(f"pass {name} has no option {key.strip()!r}; it has {', '.join(fields) or 'none'}")
        values[field_name] = _converted(value.strip(), fields[field_name].default, f"{name}: {key.strip()}")
    made: Pass = cls(**values)
    return made


def _converted(text: str, default: Any, where: str) -> Any:
    """Text as a value of the type an option has by default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text) if isinstance(default, int | float) else text
    except (KeyError, ValueError):
        raise GraphcloneError(f"pass option {where} cannot be {text!r}") from None
