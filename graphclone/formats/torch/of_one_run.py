"""What a trace keeps as it was in one run, and no guard is about.

Random numbers of Python, sizes as text, and whether a tensor requires gradients.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphclone.formats.torch.kinds import is_of_model


@contextmanager
def of_one_run() -> Iterator[list[str]]:
    """Note what code does that a trace takes for constant.

    It draws numbers outside of torch, writes a size as text, or asks whether a tensor that is no parameter requires
    gradients. torch's own generators are operators of a trace, and what its own code asks is of no account.
    """
    kept: list[str] = []
    original: Callable[[torch.SymInt], str] = torch.SymInt.__repr__
    descriptor: Any = torch._C.TensorBase.requires_grad

    def note(what: str) -> None:
        frame = sys._getframe(2)
        if is_of_model(file := frame.f_code.co_filename) and file != "<string>":  # code that torch makes
            kept.append(f"{what} in {Path(file).name}:{frame.f_lineno}")

    def shown(size: torch.SymInt) -> str:
        note("the text of a size")
        return original(size)

    def requires_grad(tensor: torch.Tensor) -> bool:
        if not isinstance(tensor, torch.nn.Parameter):
            note("whether a tensor requires gradients")
        return bool(descriptor.__get__(tensor))

    torch.SymInt.__repr__ = shown  # type: ignore[method-assign]
    torch.Tensor.requires_grad = property(requires_grad, descriptor.__set__)  # type: ignore[assignment]
    states = random.getstate(), str(np.random.get_state())  # noqa: NPY002 (the global one is meant)
    try:
        yield kept
    finally:
        torch.SymInt.__repr__ = original  # type: ignore[method-assign]
        del torch.Tensor.requires_grad
        now = random.getstate(), str(np.random.get_state())  # noqa: NPY002
        names = ("random", "numpy.random")
        kept += [f"numbers drawn by {n}" for n, a, b in zip(names, states, now, strict=True) if a != b]
