"""The torch dialect: aten operators, run by torch itself."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

import torch
from torch.utils import _pytree as pytree

from graphclone.formats.torch.canonical import ASSERTIONS, SPELLINGS
from graphclone.graph.ir import Node, Operand, Value, evaluated, values_in
from graphclone.runtime.interpreter import lifted_dtype

PURE_MODULES = ("_operator", "math", "torch", "torch.fx.experimental.symbolic_shapes")
"""Where the functions on sizes live that a trace may hold; any other function may do anything."""

_UNINITIALISED = re.compile(r"aten\.(new_)?empty")

_CONDITION = "hop.cond"


class TorchDialect:
    """aten operators, run by torch itself."""

    name = "torch"
    assertions: Collection[str] = ASSERTIONS
    spellings = SPELLINGS

    def run(self, node: Node, operands: Mapping[str, Any], *, lift: bool = False) -> Sequence[Any]:
        if node.op == _CONDITION:
            return list(operands["then_branch" if bool(operands["cond"]) else "else_branch"])
        if lift:
            return self._run_lifted(node, operands)
        args, kwargs = call_arguments(node, operands)
        result = node.target(*args, **kwargs)
        return result if isinstance(result, list | tuple) else (result,)

    def _run_lifted(self, node: Node, operands: Mapping[str, Any]) -> Sequence[Any]:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        if self.is_random(node):
            torch.manual_seed(crc32(node.name.encode()))
        try:
            results = self.run(node, pytree.tree_map_only(torch.dtype, lifted_dtype, dict(operands)))
        finally:
            torch.set_default_dtype(default)
        if _UNINITIALISED.match(node.op):
            for result in results:
                result.zero_()
        return results

    def mutates(self, node: Node) -> bool:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            return target._schema.is_mutable or not target._schema.returns
        return node.op != _CONDITION and getattr(target, "__module__", "") not in PURE_MODULES

    def writes(self, node: Node) -> Collection[Value]:
        if not isinstance(node.target, torch._ops.OpOverload):
            return list(_tensors(node)) if self.mutates(node) else ()
        return list(_annotated(node, written=True))

    def aliases(self, node: Node) -> Collection[Value]:
        """Operands that the result may share memory with: by the schema, and those that it does not declare."""
        if not isinstance(node.target, torch._ops.OpOverload):
            return list(_tensors(node))
        return {*_annotated(node), *_shared(node)}

    def is_random(self, node: Node) -> bool:
        return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())

    def respell(self, node: Node, op: str, operands: dict[str, Operand]) -> None:
        namespace, name, overload = op.split(".")
        node.op, node.operands = op, operands
        node.target = getattr(getattr(getattr(torch.ops, namespace), name), overload)

    def copy(self, node: Node) -> Node:
        return replace(node)

    def multiply(self, value: Value, factor: float, name: str) -> Node:
        return _computed(torch.ops.aten.mul.Tensor if value.is_tensor else operator.mul, value, factor, name)

    def divide(self, size: Value, divisor: int, name: str) -> Node:
        return _computed(operator.floordiv, size, divisor, name)


def _computed(target: Any, value: Value, number: float, name: str) -> Node:
    """A node that computes something of the same shape from a value and a number."""
    out = Value(name, value.shape, value.dtype, value.dynamic)
    node = Node(name, op_name(target), {"self": value, "other": number}, [out], target)
    out.producer = node
    return node


def _tensors(node: Node) -> Iterator[Value]:
    return (value for value in dict.fromkeys(node.inputs) if value.is_tensor)


def _annotated(node: Node, *, written: bool = False) -> Iterator[Value]:
    """The inputs of which the schema says that results may share their memory, or that they are written into."""
    for argument in node.target._schema.arguments:
        if (alias := argument.alias_info) is not None and (alias.is_write or not written):
            yield from values_in(node.operands.get(argument.name))


def _shared(node: Node) -> Iterator[Value]:
    """The inputs whose memory the results share when the node runs on tensors without data; all if it cannot run."""
    tensors = list(_tensors(node))
    empty = {v: torch.empty(v.shape or (), dtype=getattr(torch, v.dtype), device="meta") for v in tensors}
    args, kwargs = call_arguments(node, {name: evaluated(operand, empty) for name, operand in node.operands.items()})
    try:
        with torch.no_grad():
            results = pytree.tree_leaves(node.target(*args, **kwargs))
    except Exception:  # whatever the op raises for want of data, or at a size that is computed
        yield from tensors
        return
    outputs = [result for result in results if isinstance(result, torch.Tensor)]
    yield from (v for v in tensors if any(torch._C._is_alias_of(empty[v], result) for result in outputs))  # type: ignore[attr-defined]


def call_arguments(node: Node, operands: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and keyword arguments of a node's target, from its operands by name, evaluated."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(operands.values()), {}
    positional: list[Any] = []
    for argument in node.target._schema.arguments:
        if argument.kwarg_only or argument.name not in operands:
            break
        positional.append(operands[argument.name])
    return positional, dict(list(operands.items())[len(positional) :])


def op_name(target: Any) -> str:
    """The qualified name by which rules know a target."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"hop.{target.name()}"
    return f"py.{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"
