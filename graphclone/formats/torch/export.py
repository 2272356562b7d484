"""torch.export, until the program it makes is the user's model on the user's inputs."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from traceback import walk_tb
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export._tree_utils import reorder_kwargs
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError, causes, one_line
from graphclone.formats.torch.decompose import decompose
from graphclone.formats.torch.exact_quotients import exact_quotients, has_fractions
from graphclone.formats.torch.example_inputs import (
    count_by_position,
    dynamic_axes,
    dynamic_shapes,
    in_order,
    keywords_named,
    lengths_in_common,
    renamed_sizes,
    separate_tensors,
    with_fresh_sizes,
)
from graphclone.formats.torch.forgetting import forgotten
from graphclone.formats.torch.guards import Guards, decisions, guards_of
from graphclone.formats.torch.kinds import INTEGER, Asked, dtypes_asked
from graphclone.formats.torch.of_one_run import of_one_run
from graphclone.formats.torch.own_decisions import own_decisions
from graphclone.formats.torch.own_gradients import grad_modes, inference_modes, own_gradients
from graphclone.formats.torch.recurrences import any_length
from graphclone.formats.torch.traceable import traceable_torch
from graphclone.formats.torch.untouched import untouched
from graphclone.runtime.quiet import quiet


@dataclass(frozen=True)
class Exported:
    """A program that is the model on the example inputs.

    Attributes:
        program: as torch.export made it.
        guards: what other inputs it holds for.
        gradients: the names of code that computes its gradients in its own way, which the program does not.
        kept: what is constant in the program, and may be otherwise in another run.
        deciding: the names of buffers by which the code decides, and the program no more.
        failure: why it holds for fewer than was tried; empty where it does not.
        settled: whether runs of the model have told what a trace leaves open.
        confirmed: whether runs of the model gave what the program gives.
    """

    program: ExportedProgram
    guards: Guards
    gradients: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    deciding: tuple[str, ...] = ()
    failure: str = ""
    settled: bool = False
    confirmed: bool = False


def export(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    name: str,
    *,
    dynamic: bool = True,
    lengths: Collection[int] = (),
) -> Exported:
    """Export a module, dynamic where that can be, with sizes that differ from all widths, where that can be.

    Args:
        module: is left as it is.
        args: positional example inputs.
        kwargs: example inputs by name.
        name: for messages.
        dynamic: whether other sizes are to be allowed at all.
        lengths: sizes that are to vary in inputs of floats, too, beside those that several inputs have in common.

    Raises:
        GraphcloneError: torch.export refuses the module.
    """
    (exported,) = export_alike({name: module}, args, kwargs, dynamic=dynamic, lengths=lengths)
    return exported


def export_alike(
    modules: Mapping[str, torch.nn.Module],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    dynamic: bool = True,
    lengths: Collection[int] = (),
) -> list[Exported]:
    """Export several modules on the same inputs, of the same sizes.

    A program counts only if it holds for the example inputs themselves. If the code reads a size, so that it does not,
    that size is kept as it was given; if that does not help all sizes are, at the end statically. What torch.export
    refuses altogether is tried in its strict mode, too, which reads the code instead of running it; so is what it fixes
    sizes of, since Python makes a number of what it runs ``len`` or ``int`` on.

    Raises:
        GraphcloneError: torch.export refuses one of them.
    """
    for name, module in modules.items():
        _check_readable(name, module)
    keywords = in_order(next(iter(modules.values())), kwargs)
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller has on, which is not the model's
        inputs = separate_tensors((args, keywords))
        search = _Search(modules, inputs, lengths)
        if (programs := search.run(dynamic=dynamic)) is not None:
            search = _Search(modules, inputs, lengths, strict=True)
            return (search.freer(programs) if dynamic else None) or programs
        search.strict = True
        if (programs := search.run(dynamic=dynamic)) is not None:
            return programs
    raise search.refusal()


Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Inputs of a module, positional and by name."""


@dataclass(frozen=True)
class _Attempt:
    """A way to call torch.export.

    Attributes:
        inputs: to trace with.
        varying: whether their sizes may vary; None leaves it to torch.export, which takes them for fixed symbols.
        lengths: sizes that may vary in float inputs, too.
    """

    inputs: Inputs
    varying: bool | None = True
    lengths: Collection[int] = ()


