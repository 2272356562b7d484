"""Every pass by name, and pipelines as text: ``canonicalize,infer-dims,choose-widths{factor=2}``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from graphclone.errors import GraphcloneError
from graphclone.passes import PASSES, options
from graphclone.pipeline.runner import Pass


def available(extra: Iterable[type[Any]] = ()) -> dict[str, type[Any]]:
    """Every pass by name: graphclone's own, those of installed plug-ins, and those given."""
    plugged = [entry.load() for entry in entry_points(group="graphclone.passes")]
    return {cls.name: cls for cls in (*PASSES, *plugged, *extra)}


def parse(text: str, extra: Iterable[type[Any]] = ()) -> tuple[Pass, ...]:
    """The pipeline that a text means; ``unparse`` gives the text back.

    Args:
        text: names of passes with commas between them, each with options in braces: ``name{option=value,..}``.
        extra: passes besides those that are installed.

    Raises:
        GraphcloneError: no such pass or option, or a value of the wrong type.
    """
    classes = available(extra)
    return tuple(_parse_pass(item, classes) for item in options.split(text))


def unparse(passes: Sequence[Pass]) -> str:
    """The text of a pipeline, with the options that are not as they are by default.

    Raises:
        GraphcloneError: an option has a value that no text means.
    """
    return ",".join(map(_unparse_pass, passes))


def _parse_pass(item: str, classes: Mapping[str, type[Any]]) -> Pass:
    name, brace, text = item.partition("{")
    name = name.strip()
    if brace and not text.endswith("}"):
        raise GraphcloneError(f"pass {item!r}: the options have no closing brace")
    if name not in classes:
        raise GraphcloneError(f"no pass is called {name!r}; there are {', '.join(classes)}")
    cls = classes[name]
    values = dict(_option(cls, option) for option in options.split(text.removesuffix("}")))
    if missing := [field.name for field in _fields(cls) if not _has_default(field) and field.name not in values]:
        raise GraphcloneError(f"pass {name} needs {', '.join(map(_spelled, missing))}")
    step: Pass = cls(**values)
    return step


def _option(cls: type[Any], text: str) -> tuple[str, Any]:
    """The field that an option sets, and its value."""
    key, _, value = (part.strip() for part in text.partition("="))
    names = {_spelled(field.name): field.name for field in _fields(cls)}
    if (field := names.get(_spelled(key))) is None:
        raise GraphcloneError(f"pass {cls.name} has no option {key!r}; it has {', '.join(names) or 'none'}")
    hint = get_type_hints(cls)[field]
    try:
        return field, options.read(value, hint)
    except ValueError:
        expected = options.describe(hint)
        raise GraphcloneError(f"pass option {cls.name}: {key} cannot be {value!r}; it is {expected}") from None


def _unparse_pass(step: Pass) -> str:
    try:
        fields = [f"{_spelled(name)}={text}" for name, text in _changed(step)]
    except TypeError as error:
        raise GraphcloneError(f"pass {step.name} cannot be written as text: an option is a {error}") from None
    return f"{step.name}{{{','.join(fields)}}}" if fields else step.name


def _changed(step: Pass) -> Iterator[tuple[str, str]]:
    """The options that are not as by default, with their values. Their texts are compared: False is not 0."""
    for field in _fields(type(step)):
        text = options.write(getattr(step, field.name))
        if not _has_default(field) or text != options.write(_default(field)):
            yield field.name, text


def _fields(cls: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.init]


def defaults(cls: type[Pass]) -> dict[str, Any]:
    """The options of a pass as they are spelled, with their default values; None where one must be given."""
    return {_spelled(field.name): _default(field) if _has_default(field) else None for field in _fields(cls)}


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _spelled(name: str) -> str:
    """An option is spelled with hyphens, and may be given with underscores."""
    return name.replace("_", "-")
