"""From a PyTorch module to a graph, by ``torch.export``.

The trace is dynamic in the first axis of every tensor input and in all axes of integer inputs, so that the clone
accepts other batches and lengths; where the model cannot be exported that way it is traced statically and the
graph's notes say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.dialect import (
    _CONDITION,
    TorchDialect,
    op_name,
)
from graphclone.formats.torch.example_inputs import named_sizes
from graphclone.formats.torch.export import Exported, export, export_alike
from graphclone.formats.torch.plain_outputs import output_names
from graphclone.formats.torch.uncast import Uncast
from graphclone.graph.ir import Graph, Initializer, Node, Opaque, Operand, Output, Value, items_of
from graphclone.graph.names import fresh
from graphclone.runtime.exclusive import exclusive

_UNBACKED_HINTS = tuple(27720 * prime for prime in (101, 103, 107, 109, 113, 127, 131, 137))
"""Sizes for data-dependent axes: too large to be a width, and multiples of small numbers, such as a batch."""


_SHOWN = 3
"""Conditions on sizes that a note spells out."""

_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


_KINDS: Mapping[InputKind, Any] = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


@exclusive()
def trace_module(
    module: torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    dynamic: bool = True,
    dynamic_axes: Mapping[str, Sequence[int]] | None = None,
) -> Graph:
    """Trace a module on example inputs.

    Args:
        module: in the mode (train or eval) it is to be traced in; eval, as a rule.
        args: positional example inputs.
        kwargs: keyword example inputs.
        name: for messages; the class name where it is not given.
        dynamic: whether the trace should hold for inputs of other sizes, where it can.
        dynamic_axes: axes of inputs of floats that may vary as well, by the name of an input.

    Returns:
        The graph, with ``origin`` the exported program it was read from, and what inputs that holds for.

    Raises:
        GraphcloneError: torch.export refuses the module.
    """
    name = name or type(module).__name__
    inputs = tuple(args), dict(kwargs or {})
    lengths = named_sizes(module, inputs, dynamic_axes) if dynamic_axes else ()
    return from_exported(export(module, *inputs, name, dynamic=dynamic, lengths=lengths), name, dynamic_axes)


@exclusive()
def trace_alike(
    modules: Mapping[str, torch.nn.Module], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> list[Graph]:
    """Trace several modules on the same inputs, of the same sizes; see ``trace_module``.

    Args:
        modules: by the names that messages call them.
        args: positional example inputs.
        kwargs: keyword example inputs.

    Raises:
        GraphcloneError: torch.export refuses one of them.
    """
    programs = export_alike(modules, tuple(args), dict(kwargs or {}))
    return [from_exported(exported, name) for exported, name in zip(programs, modules, strict=True)]


def from_exported(exported: Exported, name: str, asked: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph of an exported program, with notes of what it does not hold for.

    Args:
        exported: the program.
        name: for messages.
        asked: axes of inputs of floats that were to vary, by the name of an input.
    """
    graph = _ProgramImporter(exported.program, name).graph()
    graph.origin = exported
    fixed = [
        text
        for value in graph.inputs
        for text in _fixed(value, (asked or {}).get(value.name, ()), single=bool(exported.failure))
    ]
    if fixed:
        reason = f" ({exported.failure})" if exported.failure else ""
        graph.notes.append(f"traced with static sizes: {', '.join(fixed)}{reason}")
    if exported.gradients:
        graph.notes.append(f"gradients are those of what is computed, without {', '.join(exported.gradients)}")
    if exported.kept:
        graph.notes.append(f"is constant, as it was in one run: {', '.join(exported.kept)}")
    if exported.deciding:
        verb = "holds" if len(exported.deciding) == 1 else "hold"
        graph.notes.append(f"the code decides by what {', '.join(exported.deciding)} {verb}, and the clone as it was")
    if conditions := [condition.text for condition in exported.guards.conditions]:
        more = f" and {len(conditions) - _SHOWN} more" if len(conditions) > _SHOWN else ""
        graph.notes.append(f"holds for inputs with {', '.join(conditions[:_SHOWN])}{more} only")
    return graph


def _fixed(value: Value, asked: Sequence[int], *, single: bool) -> list[str]:
    """The axes of an input that should be dynamic and are not, with their sizes; of a size of 1 only if it is asked."""
    sizes = list(enumerate(value.shape or ()))
    candidates = [(axis, size) for axis, size in sizes if axis == 0 or axis in asked or not value.is_float]
    fixed = ((axis, size) for axis, size in candidates if axis not in value.dynamic and (single or size != 1))
    return [f"{value.name} axis {axis} = {size}" for axis, size in fixed]


def _is_symbolic(size: int | torch.SymInt) -> bool:
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


