"""From a graph to a trainable PyTorch module."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export._unlift import _get_codegen
from torch.export.graph_signature import InputKind, TensorArgument
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from graphclone.errors import GraphcloneError, InvariantError, first_line, one_line
from graphclone.formats.torch.branches import BRANCHES, Body, bodies
from graphclone.formats.torch.dialect import call_arguments
from graphclone.formats.torch.doubts import confirm_trace, settle_doubts
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import Exported, export
from graphclone.formats.torch.guards import Guards
from graphclone.formats.torch.input_guard import GUARD, STRUCTURE, InputGuard
from graphclone.formats.torch.input_sets import clone_examples, varying_lengths
from graphclone.formats.torch.movable import MovableGraphModule
from graphclone.formats.torch.plain_outputs import plain_outputs, refuse_texts
from graphclone.formats.torch.uncast import Regions
from graphclone.graph.ir import Graph, Initializer, Node, Operand, Value, evaluated
from graphclone.pipeline.state import State
from graphclone.runtime.exclusive import exclusive
from graphclone.runtime.files import written
from graphclone.runtime.tensors import widened_tensors


class _GuardedCode(_PyTreeCodeGen):
    """Code that takes arguments as the source does, and has the guard take them apart.

    Args:
        exported: the source.
    """

    def __init__(self, exported: Exported) -> None:
        spec, guards = exported.program.call_spec, exported.guards
        super().__init__(_PyTreeInfo(list(guards.arguments), spec.in_spec, spec.out_spec))
        self.by_position = guards.by_position

    def gen_fn_def(self, free_vars: list[str], maybe_return_annotation: str, *, expanded_def: bool = False) -> str:
        code: str = super().gen_fn_def(free_vars, maybe_return_annotation, expanded_def=expanded_def)
        names = ["self", *self.pytree_info.orig_args]
        by_name = names[self.by_position + 1 :]
        apart = [*names[: self.by_position + 1], "*", *by_name] if by_name else names
        return _replaced(code, f"({', '.join(names)})", f"({', '.join(apart)})")

    def gen_var_bindings(self, fn_args: list[str], free_vars: list[str], expanded_def: bool) -> str:
        code: str = super().gen_var_bindings(fn_args, free_vars, expanded_def)
        code = _replaced(code, "fx_pytree.tree_flatten_spec(", f"self.{GUARD}.{STRUCTURE}(")
        return _replaced(code, ", self._in_spec)", ")")


def _replaced(code: str, old: str, new: str) -> str:
    """Code that torch generates, with one of its calls changed.

    Raises:
        InvariantError: this torch generates other code, so that nothing would guard the inputs.
    """
    if old not in code:
        raise InvariantError(f"torch {torch.__version__} generates code without {old!r}: {code!r}")
    return code.replace(old, new, 1)


def to_module(graph: Graph, tensors: Mapping[Value, torch.Tensor]) -> torch.fx.GraphModule:
    """A module that runs the graph, called and returning as the source is.

    Args:
        graph: in the torch dialect.
        tensors: the data of its initializers, which the module takes over.

    Returns:
        A module whose state dict has the source's names; parameters train, tied ones stay tied.
    """
    exported = graph.origin_as(Exported)
    program = exported.program
    root = torch.nn.Module()
    for initializer in graph.initializers:
        _register(root, initializer, tensors[initializer.value])
    fx_graph = torch.fx.Graph()
    fx_graph.set_codegen(_GuardedCode(exported))
    root.add_module(GUARD, InputGuard(_guards_for(exported.guards, graph), program.call_spec.in_spec))
    nodes = _placeholders(fx_graph, program, graph)
    for initializer in graph.initializers:
        nodes[initializer.value] = fx_graph.get_attr(initializer.name)
    results = [output.operand for output in graph.outputs]
    _calls(root, fx_graph, graph, graph.nodes, results, nodes)
    fx_graph.output(tuple(_argument(operand, nodes) for operand in results))
    module = MovableGraphModule(root, fx_graph)
    for initializer in graph.initializers:  # the graph module kept only the names that its graph reads
        _register(module, initializer, tensors[initializer.value])
    return module.eval()


@exclusive()
def module_of(state: State, example: Example) -> torch.fx.GraphModule:
    """A clone as a trainable module in eval mode; see ``Clone.module``."""
    settle_doubts(state, example)
    confirm_trace(state, example)
    return to_module(state.graph, widened_tensors(state))


@exclusive()
def save_program(state: State, example: Example, path: Path) -> None:
    """Write a clone as an exported program (``.pt2``), which ``torch.export.load`` reads.

    Outputs that the source returns in a class of another library come as a dict of its fields, since a file that
    named the class could only be loaded where that library has been imported.

    Raises:
        GraphcloneError: torch cannot export the clone, or the file cannot be written.
    """
    module, spec = module_of(state, example), state.graph.origin_as(Exported).program.call_spec
    refuse_texts(state.graph, path)
    module.graph.set_codegen(_get_codegen(spec.in_spec, plain_outputs(spec.out_spec)))
    module.recompile()
    args, kwargs = clone_examples(state, example)
    exported = export(module, args, kwargs, state.graph.name, lengths=varying_lengths(state.graph, args, kwargs))
    with written(path) as target:
        try:
            torch.export.save(exported.program, target)
        except RuntimeError as error:  # what torch's archive writer raises, out of disk space for one
            raise GraphcloneError(f"cannot write {path}: {first_line(error)}") from error
        except Exception as error:  # of what the format has no place for
            raise GraphcloneError(f"{path}: torch cannot write this program: {one_line(error)}") from error


def _register(root: torch.nn.Module, initializer: Initializer, tensor: torch.Tensor) -> None:
    """Put a tensor under all its names, and the modules on the way."""
    trains = initializer.kind == "parameter" and (tensor.is_floating_point() or tensor.is_complex())
    parameter = (
        torch.nn.Parameter(tensor, requires_grad=getattr(initializer.tensor, "requires_grad", True))
        if trains
        else tensor
    )
    for name in initializer.names:
        *path, last = name.split(".")
        owner = root
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, torch.nn.Module())
            owner = owner._modules[part]  # type: ignore[assignment]
        if isinstance(parameter, torch.nn.Parameter):
            owner.register_parameter(last, parameter)
        else:
            owner.register_buffer(last, parameter, persistent=initializer.kind != "constant")


def _placeholders(fx_graph: torch.fx.Graph, program: ExportedProgram, graph: Graph) -> dict[Value, torch.fx.Node]:
    """What the graph reads for each of its inputs: all that the module is called with, once the guard let it pass."""
    specs = [spec for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    passed = fx_graph.call_module(GUARD, tuple(fx_graph.placeholder(spec.arg.name) for spec in specs))
    positions = [i for i, spec in enumerate(specs) if isinstance(spec.arg, TensorArgument)]
    tensors = [fx_graph.call_function(operator.getitem, (passed, i)) for i in positions]
    return dict(zip(graph.inputs, tensors, strict=True))


def _guards_for(guards: Guards, graph: Graph) -> Guards:
    """The guards of the source for a graph some of whose inputs may have grown."""
    sizes = iter(graph.inputs)
    shapes = [None if shape is None else _refixed(shape, next(sizes)) for shape in guards.shapes]
    return replace(guards, shapes=tuple(shapes))


def _refixed(shape: tuple[int | None, ...], value: Value) -> tuple[int | None, ...]:
    return tuple(None if old is None else new for old, new in zip(shape, value.shape or (), strict=True))


def _calls(
    root: torch.nn.Module,
    fx_graph: torch.fx.Graph,
    graph: Graph,
    body: Sequence[Node],
    results: Sequence[Operand],
    nodes: dict[Value, torch.fx.Node],
) -> None:
    """Call the nodes of a graph or a branch, those that only a branch reads inside of that branch."""
    staying, branches = bodies(graph.dialect, body, results)
    regions = Regions(fx_graph)
    for node in staying:
        regions.enter(node.region)
        if node in branches:
            args: tuple[Any, ...] = _conditional(root, fx_graph, graph, node, branches[node], nodes)
            _call(fx_graph, node, args, {}, nodes)
        else:
            operands = {name: _argument(operand, nodes) for name, operand in node.operands.items()}
            positional, kwargs = call_arguments(node, operands)
            _call(fx_graph, node, tuple(positional), kwargs, nodes)
    regions.enter(None)


def _conditional(
    root: torch.nn.Module,
    fx_graph: torch.fx.Graph,
    graph: Graph,
    node: Node,
    branches: Sequence[Body],
    nodes: Mapping[Value, torch.fx.Node],
) -> tuple[Any, ...]:
    """The arguments of a condition: what it depends on, its branches as modules, and what both may read."""
    captured = list(dict.fromkeys(value for branch in branches for value in branch.captured))
    modules = []
    for kind, branch in zip(BRANCHES, branches, strict=True):
        inner_root, inner = torch.nn.Module(), torch.fx.Graph()
        inner_nodes = {value: inner.placeholder(f"captured_{i}") for i, value in enumerate(captured)}
        _calls(inner_root, inner, graph, branch.nodes, branch.results, inner_nodes)
        inner.output(tuple(_own_memory(graph, inner, branch, result, inner_nodes) for result in branch.results))
        name = f"{node.name}_{kind}"
        root.add_module(name, torch.fx.GraphModule(inner_root, inner))
        modules.append(fx_graph.get_attr(name))
    return (_argument(node.operands["cond"], nodes), *modules, tuple(nodes[value] for value in captured))


def _own_memory(
    graph: Graph, inner: torch.fx.Graph, branch: Body, result: Operand, nodes: Mapping[Value, torch.fx.Node]
) -> Any:
    """What a branch returns, which may not lie in the memory of what it was given."""
    argument = _argument(result, nodes)
    if not isinstance(result, Value) or not result.is_tensor:
        return argument
    if result.producer in branch.nodes and not graph.dialect.aliases(result.producer):
        return argument
    return inner.call_function(torch.ops.aten.clone.default, (argument,))


def _call(
    fx_graph: torch.fx.Graph,
    node: Node,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    nodes: dict[Value, torch.fx.Node],
) -> None:
    call = fx_graph.call_function(node.target, args, kwargs)
    if len(node.outputs) == 1 and not node.several:
        nodes[node.outputs[0]] = call
        return
    for i, output in enumerate(node.outputs):
        nodes[output] = fx_graph.call_function(operator.getitem, (call, i))


def _argument(operand: Operand, nodes: Mapping[Value, torch.fx.Node]) -> Any:
    if isinstance(operand, Value):
        return nodes[operand]
    return [_argument(item, nodes) for item in operand] if isinstance(operand, list | tuple) else evaluated(operand, {})
