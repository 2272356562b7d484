"""What a trace keeps as it was in one run, and no guard is about: random numbers of Python, sizes as text."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from graphclone.formats.torch.kinds import is_of_model


@contextmanager
def of_one_run() -> Iterator[list[str]]:
    """Note what code does that a trace takes for constant: it draws numbers outside of torch, or writes a size as text.

    torch's own generators are operators of a trace, and its own texts are of no account.
    """
    kept: list[str] = []
    original: Callable[[torch.SymInt], str] = torch.SymInt.__repr__

    def shown(size: torch.SymInt) -> str:
        frame = sys._getframe(1)
        if is_of_model(file := frame.f_code.co_filename):
            kept.append(f"the text of a size in {Path(file).name}:{frame.f_lineno}")
        return original(size)

    torch.SymInt.__repr__ = shown  # type: ignore[method-assign]
    states = random.getstate(), str(np.random.get_state())  # noqa: NPY002 (the global one is meant)
    try:
        yield kept
    finally:
        torch.SymInt.__repr__ = original  # type: ignore[method-assign]
        now = random.getstate(), str(np.random.get_state())  # noqa: NPY002
        names = ("random", "numpy.random")
        kept += [f"numbers drawn by {n}" for n, a, b in zip(names, states, now, strict=True) if a != b]
