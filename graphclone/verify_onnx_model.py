"""Whether the clone of an ONNX file computes what the file computes.

1. static: read anew, every tensor of the clone has the shape that the layouts predict;
2. exact: in float64, by onnx's reference implementation, every value is the source's, through the maps;
3. ONNX Runtime: outputs are as near to float64 as the source's are, or, where float64 is not to be had, as near to
   the source's as those are to a source with other rounding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from graphclone.checks import Check, NoiseFloor, Report, judge
from graphclone.emit.onnx import write
from graphclone.emit.onnx_file import to_model
from graphclone.errors import GraphcloneError
from graphclone.frontends.onnx.importer import Origin
from graphclone.frontends.onnx.reading import read
from graphclone.frontends.onnx.tensors import to_array, to_torch
from graphclone.interpreter import ExecutionError, lifted, output_tensors, outputs
from graphclone.lockstep import Deviation, Lazy, Lockstep, lifted_tensor, run_lockstep
from graphclone.maps import Maps, widened_inputs
from graphclone.pipeline import State
from graphclone.progress import Progress, silent
from graphclone.sessions import Provider, Session, check_provider
from graphclone.verify import exact_check, perturbed
from graphclone.verify_files import NAME, DrawnInputs, Feeds, rounding_floor, shaken_runs, shapes_of

if TYPE_CHECKING:
    from graphclone.cloning import Clone

EXACT_LIMIT = 200_000_000
"""Parameters of the largest clone whose every value is computed in float64."""


def verify_onnx_model(
    clone: Clone,
    *,
    provider: Provider = "auto",
    onnx: bool | Path = True,
    exact: bool = True,
    sets: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare the clone of an ONNX file with the file.

    Args:
        clone: to be verified.
        provider: what ONNX Runtime runs on; ``auto`` is CUDA where there is a GPU.
        onnx: the file that the clone has been written to, if it has been; a temporary one is written if not.
        exact: whether to compare all values in float64.
        sets: how many input sets.
        seed: of the inputs.
        progress: told how far it is.

    Raises:
        GraphcloneError: the source accepts no inputs of the types it declares, or ``provider`` is not there.
    """
    check_provider(provider)
    advance = progress or silent
    state = clone.state
    advance("static", 0, 3)
    checks = [check_static(state)]
    with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder, torch.no_grad():
        origin: Origin = state.graph.origin
        source = Session(origin.path, provider)
        drawn = list(DrawnInputs(source, None).draw(sets, seed))
        inputs = [[to_torch(feeds[value.name]) for value in state.graph.inputs] for feeds in drawn]
        if exact and checks[0].ok:
            advance("float64", 1, 3)
            checks.append(check_exact(state, inputs))
        if not any(check.first for check in checks):
            advance("ONNX Runtime", 2, 3)
            moved = shaken_runs(origin.path, Path(folder) / "shaken.onnx", drawn, provider, seed)
            path = onnx if isinstance(onnx, Path) else _written(state, Path(folder) / "clone.onnx")
            exactly = checks[-1].name == "exact" and checks[-1].ok
            truths = [_truth(state, tensors) if exactly else None for tensors in inputs]
            runs = _Runs(state, source, path, provider)
            checks.append(runs.check(list(zip(drawn, moved, inputs, truths, strict=True))))
    advance("done", 3, 3)
    sizes = tuple(f"{shapes_of(feeds)} (seed {seed + i})" for i, feeds in enumerate(drawn))
    return Report(clone.graph.name, tuple(checks), sizes)


def _written(state: State, path: Path) -> Path:
    write(to_model(state), path)
    return path


def check_static(state: State) -> Check:
    """Every tensor of the clone, as onnx infers its shape, has the shape that was predicted."""
    origin: Origin = state.graph.origin
    try:
        reading = read(to_model(state), state.graph.name, origin.reading.assignment)
    except GraphcloneError as error:
        first = Deviation("the clone", "", "", float("inf"), str(error))
        return Check("static", False, str(first), first=first)
    found = {value.name: fact.shape for value, fact in reading.facts.items()}
    values = [value for node in state.graph.nodes for value in node.outputs if value.is_tensor and value.name in found]
    for value in values:
        if found[value.name] != value.shape:
            assert value.producer is not None
            detail = f"shape {found[value.name]}, predicted {value.shape}"
            first = Deviation.at(value.producer, value.name, float("inf"), detail)
            return Check("static", False, str(first), first=first)
    return Check("static", True, f"all {len(values)} values have the predicted shape", {"values": len(values)})


def check_exact(state: State, inputs: Sequence[Sequence[torch.Tensor]]) -> Check:
    """Every value in float64, on two input sets, and once with other weights."""
    count = sum(i.value.elements for i in state.graph.initializers)
    if count > EXACT_LIMIT:
        return Check("exact", None, f"not checked: {count:,} parameters are too many to run in float64")
    runs = [(tensors, lifted_tensor) for tensors in inputs[:2]]
    runs.append((inputs[0], perturbed))
    found: list[Lockstep] = []
    for tensors, source in runs:
        try:
            found.append(run_lockstep(state, [lifted(tensor) for tensor in tensors], read=source))
        except ExecutionError as error:
            return Check("exact", None, f"not checked: {error}", {"reason": str(error)})
        if found[-1].first is not None:
            break
    return exact_check(found)


def _truth(state: State, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the source returns in float64."""
    assert state.source is not None
    return outputs(state.source, Lazy(state.source, lifted_tensor), [lifted(tensor) for tensor in tensors], lift=True)


_Sample = tuple[Feeds, Sequence[Feeds], Sequence[torch.Tensor], Sequence[torch.Tensor] | None]
"""An input set, what the source gives for it with other rounding, the same as tensors, and the outputs in float64."""


class _Runs:
    """The source and the clone side by side in ONNX Runtime."""

    def __init__(self, state: State, source: Session, clone: Path, provider: Provider) -> None:
        self.state = state
        self.source = source
        self.clone = clone
        self.provider = provider

    def check(self, samples: Sequence[_Sample]) -> Check:
        """Compare the outputs on every input set with what rounding makes of the source's."""
        try:
            wide = Session(self.clone, self.provider)
            measured = [list(self.compared(wide, sample)) for sample in samples]
        except GraphcloneError as error:
            first = Deviation("the clone", "", "", float("inf"), str(error))
            return Check(NAME, False, str(first), {"provider": self.source.provider}, first=first)
        check = judge(NAME, measured, provider=wide.provider)
        return replace(check, summary=f"{wide.provider}: {check.summary}")

    def compared(self, wide: Session, sample: _Sample) -> Iterator[NoiseFloor]:
        """The errors of all outputs on one input set: against float64 where that is known, else against the source."""
        feeds, others, tensors, truths = sample
        own = self.source.run(feeds)
        widened = zip(self.state.graph.inputs, widened_inputs(self.state, tensors), strict=True)
        found = wide.run({value.name: to_array(tensor) for value, tensor in widened})
        maps = Maps(self.state, tensors)
        for index, (name, value) in enumerate(output_tensors(self.state.graph)):
            expected, got = lifted(to_torch(own[name])), to_torch(found[name])
            truth = expected if truths is None else truths[index]
            moved = [lifted(to_torch(other[name])) for other in others]
            clone = (maps.widened(value, truth), lifted(got))
            yield rounding_floor(name, truth, [expected, *moved], clone, got.dtype)
