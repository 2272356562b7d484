"""Source and clone side by side in ONNX Runtime, both exported by the same code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.saving import write_model
from graphclone.formats.onnx.tensors import to_array, to_torch
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export_onnx import to_onnx
from graphclone.formats.torch.input_sets import clone_examples
from graphclone.formats.torch.samples import Sample, compare
from graphclone.formats.torch.writer import to_module
from graphclone.graph.ir import Graph, Value, values_in
from graphclone.pipeline.state import State
from graphclone.runtime.arrays import Array
from graphclone.runtime.interpreter import output_tensors
from graphclone.runtime.maps import widened_inputs
from graphclone.runtime.sessions import NoProviderError, Provider, Session
from graphclone.verification.checks import ONNX_RUNTIME, Check, NoiseFloor, judge, noise_floor, refused_clone

_EXPORT_SLACK = 64.0
"""How much farther than torch an exported source may be from float64 before its export is taken to be wrong."""


def check_onnx(
    state: State,
    example: Example,
    tensors: Mapping[Value, torch.Tensor],
    samples: Sequence[Sample],
    provider: Provider,
    onnx: bool | Path,
) -> Check:
    """Export both, run them on every input set, and judge the outputs as in torch.

    Args:
        state: of the clone to be verified.
        example: the inputs to export it with.
        tensors: the data of its initializers.
        samples: input sets, with what the source gives for them.
        provider: what ONNX Runtime runs on.
        onnx: the file of the clone, where there is one already.

    Returns:
        A check that was not made where a model cannot be exported, loaded or run.

    Raises:
        NoProviderError: the provider is not there.
    """
    if samples[0].draws:
        reason = "the model draws random numbers, and ONNX Runtime draws others"
        return Check(ONNX_RUNTIME, None, f"not checked: {reason}", {"reason": reason})
    with tempfile.TemporaryDirectory(prefix="graphclone-", ignore_cleanup_errors=True) as folder:
        try:
            source = _source_session(state, example, Path(folder) / "source.onnx", provider)
            if isinstance(onnx, Path):
                return _of_file(onnx, state, source, provider, samples)
            wide = Session(_export(state, example, tensors, Path(folder) / "clone.onnx"), provider)
            return _Runs(state, source, wide).check(samples)
        except NoProviderError:
            raise
        except GraphcloneError as error:
            return Check(ONNX_RUNTIME, None, f"not checked: {error}", {"reason": str(error)})


def _of_file(path: Path, state: State, source: Session, provider: Provider, samples: Sequence[Sample]) -> Check:
    """The check of a file of the clone; that it cannot be loaded where the source can is an error of its own."""
    try:
        wide = Session(path, provider)
    except NoProviderError:
        raise
    except GraphcloneError as error:
        return refused_clone(ONNX_RUNTIME, str(error), provider=source.provider)
    return _Runs(state, source, wide).check(samples)


def _source_session(state: State, example: Example, path: Path, provider: Provider) -> Session:
    source = state.model
    module = to_module(source, {i.value: i.read().detach() for i in source.initializers})
    write_model(to_onnx(source, module, example.args, example.kwargs), path)
    return Session(path, provider)


def _export(state: State, example: Example, tensors: Mapping[Value, torch.Tensor], path: Path) -> Path:
    args, kwargs = clone_examples(state, example)
    write_model(to_onnx(state.graph, to_module(state.graph, tensors), args, kwargs), path)
    return path


class _Runs:
    """Both sessions, and what they return for every sample."""

    def __init__(self, state: State, source: Session, wide: Session) -> None:
        self.state = state
        self.source = source
        self.wide = wide
        self.skipped: list[str] = []

    def check(self, samples: Sequence[Sample]) -> Check:
        measured: list[list[NoiseFloor]] = []
        for sample in samples:
            own = self.own(sample)
            if own is None:
                continue
            if (wrong := self.misexported(sample, own)) is not None:
                return Check(ONNX_RUNTIME, None, wrong, {"reason": wrong, "provider": self.wide.provider}, open=True)
            try:
                wide = self.run(self.wide, self.state.graph, widened_inputs(self.state, sample.inputs.tensors))
            except GraphcloneError as error:
                return refused_clone(ONNX_RUNTIME, f"{error}, on {sample.inputs}", provider=self.wide.provider)
            measured.append(compare(self.state, sample, own, wide))
        if not measured:
            reason = f"the exported source cannot be run: {self.skipped[0]}"
            return Check(ONNX_RUNTIME, None, f"not checked: {reason}", {"reason": reason})
        check = judge(ONNX_RUNTIME, measured, provider=self.wide.provider, skipped=self.skipped)
        skipped = f"; skipped: {'; '.join(self.skipped)}" if self.skipped else ""
        return replace(check, summary=f"{self.wide.provider}: {check.summary}{skipped}")

    def own(self, sample: Sample) -> list[torch.Tensor] | None:
        """What the source returns; None where its export refuses inputs that the source takes."""
        try:
            return self.run(self.source, self.state.model, sample.inputs.tensors)
        except GraphcloneError as error:
            self.skipped.append(f"{error}, on {sample.inputs}")
            return None

    def misexported(self, sample: Sample, own: Sequence[torch.Tensor]) -> str | None:
        """The output of the exported source that differs from torch by more than rounding, and by how much."""
        for (name, _), exact, ours, exported in zip(
            output_tensors(self.state.graph), sample.exact, sample.own, own, strict=True
        ):
            floor = noise_floor(name, (exact, ours), (exact, exported))
            if floor.allows(_EXPORT_SLACK) is False:
                return f"the export of the source itself is off in {name}: {floor}, on {sample.inputs}"
        return None

    @staticmethod
    def run(session: Session, graph: Graph, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The tensors that a session returns, in the order of the graph's outputs."""
        arrays = session.run(feeds(session, graph, inputs)).values()
        values = [value for output in graph.outputs for value in values_in(output.operand)]
        pairs = zip(values, arrays, strict=True)
        return [to_torch(array) for value, array in pairs if value.is_tensor]


def feeds(session: Session, graph: Graph, inputs: Sequence[torch.Tensor]) -> dict[str, Array]:
    """Tensors under the names by which a session is fed.

    Raises:
        GraphcloneError: the session is not of this graph, or numpy has no such type.
    """
    names = [value.name for value in graph.inputs]
    if [port.name for port in session.inputs] != names:
        raise GraphcloneError(f"the model is fed {', '.join(p.name for p in session.inputs)}, not {', '.join(names)}")
    pairs = zip(session.inputs, inputs, strict=True)
    return {port.name: to_array(tensor).astype(port.dtype, copy=False) for port, tensor in pairs}
