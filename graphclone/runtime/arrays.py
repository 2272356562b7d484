"""Arrays of any type, and files of them as ``numpy.savez`` writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from graphclone.errors import GraphcloneError, first_line

Array = npt.NDArray[Any]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether its numbers are floats; to numpy, those of ml-dtypes are bytes without a meaning."""
    return dtype.kind == "f" or dtype.name == "bfloat16"


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays in an ``.npz`` file, by name; nothing is unpickled.

    Raises:
        GraphcloneError: the file cannot be read, or holds something else than arrays of numbers.
    """
    if path.suffix == ".npy":
        raise GraphcloneError(f"{path}: one array without a name; write it with numpy.savez(path, name=array)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, TypeError, BadZipFile) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else first_line(error)
        if "allow_pickle" in reason:  # numpy's advice
            reason = "it holds something else"
        hint = "write it with numpy.savez(path, name=array)"
        raise GraphcloneError(f"{path}: not an .npz file of arrays: {reason}; {hint}") from error