class _ProgramImporter:
    def __init__(self, program: ExportedProgram, name: str) -> None:
        self.program = program
        self.name = name
        self.values: dict[torch.fx.Node, Operand] = {}
        self.names: set[str] = set()
        self.nodes: list[Node] = []
        self.inputs: list[Value] = []
        self.initializers: dict[Any, Initializer] = {}
        self.unbacked: dict[sympy.Basic, int] = {}
        self.autocast: Uncast | None = None
        self.notes: list[str] = []

    def graph(self) -> Graph:
        fx = self.program.graph_module
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}
        for placeholder in fx.graph.find_nodes(op="placeholder"):
            self.values[placeholder] = self.placeholder(placeholder, specs[placeholder.name])
        self.unread_weights()
        results = self.body(fx)
        return Graph(
            name=self.name,
            inputs=self.inputs,
            initializers=list(self.initializers.values()),
            nodes=self.nodes,
            outputs=self.outputs(results),
            dialect=TorchDialect(),
            notes=self.notes,
        )

    def placeholder(self, placeholder: torch.fx.Node, spec: InputSpec) -> Operand:
        if spec.kind is InputKind.USER_INPUT:
            if not isinstance(placeholder.meta["val"], torch.Tensor):
                return self.constant_input(placeholder)
            value = self.value(fresh(placeholder.name, self.names), placeholder.meta["val"], role="input")
            self.inputs.append(value)
            return value
        if spec.kind not in _KINDS or spec.target is None:
            raise GraphcloneError(f"{self.name}: input {placeholder.name} is a {spec.kind.name}, not supported")
        kind = "constant" if spec.persistent is False else _KINDS[spec.kind]
        return self.initializer(spec.target, kind)

    def unread_weights(self) -> None:
        """Add the weights that are no inputs of the program: the strict mode leaves out what nothing reads."""
        inputs = {spec.target for spec in self.program.graph_signature.input_specs}
        for target, tensor in self.program.state_dict.items():
            if target not in inputs:
                self.initializer(target, "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer")

    def constant_input(self, placeholder: torch.fx.Node) -> Operand:
        """An example input that is no tensor: its value is part of the trace."""
        value = placeholder.meta["val"]
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise GraphcloneError(f"{self.name}: input {placeholder.name} is a symbolic number, not supported")
        return literal(value)

    def initializer(self, target: str, kind: Any) -> Value:
        tensors = self.program.state_dict if target in self.program.state_dict else self.program.constants
        tensor = tensors[target]
        key = (tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        shared = self.initializers.get(key) if tensor.numel() else None
        if shared is not None:
            if kind != "constant":  # an attribute that shows a weight is no entry of the state dict
                shared.names = (*shared.names, target)
            return shared.value
        value = self.value(fresh(target, self.names), tensor, role="initializer")
        self.initializers[key if tensor.numel() else target] = Initializer(value, (target,), kind, tensor)
        return value

    def body(self, fx: torch.fx.GraphModule) -> Operand:
        """Append the nodes of a graph module; what it returns."""
        for node in fx.graph.nodes:
            if node.op == "call_function":
                self.call(fx, node)
            elif node.op == "output":
                return self.operand(node.args[0])
        return None

    def call(self, fx: torch.fx.GraphModule, node: torch.fx.Node) -> None:
        source: Any = node.args[0] if node.args else None
        if op_name(node.target) == "py._operator.getitem" and isinstance(results := self.values.get(source), list):
            self.values[node] = results[int(node.args[1])]  # type: ignore[arg-type]
        elif any(op_name(node.target) == f"hop.{name}" for name in _INLINED):
            self.inline(fx, node)
        elif op_name(node.target) == _CONDITION:
            self.condition(fx, node)
        else:
            self.values[node] = self.append(node, self.operands(node))

    def inline(self, fx: torch.fx.GraphModule, node: torch.fx.Node) -> None:
        """Read the body of a region that computes what its nodes compute (gradient mode, autocast)."""
        args: tuple[Any, ...] = node.args
        position = next(i for i, arg in enumerate(args) if getattr(arg, "op", "") == "get_attr")
        body = getattr(fx, str(args[position].target))
        outer = self.autocast
        if "autocast" in op_name(node.target):
            device, _, enabled, _ = args[:position]
            if enabled:
                self.notes.append(f"{node.name}: a region under autocast is computed in the precision of its inputs")
            else:
                self.autocast = Uncast(device)
        operands = [self.operand(arg) for arg in args[position + 1 :]]
        self.values[node] = self.without_gradients(body, operands) if args[0] is False else self.region(body, operands)
        self.autocast = outer

    def without_gradients(self, body: torch.fx.GraphModule, operands: Sequence[Operand]) -> Operand:
        """Append the nodes of a region on detached operands, but for buffers; what it passes on is not detached."""
        buffers = {i.value for i in self.initializers.values() if i.kind != "parameter"}
        trained = [o for o in operands if isinstance(o, Value) and o.is_float and o not in buffers]
        detached = {value: self.detached(value) for value in dict.fromkeys(trained)}
        given = {own: value for value, own in detached.items()}
        results = self.region(body, [detached.get(o, o) if isinstance(o, Value) else o for o in operands])
        return [given.get(r, r) if isinstance(r, Value) else r for r in items_of(results)]

    def detached(self, operand: Value) -> Value:
        """Append a node that gives a value without its gradient."""
        name, target = fresh("detach", self.names), torch.ops.aten.detach.default
        value = Value(name, operand.shape, operand.dtype, operand.dynamic)
        value.producer = Node(name, op_name(target), {"self": operand}, [value], target, region=self.autocast)
        self.nodes.append(value.producer)
        return value

    def region(self, body: torch.fx.GraphModule, operands: Sequence[Operand]) -> Operand:
        """Append the nodes of a graph module that is called; what it returns."""
        for placeholder, operand in zip(body.graph.find_nodes(op="placeholder"), operands, strict=True):
            self.values[placeholder] = operand
        return self.body(body)

    def condition(self, fx: torch.fx.GraphModule, node: torch.fx.Node) -> None:
        """Read both branches, and after them the choice between what they return."""
        predicate, then, otherwise, args = (*node.args, *node.kwargs.values())
        operands = [self.operand(arg) for arg in args]  # type: ignore[union-attr]
        results = [self.region(getattr(fx, str(branch.target)), operands) for branch in (then, otherwise)]  # type: ignore[union-attr]
        choice = {"cond": self.operand(predicate), "then_branch": results[0], "else_branch": results[1]}
        self.values[node] = self.append(node, choice)

    def append(self, fx_node: torch.fx.Node, operands: dict[str, Operand]) -> Operand:
        """Append one call; its value, or the list of its values where it returns several."""
        name = fresh(fx_node.name, self.names)  # bodies of inlined regions repeat names
        result: Any = fx_node.meta.get("val")
        several = isinstance(result, list | tuple)
        items = list(result) if several else [result]
        outputs = [self.value(f"{name}.{i}" if several else name, item) for i, item in enumerate(items)]
        place = _scope(fx_node), several, self.autocast
        node = Node(name, op_name(fx_node.target), operands, outputs, fx_node.target, *place)
        for output in outputs:
            output.producer = node
        self.nodes.append(node)
        return outputs if several else outputs[0]

    def operands(self, node: torch.fx.Node) -> dict[str, Operand]:
        args = [self.operand(arg) for arg in node.args]
        kwargs = {name: self.operand(arg) for name, arg in node.kwargs.items()}
        if not isinstance(node.target, torch._ops.OpOverload):
            return {**{f"arg{i}": arg for i, arg in enumerate(args)}, **kwargs}
        arguments = node.target._schema.arguments
        return dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs

    def operand(self, arg: Any) -> Operand:
        if isinstance(arg, torch.fx.Node) and arg in self.values:
            return self.values[arg]
        return [self.operand(item) for item in arg] if isinstance(arg, list | tuple) else literal(arg)

    def outputs(self, results: Operand) -> list[Output]:
        specs = self.program.graph_signature.output_specs
        if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
            raise GraphcloneError(f"{self.name}: the model writes to its buffers or inputs; trace it in eval mode")
        names = output_names(self.program.call_spec.out_spec)
        return [Output(name, result) for name, result in zip(names, items_of(results), strict=True)]

    def value(self, name: str, example: Any, role: Any = "node") -> Value:
        if not isinstance(example, torch.Tensor):
            return Value(name, None, "", role=role)
        shape = tuple(self.hint(size) for size in example.shape)
        dynamic = {i: str(size) for i, size in enumerate(example.shape) if _is_symbolic(size)}
        return Value(name, shape, str(example.dtype).removeprefix("torch."), dynamic, role)

    def hint(self, size: int | torch.SymInt) -> int:
        if isinstance(size, int):
            return size
        if size.node.hint is not None:
            return int(size.node.hint)
        expression = size.node.expr
        env = size.node.shape_env
        values = {
            symbol: env.backed_var_to_val.get(symbol) or self.unbacked_hint(symbol)
            for symbol in expression.free_symbols
        }
        number = int(expression.subs(values))
        return number if number >= 0 else self.unbacked_hint(expression)  # what is left over of so many

    def unbacked_hint(self, size: sympy.Basic) -> int:
        return self.unbacked.setdefault(size, _UNBACKED_HINTS[len(self.unbacked) % len(_UNBACKED_HINTS)])


def literal(value: Any) -> Operand:
    """An operand that is no tensor; a dtype, a device and their like are opaque."""
    if value is None or isinstance(value, int | float | complex | str):
        return value
    return [literal(item) for item in value] if isinstance(value, list | tuple) else Opaque(value)


def _scope(node: torch.fx.Node) -> str:
    """Dotted path of the innermost module the node was traced in."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return str(paths[-1]) if paths else ""
