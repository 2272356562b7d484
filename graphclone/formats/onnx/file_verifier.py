"""Whether two ONNX files compute the same, the second wider than the first.

Nothing is known about the files but what they declare. Inputs are drawn by their types, and integers stay small
enough for the source to accept them. An input or output of the clone that is an integer multiple wider on an axis
is compared with the source's, tiled. How much rounding matters is measured on the source itself, with weights that
are a rounding error off.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.compared import compared_numbers
from graphclone.formats.onnx.drawn_inputs import DrawnInputs, Feeds, UserInputs
from graphclone.formats.onnx.file import load
from graphclone.formats.onnx.runs import Run, check_clone, output, rounding_floor, shapes_of, source_runs
from graphclone.formats.onnx.tensors import to_torch
from graphclone.runtime.arrays import Array
from graphclone.runtime.sessions import Port, Provider, Session
from graphclone.verification.checks import NoiseFloor, Report


def verify_files(
    source: Path,
    clone: Path,
    provider: Provider = "auto",
    *,
    sets: int = 3,
    seed: int = 0,
    bound: int | None = None,
    inputs: UserInputs | None = None,
) -> Report:
    """Run two ONNX files on the same inputs.

    Args:
        source: the narrow model.
        clone: the wide one, with the same names of inputs and outputs.
        provider: what ONNX Runtime runs on; ``auto`` is CUDA where there is a GPU.
        sets: how many input sets; sizes differ where they are dynamic.
        seed: of the inputs.
        bound: what integer inputs are drawn below; found by trying where it is not given.
        inputs: arrays, or sizes, of inputs that the source accepts, by name.

    Raises:
        GraphcloneError: a file is missing or not a model, their inputs or outputs do not fit, or the source
            accepts no inputs of the types it declares.
    """
    narrow = Session(source, provider)
    factors = _grown_inputs(narrow, Session(clone, provider))
    drawn = DrawnInputs(narrow, bound, user_inputs=inputs, compared=compared_numbers(load(source)))
    input_sets = list(drawn.draw(sets, seed))
    runs = source_runs(source, narrow, input_sets, provider, seed)

    def measure(session: Session, runs: Sequence[Run]) -> list[list[NoiseFloor]]:
        return [list(_compared(session, run, factors)) for run in runs]

    check = check_clone(source, clone, provider, runs, measure)
    sizes = tuple(f"{shapes_of(feeds)} (seed {seed + i})" for i, feeds in enumerate(input_sets))
    return Report(clone.name, (check,), sizes)


def _grown_inputs(narrow: Session, wide: Session) -> dict[str, tuple[int, ...]]:
    """By how much each axis of each input grows, where the inputs and outputs of both files belong together."""
    factors = _factors(narrow.inputs, wide.inputs, "input")
    _factors(narrow.outputs, wide.outputs, "output")
    return factors


def _compared(wide: Session, run: Run, factors: Mapping[str, tuple[int, ...]]) -> Iterator[NoiseFloor]:
    """The errors of all outputs on one input set. An output may have grown by whole factors."""
    feeds = _tiled(run.feeds, factors)
    try:
        outputs = wide.run(feeds)
    except GraphcloneError as refusal:
        raise GraphcloneError(f"{refusal}, on {shapes_of(feeds)}") from refusal
    for name, expected in run.own.items():
        shaken_outputs = [output(other, name) for other in run.shaken_outputs]
        clone = (output({name: _grown(expected, outputs[name].shape)}, name), output(outputs, name))
        precision = to_torch(outputs[name]).dtype
        yield rounding_floor(name, output(run.own, name), shaken_outputs, clone, precision)


def _grown(expected: Array, shape: tuple[int, ...]) -> Array:
    """What an output of the source is in a clone where it has a shape that is whole multiples; else it stays."""
    fits = expected.ndim == len(shape) and all(
        old and new % old == 0 for old, new in zip(expected.shape, shape, strict=True)
    )
    return np.tile(expected, [new // old for old, new in zip(expected.shape, shape, strict=True)]) if fits else expected


def _tiled(feeds: Feeds, factors: Mapping[str, tuple[int, ...]]) -> Feeds:
    return {name: np.tile(array, factors[name]) for name, array in feeds.items()}


def _factors(narrow: Sequence[Port], wide: Sequence[Port], what: str) -> dict[str, tuple[int, ...]]:
    """By how much each axis of each port of the source is declared to be wider in the clone."""
    by_name = {port.name: port for port in wide}
    names = {port.name for port in narrow}
    if names != by_name.keys():
        first = min(names ^ by_name.keys())
        owner = "source" if first in names else "clone"
        raise GraphcloneError(f"only the {owner} has an {what} {first}: these are not a source and its clone")
    return {port.name: _factors_of(port, by_name[port.name], what) for port in narrow}


def _factors_of(port: Port, other: Port, what: str) -> tuple[int, ...]:
    if port.type != other.type or len(port.shape) != len(other.shape):
        text = f"{what} {port.name} is {_declared(port)} in the source, {_declared(other)} in the clone"
        raise GraphcloneError(text)
    return tuple(_factor(port, other, axis, what) for axis in range(len(port.shape)))


def _factor(port: Port, other: Port, axis: int, what: str) -> int:
    old, new = port.shape[axis], other.shape[axis]
    if not isinstance(old, int) or not isinstance(new, int) or old == new:
        return 1
    factor, rest = divmod(new, old) if old else (0, 1)
    if rest or not factor:
        text = f"axis {axis} of {what} {port.name} has {old} in the source, {new} in the clone"
        raise GraphcloneError(f"{text}, which is not a multiple")
    return factor


def _declared(port: Port) -> str:
    return f"{port.type} of {len(port.shape)} axes"
