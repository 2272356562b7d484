"""What reading a file costs, in calls of functions: unlike seconds, they are the same on every machine."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from onnx import helper

from graphclone.formats.onnx.file import load
from tests.support.hostile_onnx import small
from tests.support.onnx_graphs import save


def test_reading_is_linear_in_the_number_of_operators(tmp_path: Path) -> None:
    short, long = chain(1000, tmp_path), chain(4000, tmp_path)
    assert calls(lambda: load(long)) < 4.2 * calls(lambda: load(short))


def chain(length: int, folder: Path) -> Path:
    """The small model with that many operators behind it."""
    model = small()
    names = ["y", *(f"n{i}" for i in range(length))]
    model.graph.node.extend(helper.make_node("Neg", [a], [b]) for a, b in pairwise(names))
    return save(model, folder / f"{length}.onnx")


def calls(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, the work calls."""
    counter = itertools.count()
    sys.setprofile(lambda *_: next(counter) and None)
    try:
        work()
    finally:
        sys.setprofile(None)
    return next(counter)
