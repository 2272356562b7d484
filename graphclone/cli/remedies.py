"""Error messages with their remedies, in the words of the command line."""

from __future__ import annotations

from graphclone.errors import Remedy

_INPUTS = "--input NAME=SHAPE or --inputs FILE.npz"


def said(error: BaseException) -> str:
    """The message of an error, with its remedy as an option of the command line."""
    remedy: Remedy | None = getattr(error, "remedy", None)
    if remedy is None:
        return str(error)
    return f"{getattr(error, 'message', error)}; {_in_options(remedy)}"


def _in_options(remedy: Remedy) -> str:
    option = remedy.parameter.replace("_", "-")
    if remedy.value is None:
        return f"leave out --{option}"
    if remedy.parameter == "inputs":
        return f"{_INPUTS} {remedy.effect}"
    if remedy.value is True:
        return f"--{option} {remedy.effect}"
    if remedy.value is False:
        return f"--no-{option} {remedy.effect}"
    if remedy.parameter == "sizes":
        return f"--size {','.join(f'{name}={size}' for name, size in remedy.value.items())} {remedy.effect}"
    items = remedy.value if isinstance(remedy.value, list | tuple) else [remedy.value]
    return f"--{option} {','.join(map(str, items))} {remedy.effect}"
