"""Graphs of torch programs as plain values, and back.

Weights become their shapes; of constants, such as tables that the code computes, the data is kept. What stands for a
function is its name, and names of aten operators and of functions on sizes are all that is understood.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from graphclone.formats.torch.dialect import PURE_MODULES, TorchDialect, op_name
from graphclone.formats.torch.uncast import Uncast
from graphclone.graph.ir import Graph, Initializer, Node, Opaque, Operand, Output, Value

Plain = Any
"""A tree of what JSON knows."""


class NotStorable(Exception):
    """There is something in a graph that has no name, or something unknown in what a graph was stored as."""


# Storing


def stored(graph: Graph) -> Plain:
    """A graph as plain values; its name and what it was read from are left out.

    Raises:
        NotStorable: something in it cannot be said so.
    """
    numbers: dict[Value, int] = {}
    return {
        "inputs": [_declared(value, numbers) for value in graph.inputs],
        "initializers": [_initializer(initializer, numbers) for initializer in graph.initializers],
        "nodes": [_node(node, numbers) for node in graph.nodes],
        "outputs": [[output.name, _operand(output.operand, numbers), output.free] for output in graph.outputs],
        "notes": list(graph.notes),
    }


def _declared(value: Value, numbers: dict[Value, int]) -> Plain:
    numbers[value] = len(numbers)
    shape = None if value.shape is None else list(value.shape)
    return [value.name, shape, value.dtype, [[axis, symbol] for axis, symbol in value.dynamic.items()]]


def _initializer(initializer: Initializer, numbers: dict[Value, int]) -> Plain:
    tensor = initializer.tensor
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter, FakeTensor) or not tensor.is_contiguous():
        raise NotStorable(initializer.name)
    data = None
    if not tensor.is_meta and not isinstance(tensor, FakeTensor):
        flat = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        data = base64.b64encode(flat.numpy().tobytes()).decode()
    described = [list(tensor.shape), _dtype_name(tensor.dtype), tensor.requires_grad, data]
    return [_declared(initializer.value, numbers), list(initializer.names), initializer.kind, described]


def _node(node: Node, numbers: dict[Value, int]) -> Plain:
    if target(node.op) is not node.target:
        raise NotStorable(node.op)
    operands = [[name, _operand(operand, numbers)] for name, operand in node.operands.items()]
    outputs = [_declared(value, numbers) for value in node.outputs]
    region = None if node.region is None else node.region.device
    return [node.name, node.op, operands, outputs, node.scope, node.several, region]


def _operand(operand: Operand, numbers: Mapping[Value, int]) -> Plain:
    if isinstance(operand, Value):
        return {"value": numbers[operand]}
    if isinstance(operand, list | tuple):
        return [_operand(item, numbers) for item in operand]
    if isinstance(operand, complex):
        return {"complex": [operand.real, operand.imag]}
    if isinstance(operand, Opaque):
        return _opaque(operand.content)
    if operand is not None and type(operand) not in (bool, int, float, str):
        raise NotStorable(repr(operand))
    return operand


def _opaque(content: object) -> Plain:
    for kind, (cls, text, _) in _OPAQUE.items():
        if type(content) is cls:
            return {kind: text(content)}
    raise NotStorable(repr(content))


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _attribute(kind: type) -> Callable[[str], Any]:
    """What finds a thing of a kind by its name in torch."""

    def find(name: str) -> Any:
        found = getattr(torch, name.removeprefix("torch."), None)
        if not isinstance(found, kind):
            raise NotStorable(name)
        return found

    return find


_OPAQUE: Mapping[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "dtype": (torch.dtype, str, _attribute(torch.dtype)),
    "layout": (torch.layout, str, _attribute(torch.layout)),
    "memory_format": (torch.memory_format, str, _attribute(torch.memory_format)),
    "device": (torch.device, str, torch.device),
}
"""Literals that only torch understands: their type, and how they are written and read."""


# Restoring


def restored(plain: Plain, name: str) -> Graph:
    """The graph that was stored, its weights on the meta device.

    Args:
        plain: as ``stored`` made it.
        name: of the graph.

    Raises:
        NotStorable: it is not what ``stored`` makes, or names an operator that is not there.
    """
    try:
        return _restored(plain, name)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise NotStorable(str(error)) from error


def _restored(plain: Plain, name: str) -> Graph:
    values: list[Value] = []
    return Graph(
        name=name,
        inputs=[_value(item, values, role="input") for item in plain["inputs"]],
        initializers=[_read_initializer(item, values) for item in plain["initializers"]],
        nodes=[_read_node(item, values) for item in plain["nodes"]],
        outputs=[Output(output, _read_operand(operand, values), free) for output, operand, free in plain["outputs"]],
        dialect=TorchDialect(),
        notes=[*map(str, plain["notes"])],
    )


def _value(item: Plain, values: list[Value], role: Any = "node", producer: Node | None = None) -> Value:
    name, shape, dtype, dynamic = item
    value = Value(name, None if shape is None else tuple(shape), dtype, dict(map(tuple, dynamic)), role, producer)
    values.append(value)
    return value


def _read_initializer(item: Plain, values: list[Value]) -> Initializer:
    declared, names, kind, (shape, dtype, requires_grad, data) = item
    value = _value(declared, values, role="initializer")
    number_type = _attribute(torch.dtype)(dtype)
    if data is None:
        tensor = torch.empty(shape, dtype=number_type, device="meta", requires_grad=requires_grad)
    else:
        flat = torch.from_numpy(np.frombuffer(bytearray(base64.b64decode(data)), np.uint8))
        tensor = flat.view(number_type).view(shape).requires_grad_(requires_grad)
    return Initializer(value, tuple(names), kind, tensor)


def _read_node(item: Plain, values: list[Value]) -> Node:
    name, op, operands, outputs, scope, several, region = item
    read = {operand: _read_operand(plain, values) for operand, plain in operands}
    node = Node(name, op, read, [], target(op), scope, several, None if region is None else Uncast(region))
    node.outputs = [_value(output, values, producer=node) for output in outputs]
    return node


def _read_operand(plain: Plain, values: Sequence[Value]) -> Operand:
    if isinstance(plain, list):
        return [_read_operand(item, values) for item in plain]
    if not isinstance(plain, dict):
        return plain  # type: ignore[no-any-return]
    ((kind, content),) = plain.items()
    if kind == "value":
        return values[content]
    return complex(*content) if kind == "complex" else Opaque(_OPAQUE[kind][2](content))


def target(op: str) -> Any:
    """The function that runs an operator, by the name that rules know.

    Raises:
        NotStorable: the name is of something else, or of nothing that is there.
    """
    kind, _, rest = op.partition(".")
    try:
        if kind == "py":
            module, _, name = rest.rpartition(".")
            found = getattr(importlib.import_module(module), name) if _is_on_sizes(module, name) else None
        elif kind == "hop":
            found = getattr(torch.ops.higher_order, rest)
        else:
            name, overload = rest.split(".")
            found = getattr(getattr(getattr(torch.ops, kind), name), overload)
    except (AttributeError, ValueError, ImportError) as error:
        raise NotStorable(op) from error
    if found is None or op_name(found) != op:
        raise NotStorable(op)
    return found


def _is_on_sizes(module: str, name: str) -> bool:
    """Whether a function is one of those on sizes; torch itself has many others."""
    return module in PURE_MODULES and (module != "torch" or name.lstrip("_").startswith("sym_"))
