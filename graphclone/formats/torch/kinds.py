"""Kinds of numbers: those of inputs for which a trace holds, and whether the code asks for more than that."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

INTEGER, FLOAT = "integer", "float"

_TORCH = str(Path(torch.__file__).parent)
_MODULES = str(Path(torch.nn.__file__).parent)
_OURS = str(Path(__file__).parent)


def is_of_model(file: str) -> bool:
    """Whether a file has code of models: not torch's own, but for its modules, nor what watches a trace."""
    return not file.startswith((_TORCH, _OURS)) or file.startswith(_MODULES)


@dataclass
class Asked:
    """Whether the code of a model asks which integers a tensor holds."""

    integers: bool = False


@contextmanager
def dtypes_asked() -> Iterator[Asked]:
    """Note whether code reads the dtype of a tensor of integers; torch's own does so everywhere, and does not count."""
    descriptor: Any = torch._C.TensorBase.dtype
    asked = Asked()

    def read(tensor: torch.Tensor) -> torch.dtype:
        dtype: torch.dtype = descriptor.__get__(tensor)
        if not dtype.is_floating_point:
            asked.integers |= is_of_model(sys._getframe(1).f_code.co_filename)
        return dtype

    torch.Tensor.dtype = property(read)  # type: ignore[assignment]
    try:
        yield asked
    finally:
        del torch.Tensor.dtype


def takes(traced: torch.dtype, given: torch.dtype, asked: Collection[str]) -> bool:
    """Whether a trace holds for numbers of a dtype.

    A clone computes in the precision that it is cast to, so that floats may be any, and integers may be any as well,
    unless the code asks which they are.

    Args:
        traced: the dtype in the trace.
        given: that of an input.
        asked: the kinds of numbers that have to be of the dtype in the trace.
    """
    return traced == given or (kind(traced) == kind(given) and kind(traced) not in asked)


def kind(dtype: torch.dtype) -> str:
    """What the numbers of a dtype are: float, complex, bool or integer."""
    if dtype.is_floating_point or dtype.is_complex:
        return FLOAT if dtype.is_floating_point else "complex"
    return "bool" if dtype == torch.bool else INTEGER
