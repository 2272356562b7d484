"""Whether two ONNX files compute the same, the second wider than the first.

Nothing is known about the files but what they declare. Inputs are drawn by their types, and integers stay small
enough for the source to accept them. An input or output of the clone that is an integer multiple wider on an axis
is compared with the source's, tiled. How much rounding matters is measured on the source itself, with weights that
are a rounding error off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir
import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.compared import compared_numbers
from graphclone.formats.onnx.drawn_inputs import DrawnInputs, Feeds, UserInputs
from graphclone.formats.onnx.file import load
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.runtime.arrays import Array
from graphclone.runtime.sessions import Port, Provider, Session
from graphclone.verification.checks import ONNX_RUNTIME, Check, NoiseFloor, Report, judge, noise_floor
from graphclone.verification.distance import Deviation
from graphclone.verification.rounding import SHAKES, shaken

_FLOATS = tuple(onnx_ir.DataType[name] for name in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"))


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
    narrow, wide = Session(source, provider), Session(clone, provider)
    factors = _factors(narrow.inputs, wide.inputs, "input")
    _factors(narrow.outputs, wide.outputs, "output")
    with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder:
        drawn = DrawnInputs(narrow, bound, user_inputs=inputs, compared=compared_numbers(load(source)))
        input_sets = list(drawn.draw(sets, seed))
        shaken_outputs = shaken_runs(source, Path(folder) / source.name, input_sets, provider, seed)
        check = _check(
            narrow, wide, [(f, m, _tiled(f, factors)) for f, m in zip(input_sets, shaken_outputs, strict=True)]
        )
    sizes = tuple(f"{shapes_of(feeds)} (seed {seed + i})" for i, feeds in enumerate(input_sets))
    return Report(clone.name, (check,), sizes)


def _check(narrow: Session, wide: Session, runs: Sequence[tuple[Feeds, Sequence[Feeds], Feeds]]) -> Check:
    """Run the source and the clone on every input set; what the source gives with other rounding is known."""
    measured: list[list[NoiseFloor]] = []
    for feeds, shaken_outputs, tiled in runs:
        expected = narrow.run(feeds)
        try:
            outputs = wide.run(tiled)
        except GraphcloneError as error:
            first = Deviation("the clone", "", "", float("inf"), f"{error}, on {shapes_of(tiled)}")
            return Check(ONNX_RUNTIME, False, str(first), {"provider": wide.provider}, first=first)
        measured.append(
            [_compared(name, expected[name], [m[name] for m in shaken_outputs], outputs[name]) for name in expected]
        )
    check = judge(ONNX_RUNTIME, measured, provider=wide.provider)
    return replace(check, summary=f"{wide.provider}: {check.summary}")


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


def _compared(name: str, expected: Array, shaken_outputs: Sequence[Array], actual: Array) -> NoiseFloor:
    """The error of an output, which may have grown by whole factors; infinite where it has not."""
    fits = expected.ndim == actual.ndim and all(
        old and new % old == 0 for old, new in zip(expected.shape, actual.shape, strict=True)
    )
    wide = expected
    if fits:
        wide = np.tile(expected, [new // old for old, new in zip(expected.shape, actual.shape, strict=True)])
    precision = torch.as_tensor(np.empty(0, actual.dtype)).dtype
    return rounding_floor(
        name, _lifted(expected), [_lifted(m) for m in shaken_outputs], (_lifted(wide), _lifted(actual)), precision
    )


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


def _lifted(array: Array) -> torch.Tensor:
    return torch.as_tensor(array.astype(np.float64) if array.dtype.kind == "f" else array)


def shapes_of(feeds: Mapping[str, Array]) -> str:
    """The names and sizes of inputs, for people."""
    return ", ".join(f"{name} {'x'.join(map(str, array.shape)) or 'scalar'}" for name, array in feeds.items())


def shaken_runs(
    source: Path, target: Path, input_sets: Sequence[Feeds], provider: Provider, seed: int, *, optimised: bool = True
) -> list[list[Feeds]]:
    """What a model gives for every input set with every weight a rounding error off, in several ways.

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
    from graphclone.formats.onnx.saving import write_model

    model = load(source)
    for graph in (*model.graphs(), *model.functions.values()):
        for node in graph:
            if node.op_type == "Constant" and not node.domain and not _is_number(node.outputs[0]):
                _shake_constant(node, seed)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and not _is_number(value):
                value.const_value = _moved(value.const_value, value.name or "", seed)
    write_model(model, target)
    return target


def _shake_constant(node: onnx_ir.Node, seed: int) -> None:
    attribute = node.attributes.get("value")
    if attribute is not None and attribute.type is onnx_ir.AttributeType.TENSOR:
        tensor = _moved(attribute.as_tensor(), node.outputs[0].name or "", seed)
        node.attributes["value"] = onnx_ir.Attr("value", onnx_ir.AttributeType.TENSOR, tensor)


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
