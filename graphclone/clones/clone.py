"""The public face: trace a model, look at its dims, widen it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone.algebra.strategies import StrategyLike
from graphclone.algebra.strategies import strategy as resolve_strategy
from graphclone.analysis.dims import Group, dims, groups
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.reader import trace as trace_torch
from graphclone.graph.ir import Graph
from graphclone.passes import analysis, default_pipeline
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.runner import Pass, Timing, run
from graphclone.pipeline.state import Request, State, Widen
from graphclone.runtime import collector
from graphclone.verification.lockstep import lazily_widened, widened_tensors

if TYPE_CHECKING:
    from graphclone.formats.onnx.drawn_inputs import Given
    from graphclone.formats.torch.verifier import Report


@dataclass(frozen=True)
class Traced:
    """A traced model and what is known about its dims.

    Attributes:
        state: the graph and the facts.
        timings: of the passes.
    """

    state: State
    timings: Sequence[Timing]

    @property
    def graph(self) -> Graph:
        return self.state.graph

    @cached_property
    def dims(self) -> list[Group]:
        """Its dims, grouped by what they are called but for layer numbers."""
        return groups(dims(self.state.facts))


@dataclass(frozen=True)
class Clone(Traced):
    """A widened model. Nothing is computed before it is asked for.

    Attributes:
        state: the widened graph, with the source's graph as ``state.source``.
        timings: of the passes.
        args: the positional example inputs it was traced with.
        kwargs: the example inputs by name.
        model: the source itself; None where it is no module in memory.
        into: the wide module whose widths were taken, if there is one.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    model: torch.nn.Module | None = None
    into: torch.nn.Module | None = None

    def factors(self, group: Group) -> tuple[int, ...]:
        """By how much every dim of a group grew."""
        find, growth_of = self.state.facts.axes.find, self.state.growth_of
        return tuple(growth_of(find(dim.axis)).new_size // dim.size for dim in group.dims)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The widened tensors under the source's names; tied ones share their storage."""
        tensors = widened_tensors(self.state)
        return {
            name: tensors[initializer.value]
            for initializer in self.graph.initializers
            if initializer.kind != "constant"
            for name in initializer.names
        }

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The entries of ``state_dict()`` one by one, each made when it is asked for and held by nobody else."""
        lazy = lazily_widened(self.state, lambda initializer: initializer.read().detach())
        for initializer in self.graph.initializers:
            if initializer.kind != "constant":
                tensor = lazy[initializer.value]
                yield from ((name, tensor) for name in initializer.names)

    def module(self) -> torch.fx.GraphModule:
        """The widened model as a trainable module in eval mode, called as the source is.

        It refuses inputs that the trace does not hold for (``InputError``, a ``ValueError``). Where the code asks
        whether a size is 1, the source is run once on such inputs, to see whether it does.
        """
        from graphclone.formats.torch.trace_check import settle
        from graphclone.formats.torch.writer import to_module

        settle(self)
        return to_module(self.graph, widened_tensors(self.state))

    def save_onnx(self, path: str | Path) -> None:
        """Write the widened model as ONNX.

        Raises:
            GraphcloneError: torch cannot export it to ONNX.
        """
        from graphclone.formats.torch.export_onnx import save_onnx

        save_onnx(self, Path(path))

    def save(self, path: str | Path) -> None:
        """Write the widened model as an exported program (``.pt2``)."""
        from graphclone.formats.torch.writer import save_program

        save_program(self, Path(path))

    def verify(self, **options: Any) -> Report:
        """Check that source and clone compute the same; see ``graphclone.formats.torch.verifier.verify``."""
        from graphclone.formats.torch.verifier import verify

        return verify(self, **options)


@dataclass(frozen=True)
class OnnxClone(Clone):
    """A widened ONNX file, which can be written as ONNX only.

    Attributes:
        inputs: arrays, or sizes, of inputs that the file accepts, by name, to verify it on.
    """

    inputs: Given = field(default_factory=dict)

    def module(self) -> torch.fx.GraphModule:
        """There is none.

        Raises:
            GraphcloneError: always.
        """
        raise GraphcloneError(f"{self.graph.name}: a clone of an ONNX file has no torch module; write it as .onnx")

    def save_onnx(self, path: str | Path) -> None:
        """Write the widened file, with its weights in ``<name>.data`` beside it where they are too many for one.

        Raises:
            GraphcloneError: the file cannot be written.
        """
        from graphclone.formats.onnx.writer import to_model
        from graphclone.formats.torch.export_onnx import write

        write(to_model(self.state), Path(path))

    def save(self, path: str | Path) -> None:
        """There is no program to save.

        Raises:
            GraphcloneError: always.
        """
        raise GraphcloneError(f"{path}: a clone of an ONNX file is no torch program; write it as .onnx")

    def verify(self, **options: Any) -> Report:
        """Check that file and clone compute the same; see ``graphclone.formats.onnx.verifier``."""
        from graphclone.formats.onnx.verifier import verify_onnx_model

        return verify_onnx_model(self, **options)


@collector.seldom()
def trace(
    model: torch.nn.Module | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    widen_io: Sequence[str] = (),
    inputs: Given | None = None,
    name: str | None = None,
) -> Traced:
    """Trace a model and find its dims, without widening anything.

    Args:
        model: in the mode it is to be traced in (eval, as a rule); or the path of an ``.onnx`` file.
        args: positional example inputs.
        kwargs: keyword example inputs.
        widen_io: patterns of names of inputs and outputs that may grow.
        inputs: of an ``.onnx`` file, by name: arrays, or sizes, that it accepts; they are found by trying otherwise.
        name: for messages.

    Raises:
        GraphcloneError: torch.export refuses the model, or the file cannot be read.
    """
    _check(model, 1, widen_io)
    _check_inputs(model, inputs)
    state = State(_graph(model, args, kwargs, inputs, name), Request(widen_io=tuple(widen_io)))
    return Traced(state, run(analysis(), state))


@collector.seldom()
def clone(  # noqa: PLR0913 (all but the first three are keywords)
    model: torch.nn.Module | str | Path,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    widen: Widen = 2,
    widen_io: Sequence[str] = (),
    strategy: StrategyLike = "symmetric",
    snr_db: float | None = None,
    seed: int = 0,
    untie: bool = False,
    into: torch.nn.Module | None = None,
    inputs: Given | None = None,
    passes: Sequence[Pass] | None = None,
    after: Callable[[Pass, State], None] | None = None,
    name: str | None = None,
) -> Clone:
    """Widen a model without changing what it computes (HyperCloning, arXiv 2409.12903).

    Args:
        model: the source, which is left as it is; or the path of an ``.onnx`` file, which takes ``inputs`` instead.
        args: positional example inputs to trace it with.
        kwargs: keyword example inputs.
        widen: a factor for every dim that grows by default, or a factor per dim or group (``trace(..).dims``).
        widen_io: patterns of names of inputs and outputs that may grow.
        strategy: a name, a matrix, a callable or a ``Strategy``; see ``graphclone.algebra.strategies``.
        snr_db: signal-to-noise ratio of a noisy strategy, in decibels.
        seed: of the noise.
        untie: give a weight that is both looked up and contracted one copy for each use.
        into: a wider instance of the same code, whose widths are taken in place of ``widen``. Its weights are
            overwritten with the clone's, unless it is on the meta device: then ``Clone.tensors()`` streams them.
        inputs: of an ``.onnx`` file, by name: arrays, or sizes, that it accepts; they are found by trying otherwise.
        passes: the pipeline, if not the default.
        after: called after every pass.
        name: for messages.

    Raises:
        GraphcloneError: the model cannot be traced, or not widened as asked.
    """
    _check(model, widen, widen_io)
    _check_inputs(model, inputs)
    request = Request(widen, tuple(widen_io), resolve_strategy(strategy, snr_db), seed, untie)
    if into is not None:
        if not isinstance(model, torch.nn.Module):
            raise GraphcloneError(f"into=: {model} is a file; give two instances of a torch.nn.Module")
        return _clone_into(model, into, args, kwargs, request, after, name)
    state = State(_graph(model, args, kwargs, inputs, name), request)
    timings = run(default_pipeline() if passes is None else passes, state, goal=CLONED, after=after)
    if isinstance(model, torch.nn.Module):
        return Clone(state, timings, tuple(args), kwargs, model)
    return OnnxClone(state, timings, inputs=inputs or {})


def _graph(
    model: torch.nn.Module | str | Path,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    inputs: Given | None,
    name: str | None,
) -> Graph:
    if isinstance(model, torch.nn.Module):
        return trace_torch(model, args, kwargs, name=name)
    from graphclone.formats.onnx.reader import trace as trace_onnx

    given: Mapping[str, Any] = inputs or {}
    shapes = {port: getattr(item, "shape", item) for port, item in given.items()}
    return trace_onnx(Path(model), name=name, shapes=shapes)


def _clone_into(
    model: torch.nn.Module,
    big: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    request: Request,
    after: Callable[[Pass, State], None] | None,
    name: str | None,
) -> Clone:
    from graphclone.formats.torch import into

    into.check_into(model, big, request)
    small, wide = into.traced_alike(model, big, args, kwargs, name or type(model).__name__)
    state = State(small, replace(request, untie=into.untied(small, wide)))
    timings = into.match(state, wide, after)
    into.load(state, big)
    return Clone(state, timings, tuple(args), kwargs, model, big)


def _check_inputs(model: object, inputs: object) -> None:
    """Refuse inputs by name where there are none, or that are not by name."""
    if inputs is not None and isinstance(model, torch.nn.Module):
        raise GraphcloneError("inputs=: is for .onnx files; give a module its example inputs as args and kwargs")
    if inputs is not None and not isinstance(inputs, Mapping):
        raise GraphcloneError(f"inputs={inputs!r}: give a dict of arrays, or of sizes, by the names of inputs")


def _check(model: object, widen: object, widen_io: object) -> None:
    """Refuse arguments that can mean nothing, in the user's words."""
    if not isinstance(model, torch.nn.Module) and not (isinstance(model, str | Path) and Path(model).suffix == ".onnx"):
        got = f"{str(model)!r}" if isinstance(model, str | Path) else type(model).__name__
        raise GraphcloneError(f"the model must be a torch.nn.Module or the path of an .onnx file, got {got}")
    if not isinstance(widen, int | Mapping):
        raise GraphcloneError(f"widen={widen!r}: give a whole number, or a dict of whole numbers by dim")
    if isinstance(widen_io, str):
        raise GraphcloneError(f"widen_io={widen_io!r}: give a list of names, [{widen_io!r}]")
