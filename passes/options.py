"""Values of options as text, by type hints: ``2``, ``0.5``, ``true``, ``none``, ``word``, ``"any text"``, ``[a,b]``.

A text that could be read as something else, or that holds a sign of the syntax, stands in double quotes, as in JSON.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|.', re.DOTALL)
_WORD = re.compile(r"[A-Za-z_][\w.*/:+-]*")
_NONE = "none"
_FLAGS = {"true": True, "false": False}
_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def split(text: str) -> list[str]:
    """Split a text at its commas. Commas in quotes, braces and brackets do not count, and empty parts are dropped."""
    parts, depth = [""], 0
    for token in _TOKEN.findall(text):
        depth += (token in ("{", "[")) - (token in ("}", "]"))
        if token == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts if part.strip()]


def read(text: str, hint: Any) -> Any:
    """The value of the hinted type that a text means.

    Raises:
        ValueError: it means none.
    """
    if get_origin(hint) in (Union, types.UnionType):
        return _read_any(text, get_args(hint))
    if get_origin(hint) is Literal:
        return _read_choice(text, get_args(hint))
    if get_origin(hint) is tuple:
        return _read_items(text, get_args(hint)[0])
    if hint not in _READERS:
        raise ValueError(text)
    return _READERS[hint](text)


def _read_any(text: str, hints: tuple[Any, ...]) -> Any:
    """As the first type that the text can be; a plain text can be anything, so that is tried last."""
    for hint in sorted(hints, key=lambda hint: hint is str):
        try:
            return read(text, hint)
        except ValueError:
            continue
    raise ValueError(text)


def _read_choice(text: str, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if text in (write(choice), choice):
            return choice
    raise ValueError(text)


def _read_items(text: str, hint: Any) -> tuple[Any, ...]:
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(text)
    return tuple(read(item, hint) for item in split(text[1:-1]))


def _read_none(text: str) -> None:
    if text != _NONE:
        raise ValueError(text)


def _read_flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(text)
    return _FLAGS[text.lower()]


def _read_text(text: str) -> str:
    return str(json.loads(text, strict=False)) if text.startswith('"') else text


_READERS: Mapping[Any, Callable[[str], Any]] = {
    types.NoneType: _read_none,
    bool: _read_flag,
    int: int,
    float: float,
    str: _read_text,
}


def write(value: Any) -> str:
    """The text that means a value.

    Raises:
        TypeError: none does.
    """
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        plain = _WORD.fullmatch(value) and value.lower() not in (_NONE, *_FLAGS, "nan", "inf", "infinity")
        return value if plain else json.dumps(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(write, value))}]"
    raise TypeError(type(value).__name__)


def describe(hint: Any) -> str:
    """The description of a value of the hinted type, in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(write(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list [..], each item {describe(get_args(hint)[0])}"
    return _NONE if hint is types.NoneType else _NAMES.get(hint, f"what no text means ({hint})")