class _Search:
    """Attempts at an export, the most general first."""

    def __init__(
        self, modules: Mapping[str, torch.nn.Module], inputs: Inputs, lengths: Collection[int], *, strict: bool = False
    ) -> None:
        self.modules = modules
        self.example = inputs
        self.lengths = set(lengths)
        self.strict = strict
        self.weight_sizes = {size for module in modules.values() for t in _tensors(module) for size in t.shape}
        self.blamed: set[int] = set()
        self.reason = ""
        self.refused: tuple[str, Exception] | None = None

    def run(self, *, dynamic: bool) -> list[Exported] | None:
        """What the first attempt that succeeds gives."""
        static = (_Attempt(self.example, varying=None), _Attempt(self.example, varying=False))
        for attempt in self.attempts() if dynamic else static:
            if (programs := self.attempted(attempt)) is not None:
                return programs
        return None

    def freer(self, found: Sequence[Exported]) -> list[Exported] | None:
        """What leaves more sizes free than was found, where some are fixed that should not be.

        An error says nothing of the size it is about, so that after one the sizes stay as they were given. Without
        numbers to run with nothing would tell whether it is the model for single elements.
        """
        if not all(map(self.has_numbers, self.modules)):
            return None
        tensors = [leaf for leaf in pytree.tree_leaves(self.example) if torch.is_tensor(leaf)]
        wanted = len(self.modules) * sum(len(dynamic_axes(tensor, self.lengths)) for tensor in tensors)
        if _free_sizes(found) >= wanted:
            return None
        common = lengths_in_common(self.example) - self.lengths
        for lengths in [self.lengths | common, self.lengths] if common else [self.lengths]:
            self.reason = ""
            for attempt in chain(self.attempts_at_fresh_sizes(lengths), [_Attempt(self.example, lengths=lengths)]):
                programs = self.attempted(attempt)
                if programs is None or _free_sizes(programs) <= _free_sizes(found):
                    continue
                return None if any(map(_has_fractions, programs)) else programs
        return None

    def attempted(self, attempt: _Attempt) -> list[Exported] | None:
        """What one attempt gives; None where it fails or does not hold."""
        try:
            programs = [self.settled(name, self.export(name, attempt)) for name in self.modules]
        except Exception as error:  # torch.export raises whatever the model's own code raises
            self.reason = self.reason or one_line(error)
            return None
        if not all(self.holds(exported) for exported in programs):
            return None
        return [replace(exported, failure=self.reason) for exported in programs]

    def attempts(self) -> Iterator[_Attempt]:
        """The most general attempts first. A size that the last one stumbled over is constant from then on.

        A float input may share a length with an integer one by chance, so what fails for that reason says nothing.
        """
        before = self.reason
        common = lengths_in_common(self.example) - self.lengths
        if common:
            yield from self.attempts_at_fresh_sizes(self.lengths | common)
            self.reason = before
        if self.lengths:
            yield from self.attempts_at_fresh_sizes(self.lengths)
        yield from self.attempts_at_fresh_sizes()
        if lengths := self.lengths | common:
            yield _Attempt(self.example, lengths=lengths)
        yield _Attempt(self.example)
        yield _Attempt(self.example, varying=None)
        yield _Attempt(self.example, varying=False)

    def attempts_at_fresh_sizes(self, lengths: Collection[int] = ()) -> Iterator[_Attempt]:
        constant: set[int] = set()
        while True:
            self.blamed = set()
            inputs = with_fresh_sizes(self.example, self.weight_sizes, constant, lengths)
            yield _Attempt(inputs, lengths=renamed_sizes(self.example, inputs, lengths))
            if self.blamed <= constant:
                break
            constant |= self.blamed

    def export(self, name: str, attempt: _Attempt) -> Exported:
        module, (args, kwargs), varying, strict = self.modules[name], attempt.inputs, attempt.varying, self.strict
        try:
            with (
                quiet(),
                nullcontext() if strict else _graph_alone(),
                untouched(module),
                forgotten(module),
                keywords_named(module, kwargs),
                traceable_torch(),
                exact_quotients(),
                any_length(),
                nullcontext() if strict else grad_modes(),
                own_gradients(module) as gradients,
                decisions() as questions,
                of_one_run() as kept,
                own_decisions(None if strict else module, varying=varying is True) as deciding,
                nullcontext(Asked(integers=True)) if strict else dtypes_asked() as asked,
            ):
                shapes = None
                if varying is not None:
                    shapes = dynamic_shapes(module, args, kwargs, varying=varying, lengths=attempt.lengths)
                program = torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=strict)
            if not any(isinstance(tensor, FakeTensor) for tensor in _tensors(module)):
                _check_constants(program)
        except Exception as error:
            if not self.strict:  # that mode tells what it cannot read; of the others the last one asks for least
                self.refused = name, error
            raise
        with quiet(), decisions(of_torch=True) as further:
            if _has_transforms(program):
                program = program.run_decompositions({})
            decompose(program)
        by_position = count_by_position(module, args, kwargs)
        guards = guards_of(program, None if strict else [*questions, *further])
        kinds_asked = frozenset([INTEGER] if asked.integers else [])
        guards = replace(guards, kinds_asked=kinds_asked, by_position=by_position)
        gradients |= self.cut_gradients(name) if strict else set()
        constant = tuple(dict.fromkeys(kept)), tuple(dict.fromkeys(deciding))
        return Exported(program, guards, tuple(sorted(gradients)), *constant)

    def settled(self, name: str, exported: Exported) -> Exported:
        """A strict program, which doubts every size of 1, without those of the example that the module has as well."""
        if not self.strict:
            return exported
        leaves = input_leaves(exported.program, *self.example)
        single = [doubt for doubt in exported.guards.doubts if leaves[doubt.input].shape[doubt.axis] == doubt.size == 1]
        if not single or not self.agrees(name, exported):
            return exported
        guards = exported.guards
        for doubt in single:
            guards = guards.without(doubt)
        return replace(exported, guards=guards)

    def agrees(self, name: str, exported: Exported) -> bool:
        """Whether a program gives for the example what the module does; not if there are no numbers to run with."""
        if not self.has_numbers(name):
            return False
        results = []
        for run in (self.modules[name], exported.program.module(check_guards=False)):
            args, kwargs = copy.deepcopy(self.example)
            with quiet(), untouched(self.modules[name]), torch.no_grad():
                torch.manual_seed(0)
                results.append(pytree.tree_leaves(run(*args, **kwargs)))
        pairs = [(a, b) for a, b in zip(*results, strict=True) if torch.is_tensor(a)]
        return all(a.shape == b.shape and torch.allclose(a, b, 1e-4, 1e-5, equal_nan=True) for a, b in pairs)

    def holds(self, exported: Exported) -> bool:
        """Whether a program holds for the given inputs; if not, the sizes to blame are noted."""
        leaves = input_leaves(exported.program, *self.example)
        violations = list(exported.guards.violations(leaves))
        for violation in violations:
            self.reason = self.reason or violation.cause
            self.blamed |= {leaves[position].shape[axis] for position, axis in violation.axes}
        return not violations

    def refusal(self) -> GraphcloneError:
        """Why nothing could be exported, and what is left to do."""
        assert self.refused is not None
        name, error = self.refused
        if any(isinstance(part, torch.jit.ScriptModule) for part in self.modules[name].modules()):
            return GraphcloneError(f"{name}: {_SCRIPTED}")
        if (reason := self.refused_by_module(name)) is not None:
            return GraphcloneError(f"{name}: refuses these example inputs, even without a trace: {reason}")
        unknown = re.search(r"Found <class '[\w.]*?(\w+)'> in output", str(error))
        reason = f"torch.export failed{_place(error)}: {_said(error)}; {_WAY_LEFT}"
        refusal = GraphcloneError(f"{name}: {_UNKNOWN_OUTPUT.format(unknown[1]) if unknown else reason}")
        refusal.__cause__ = error
        return refusal

    def has_numbers(self, name: str) -> bool:
        """Whether a module can be run on the example."""
        inputs = (leaf for leaf in pytree.tree_leaves(self.example) if torch.is_tensor(leaf))
        tensors = chain(_tensors(self.modules[name]), inputs)
        return not any(tensor.is_meta or isinstance(tensor, FakeTensor) for tensor in tensors)

    def cut_gradients(self, name: str) -> set[str]:
        """What the strict mode does not see in a module: its own gradients, which end there, and where it has none."""
        if not self.has_numbers(name):
            return set()
        module, (args, kwargs) = self.modules[name], copy.deepcopy(self.example)
        with quiet(), untouched(module), own_gradients(module) as names, inference_modes() as entered:
            module(*args, **kwargs)
        return {f"{function} (none pass through it)" for function in names} | set(entered)

    def refused_by_module(self, name: str) -> str | None:
        """What a module itself says to the example inputs; None where it takes them, or has no numbers to run with."""
        module, (args, kwargs) = self.modules[name], copy.deepcopy(self.example)
        if not self.has_numbers(name):
            return None
        try:
            with quiet(), untouched(module), torch.no_grad():
                module(*args, **kwargs)
        except Exception as error:  # whatever the module raises
            return one_line(error)
        return None


