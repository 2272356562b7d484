"""Error messages with their remedies, in the words of the command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from graphclone.errors import Remedy

_INPUTS = "--input NAME=SHAPE or --inputs FILE.npz"

_OPTIONS = {"sizes": "size"}
"""Options that are not called as the parameter is."""


def said(error: BaseException) -> str:
    """The message of an error, with its remedy as an option of the command line."""
    remedy: Remedy | None = getattr(error, "remedy", None)
    if remedy is None:
        return str(error)
    return f"{getattr(error, 'message', error)}; {_in_options(remedy)}"


def _in_options(remedy: Remedy) -> str:
    option = _OPTIONS.get(remedy.parameter, remedy.parameter.replace("_", "-"))
    if remedy.value is None:
        return f"leave out --{option}"
    if remedy.parameter == "inputs":
        return f"{_INPUTS} {remedy.effect}"
    if remedy.value is True:
        return f"--{option} {remedy.effect}"
    if remedy.value is False:
        return f"--no-{option} {remedy.effect}"
    if isinstance(remedy.value, Mapping):
        pairs = ",".join(f"{name}={number}" for name, number in remedy.value.items())
        return f"--{option} {shlex.quote(pairs)} {remedy.effect}"
    items = remedy.value if isinstance(remedy.value, list | tuple) else [remedy.value]
    return f"--{option} {','.join(map(str, items))} {remedy.effect}"
