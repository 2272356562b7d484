"""Libraries that graphclone can do without: those of its extras, imported where they are first needed."""

from __future__ import annotations

import importlib
from typing import Any

from graphclone.errors import GraphcloneError, one_line


class MissingExtraError(GraphcloneError, ImportError):
    """A library that only an extra of graphclone installs is missing, or too broken to be imported."""

    def __init__(self, what: str, library: str, extra: str, error: ImportError | None = None) -> None:
        """Say what to install.

        Args:
            what: needs the library, for people: "a study".
            library: the module's name.
            extra: of graphclone, which installs it.
            error: why the import failed, where it was tried.
        """
        missing = error is None or (isinstance(error, ModuleNotFoundError) and error.name == library)
        why = "is not installed" if missing or error is None else f"cannot be imported ({one_line(error)})"
        super().__init__(f"{what} needs {library}, which {why}: pip install 'graphclone[{extra}]'")


def required(library: str, extra: str, what: str) -> Any:
    """A library of an extra.

    Args:
        library: the module's name.
        extra: of graphclone, which installs it.
        what: needs the library, for people.

    Raises:
        MissingExtraError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise MissingExtraError(what, library, extra, error) from error