def _check_readable(name: str, module: torch.nn.Module) -> None:
    """Refuse a module of which torch.export would give no reason, or none that says what to do."""
    if isinstance(module, torch.nn.parallel.DistributedDataParallel):
        raise GraphcloneError(f"{name}: give the module inside of DistributedDataParallel, its attribute module")
    if any(map(torch.nn.parameter.is_lazy, _tensors(module))):
        raise GraphcloneError(f"{name}: has weights of no shape yet (a lazy module); call it once on its inputs")
    for key, tensor in chain(module.named_parameters(), module.named_buffers()):
        if hasattr(tensor, "device_mesh"):  # a DTensor
            remedy = "clone the whole module, and fill a wide one that is sharded by load_into"
            raise GraphcloneError(f"{name}: {key} is sharded; {remedy}")
        if tensor.layout != torch.strided:
            raise GraphcloneError(
                f"{name}: {key} is sparse ({tensor.layout}); to_dense() makes it a weight like others"
            )


def _free_sizes(programs: Sequence[Exported]) -> int:
    """The number of axes of inputs whose size may vary, in all programs."""
    return sum(shape.count(None) for exported in programs for shape in exported.guards.shapes if shape is not None)


def _has_fractions(exported: Exported) -> bool:
    """Whether sizes are computed by way of fractions, so that axes may seem to vary that do not."""
    values = (node.meta.get("val") for node in exported.program.graph.nodes)
    sizes = (size for value in values if isinstance(value, torch.Tensor) for size in value.shape)
    return any(isinstance(size, torch.SymInt) and has_fractions(size.node.expr) for size in sizes)


