"""A source and its clone in ONNX Runtime: runs, how much rounding matters to them, and what to make of an error.

Rounding is measured on the source itself, with weights that are a rounding error off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import onnx_ir
import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.drawn_inputs import Feeds
from graphclone.formats.onnx.file import load
from graphclone.formats.onnx.folding import constant_tensor, store
from graphclone.formats.onnx.saving import write_model
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.runtime.arrays import Array
from graphclone.runtime.interpreter import lifted
from graphclone.runtime.sessions import Provider, Session
from graphclone.verification.checks import ONNX_RUNTIME, Check, NoiseFloor, error, judge, noise_floor, refused_clone
from graphclone.verification.rounding import SHAKES, shaken

_FLOATS = tuple(onnx_ir.DataType[name] for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"))


@dataclass(frozen=True)
class Run:
    """The results of the source in ONNX Runtime on one input set.

    Attributes:
        feeds: the input set.
        own: the outputs.
        shaken_outputs: the outputs with weights that are a rounding off, several times.
    """

    feeds: Feeds
    own: Feeds
    shaken_outputs: Sequence[Feeds]


AnyRun = TypeVar("AnyRun", bound=Run)


def check_clone(
    source: Path,
    clone: Path,
    provider: Provider,
    runs: Sequence[AnyRun],
    measure: Callable[[Session, Sequence[AnyRun]], Sequence[Sequence[NoiseFloor]]],
) -> Check:
    """Whether a clone's outputs are as near to the source's as rounding lets them be.

    Args:
        source: the file of the source.
        clone: the file of the clone; that it does not run is an error of its own.
        provider: what ONNX Runtime runs on.
        runs: of the source.
        measure: runs the clone like the source, and gives the error of every output for every run.
    """
    device = ""
    try:
        wide = Session(clone, provider)
        device = wide.provider
        check = judge(ONNX_RUNTIME, measure(wide, runs), provider=device)
        if check.ok is False:
            check = _without_optimiser(source, clone, runs, measure, check) or check
    except GraphcloneError as refusal:
        return refused_clone(ONNX_RUNTIME, str(refusal), provider=device)
    return replace(check, summary=f"{device}: {check.summary}")


def _without_optimiser(
    source: Path,
    clone: Path,
    runs: Sequence[AnyRun],
    measure: Callable[[Session, Sequence[AnyRun]], Sequence[Sequence[NoiseFloor]]],
    check: Check,
) -> Check | None:
    """The check anew with the operators of the files, where what is put in place of them moves the source as far.

    Products of integers in place of floats may saturate, and round elsewhere: the source is off then, and where it
    rounds to integers by whole steps. A clone that is off by no more, and right with the operators of the file, is not
    to blame. None where that is not so.
    """
    try:
        narrow, wide = (Session(model, "cpu", optimised=False) for model in (source, clone))
        plain_runs = source_runs(source, narrow, [run.feeds for run in runs], "cpu", 0, optimised=False)
        plain = [replace(a, own=b.own, shaken_outputs=b.shaken_outputs) for a, b in zip(runs, plain_runs, strict=True)]
        anew = judge(ONNX_RUNTIME, measure(wide, plain), provider=wide.provider)
    except GraphcloneError:  # there are operators that only the optimiser makes runnable
        return None
    moved = {
        floor.value: max(
            error(output(a.own, floor.value), output(b.own, floor.value)) for a, b in zip(runs, plain, strict=True)
        )
        for floor in check.outputs
    }
    if not anew.ok or any(floor.ok is False and floor.clone > moved[floor.value] for floor in check.outputs):
        return None
    return replace(
        anew, summary=f"without its optimiser, which moves the source by {max(moved.values()):.1e}: {anew.summary}"
    )


def output(outputs: Feeds, name: str) -> torch.Tensor:
    """An output by its name, floats of it in float64."""
    return lifted(to_torch(outputs[name]))


def rounding_floor(
    name: str,
    own: torch.Tensor,
    shaken_outputs: Sequence[torch.Tensor],
    clone: tuple[torch.Tensor, torch.Tensor],
    precision: torch.dtype,
) -> NoiseFloor:
    """The error of an output beside the greatest that other rounding makes: a single run may be lucky.

    Args:
        name: of the output.
        own: what the source gives, or should.
        shaken_outputs: what it gives with other rounding, several times.
        clone: what the clone should give, and what it gives.
        precision: of both.
    """
    floors = [noise_floor(name, (own, other), clone, precision) for other in shaken_outputs]
    return max(floors, key=lambda floor: floor.source)


def shapes_of(feeds: Mapping[str, Array]) -> str:
    """The names and sizes of inputs, for people."""
    return ", ".join(f"{name} {'x'.join(map(str, array.shape)) or 'scalar'}" for name, array in feeds.items())


def source_runs(
    source: Path,
    session: Session,
    input_sets: Sequence[Feeds],
    provider: Provider,
    seed: int,
    *,
    optimised: bool = True,
) -> list[Run]:
    """Run the source on every input set, and with other rounding.

    Args:
        source: its file.
        session: that has it loaded.
        input_sets: what it is run on.
        provider: what ONNX Runtime runs on.
        seed: of the errors that its weights are off by.
        optimised: whether ONNX Runtime may put other operators in place of the file's.
    """
    with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder:
        shaken_outputs = shaken_runs(
            source, Path(folder) / "shaken.onnx", input_sets, provider, seed, optimised=optimised
        )
    return [Run(feeds, session.run(feeds), others) for feeds, others in zip(input_sets, shaken_outputs, strict=True)]


def shaken_runs(
    source: Path, target: Path, input_sets: Sequence[Feeds], provider: Provider, seed: int, *, optimised: bool = True
) -> list[list[Feeds]]:
    """Run a model on every input set with every weight a rounding error off, in several ways.

    Args:
        source: the model.
        target: where such models may be written, one after the other.
        input_sets: what it is run on.
        provider: what ONNX Runtime runs on.
        seed: of the errors.
        optimised: whether ONNX Runtime may put other operators in place of the model's.
    """
    runs: list[list[Feeds]] = [[] for _ in input_sets]
    for shake in range(SHAKES):
        session = Session(_shaken(source, target, seed + shake), provider, optimised=optimised)
        for outputs, feeds in zip(runs, input_sets, strict=True):
            outputs.append(session.run(feeds))
    return runs


def _shaken(source: Path, target: Path, seed: int) -> Path:
    """The model with every weight a rounding error off, wherever it is stored, written to the target."""
    model = load(source)
    for graph in (*model.graphs(), *model.functions.values()):
        for node in graph:
            held = node.op_type == "Constant" and {"value", "value_floats"} & set(node.attributes)
            if held and not _is_number(node.outputs[0]):
                store(node, _moved(constant_tensor(node), node.outputs[0].name or "", seed))
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and not _is_number(value):
                value.const_value = _moved(value.const_value, value.name or "", seed)
    write_model(model, target)
    return target


def _is_number(value: onnx_ir.Value, depth: int = 3) -> bool:
    """Whether a value, or one that is put together with it, is a size, a factor of one, or an exponent."""
    for node, index in value.uses():
        if node.domain:
            continue
        if index in _NUMBERS.get(node.op_type, ()):
            return True
        if node.op_type in _MOVING and depth and _is_number(node.outputs[0], depth - 1):
            return True
    return False


_NUMBERS = {"Pow": (1,), "Range": (0, 1, 2), "Resize": (1, 2, 3), "Upsample": (1,), "NonMaxSuppression": (2, 3, 4)}
"""The inputs that say how many, how far or how often, or that must be whole, by operator."""

_MOVING = ("Concat", "Cast", "Identity", "Unsqueeze", "Squeeze", "Slice", "Gather")


def _moved(tensor: onnx_ir.TensorProtocol, name: str, seed: int) -> onnx_ir.TensorProtocol:
    """The data, moved when it is read if it is a weight."""
    if tensor.dtype not in _FLOATS:
        return tensor

    def read() -> onnx_ir.TensorProtocol:
        return onnx_ir.tensor(to_array(shaken(to_torch(tensor.numpy()), name, seed), tensor.dtype), tensor.dtype)

    return onnx_ir.LazyTensor(read, dtype=tensor.dtype, shape=onnx_ir.Shape(tensor.shape.numpy()), name=tensor.name)
