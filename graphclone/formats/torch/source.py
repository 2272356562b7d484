"""Torch modules as sources: one in memory, and one that a function builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.clones.clone import Clone
from graphclone.clones.source import After, traced, widened
from graphclone.clones.traced import Traced
from graphclone.errors import GraphcloneError, one_line
from graphclone.formats.torch import into
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.format import torch_format
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Graph
from graphclone.models import Built
from graphclone.pipeline.runner import Pass
from graphclone.pipeline.state import Request
from graphclone.runtime import collector


@dataclass(frozen=True)
class ModuleSource:
    """A module in memory, with the inputs that it is traced with.

    Attributes:
        name: the user's, or the module's class.
        module: in the mode that it is to be traced in (eval, as a rule).
        args: positional example inputs.
        kwargs: example inputs by name.
        dynamic_axes: axes of inputs of floats that may vary, by the name of an input.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".pt2", ".safetensors")

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    dynamic_axes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def _graph(self) -> Graph:
        return trace_module(self.module, self.args, self.kwargs, name=self.name, dynamic_axes=self.dynamic_axes)

    @collector.seldom()
    def trace(self, widen_io: Sequence[str] = ()) -> Traced:
        """The module traced, and its dims found; see ``Source.trace``."""
        return traced(self._graph, widen_io)

    @collector.seldom()
    def clone(self, request: Request, *, passes: Sequence[Pass] | None = None, after: After | None = None) -> Clone:
        """The module widened; see ``Source.clone``."""
        return Clone(
            *widened(self._graph, request, passes, after), torch_format(Example(self.args, self.kwargs, self.module))
        )

    @collector.seldom()
    def clone_into(self, big: nn.Module, request: Request, *, after: After | None = None) -> Clone:
        """The module widened to the widths of another instance of its code, whose weights are overwritten.

        Raises:
            GraphcloneError: the other module is none that this one can become.
        """
        into.check_wide(self.module, big, request)
        if self.dynamic_axes:
            raise GraphcloneError("dynamic_axes: the wide module of into= is the user's own, and takes what that takes")
        state, timings = into.cloned(self.module, big, self.args, self.kwargs, self.name, request, after)
        return Clone(state, timings, torch_format(Example(self.args, self.kwargs, self.module, big)))


@dataclass(frozen=True)
class FunctionSource:
    """A module that a function builds; nothing is allocated before it is called.

    Attributes:
        name: as the user wrote it.
        make: returns ``(module, args)`` or ``(module, args, kwargs)``.
        weights: the folder of a DCP checkpoint with its state dict, if that is to be read.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".pt2", ".safetensors")

    name: str
    make: Callable[[], Any]
    weights: Path | None = None

    def build(self) -> Built:
        """The module in eval mode, with its example inputs.

        Raises:
            GraphcloneError: it cannot be made, or is no model.
        """
        try:
            result = self.make()
        except GraphcloneError:
            raise
        except Exception as error:  # it is the user's own code
            raise GraphcloneError(f"{self.name}: building the model failed: {one_line(error)}") from error
        built = _checked(self.name, result)
        if self.weights is not None:
            from graphclone.formats.torch.dcp import load_dcp

            load_dcp(built.module, self.weights)
        return built

    def _built(self) -> ModuleSource:
        return ModuleSource(self.name, *self.build())

    def trace(self, widen_io: Sequence[str] = ()) -> Traced:
        """The model traced without allocating its weights, where it can be built that way; see ``Source.trace``.

        Weights are fake: they have a shape and a dtype but no data. Code that looks at the data of a weight
        while it builds or runs the model cannot run on those; such a model is then built in full.
        """
        try:
            with FakeTensorMode(allow_non_fake_inputs=True):
                return replace(self, weights=None)._built().trace(widen_io)
        except GraphcloneError as refusal:
            if not isinstance(refusal.__cause__, Exception):
                raise
        model = self._built().trace(widen_io)
        model.graph.notes.append("built with its weights: it cannot be built or traced without them")
        return model

    def clone(self, request: Request, *, passes: Sequence[Pass] | None = None, after: After | None = None) -> Clone:
        """The model built and widened; see ``Source.clone``."""
        return self._built().clone(request, passes=passes, after=after)


def _checked(name: str, result: Any) -> Built:
    """What a function returned, if it is a model with its inputs."""
    expected = "expected (module, args) or (module, args, kwargs)"
    if inspect.iscoroutine(result):
        result.close()
        raise GraphcloneError(f"{name}: an async function; give one that returns (module, args) at once")
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        raise GraphcloneError(f"{name}: not a model: {expected}, got {_described(result)}")
    module, args, kwargs = (*result, {})[:3]
    if not isinstance(module, nn.Module):
        raise GraphcloneError(f"{name}: not a model: {expected}, but the module is {_described(module)}")
    if not isinstance(args, tuple | list):
        raise GraphcloneError(f"{name}: the args must be a tuple of inputs, got {_described(args)}")
    if not isinstance(kwargs, Mapping):
        raise GraphcloneError(f"{name}: the kwargs must be a dict of inputs, got {_described(kwargs)}")
    return Built(module.eval(), tuple(args), dict(kwargs))


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return type(value).__name__.removeprefix("Fake")