def _check_constants(program: ExportedProgram) -> None:
    """Refuse a program of a module with weights that takes for a constant what it computes from them."""
    for name, value in program.constants.items():
        if isinstance(value, FakeTensor):
            raise GraphcloneError(f"what is computed becomes a constant, {name}")


def _has_transforms(program: ExportedProgram) -> bool:
    """Whether transforms of functions (``torch.vmap``) are left in a program, which begin and end between its nodes."""
    modules = {
        str(getattr(node.target, "__module__", "")) for node in program.graph.nodes if node.op == "call_function"
    }
    return any(module.startswith("torch._functorch") for module in modules)


def asks_for_numbers(refusal: BaseException) -> bool:
    """Whether a trace was refused since the code depends on numbers that it has computed."""
    return any(map(_depends_on_data, causes(refusal)))


def _depends_on_data(error: BaseException) -> bool:
    return "DataDependent" in type(error).__name__


def _said(error: Exception) -> str:
    """What torch.export says, in one line."""
    return _BRANCHES if _depends_on_data(error) else one_line(error)


def _place(error: Exception) -> str:
    """Where the code is that an export failed on, torch's own apart."""
    own = (Path(torch.__file__).parent, Path(__file__).parents[2], Path(contextlib.__file__))
    lines = [
        f" at {Path(frame.f_code.co_filename).name}:{number}"
        for cause in causes(error)
        for frame, number in walk_tb(cause.__traceback__)
        if not any(Path(frame.f_code.co_filename).is_relative_to(folder) for folder in own)
    ]
    return lines[-1] if lines else ""


_BRANCHES = "what the code does there depends on numbers that it has computed"
_SCRIPTED = (
    "a TorchScript module, traced, scripted or loaded, has no Python code that torch.export could read; "
    "give the torch.nn.Module it was made from, or write it with torch.onnx.export(.., dynamo=False) and give the "
    ".onnx file"
)
_UNKNOWN_OUTPUT = (
    "returns a {}, which torch.export cannot take apart into tensors; have it return tensors, or lists and dicts of "
    "them (a model of transformers returns no cache where use_cache=False is among the inputs)"
)
_WAY_LEFT = "change that code, or export the model to ONNX another way and give the .onnx file"


def input_leaves(program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """All inputs of a program in order, those that are no tensors, too."""
    leaves: list[Any] = pytree.tree_leaves((tuple(args), reorder_kwargs(dict(kwargs), program.call_spec.in_spec)))
    return leaves


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@contextmanager
def _graph_alone() -> Iterator[None]:
    """Without what torch.export makes besides a graph: its code in text, and the call stack of each node."""
    config = torch.fx.config
    before = getattr(config, "do_not_emit_stack_traces", False)
    config.do_not_emit_stack_traces = True
    try:
        with _use_lazy_graph_module(True):
            yield
    finally:
        config.do_not_emit_stack_traces = before
