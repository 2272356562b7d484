"""The ONNX dialect: how a node of the graph is spelled as an operator, and run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
import onnx
import onnx_ir
import torch

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.canonical import SPELLINGS
from graphclone.formats.onnx.ops import Call, run_call, schema
from graphclone.formats.onnx.tensors import data_type, to_array, to_torch
from graphclone.graph.ir import Node, Operand, Value, items_of
from graphclone.runtime.arrays import Array

_RANDOM = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli")

_CONTROL = ("onnx.If", "onnx.Loop", "onnx.Scan")

_LIFTED = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)

_SINGLE: Mapping[str, onnx.AttributeProto] = {
    "ConstantOfShape": onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(np.zeros(1, np.float32))),
    **{
        op: onnx.helper.make_attribute(name, onnx.TensorProto.FLOAT)
        for name, ops in {
            "dtype": ("RandomNormal", "RandomUniform", "SequenceEmpty"),
            "output_datatype": ("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
        }.items()
        for op in ops
    },
}
"""Operators that make floats, with the attribute that says which, as it is unless it is given."""

InputPlace = tuple[str, int]
"""An input of an operator: its formal name, and which of those under that name it is."""


@dataclass(frozen=True)
class LiteralType:
    """The type and the shape of a literal that the file holds as a tensor."""

    dtype: onnx_ir.DataType
    shape: tuple[int, ...]

    def array(self, literal: Any, *, lift: bool = False) -> Array:
        """The literal as it is in the file."""
        dtype = np.dtype(np.float64) if lift and self.dtype.value in _LIFTED else self.dtype.numpy()
        return np.array(literal).astype(dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Target:
    """The place of a node in its file.

    Attributes:
        domain: of the operator; empty for ONNX's own.
        op: its name.
        opset: version of the domain.
        inputs: the formal names of the inputs, in order; the last may stand for several.
        variadic: whether it does.
        attributes: the type of every attribute that is an operand.
        fixed: other attributes (tensors, graphs, types), as protobuf.
        literal_types: the types and shapes of literals that are inputs.
        literals: what they were in the file.
        outputs: whether each output is wanted.
        node: the node in the file; None for one that is new.
    """

    domain: str
    op: str
    opset: int
    inputs: tuple[str, ...]
    variadic: bool = False
    attributes: Mapping[str, onnx_ir.AttributeType] = field(default_factory=dict)
    fixed: tuple[onnx.AttributeProto, ...] = ()
    literal_types: Mapping[InputPlace, LiteralType] = field(default_factory=dict)
    literals: Mapping[InputPlace, Any] = field(default_factory=dict)
    outputs: tuple[bool, ...] = (True,)
    node: onnx_ir.Node | None = None

    def operands(self, node: Node) -> list[tuple[InputPlace, Operand]]:
        """The operands that are inputs, in order; None for one that is left out."""
        operands: list[tuple[InputPlace, Operand]] = []
        for name in self.inputs:
            operand = node.operands.get(name)
            if self.variadic and name == self.inputs[-1]:
                operands += [((name, i), item) for i, item in enumerate(items_of(operand))]
            else:
                operands.append(((name, 0), operand))
        while operands and operands[-1][1] is None:
            operands.pop()
        return operands

    def respelled(self, op: str, new: Mapping[str, Operand]) -> Target:
        """The target as another operator, with literals that it lacked: inputs if the schema says so, or attributes."""
        formal = schema(self.domain, op, self.opset).inputs
        literal_types = {
            (name, 0): LiteralType(onnx_ir.DataType.INT64, _shape(new[name])) for name in new if name in formal
        }
        attributes = {name: _attribute_type(literal) for name, literal in new.items() if name not in formal}
        inputs = formal if literal_types else self.inputs
        attributes, literal_types = {**self.attributes, **attributes}, {**self.literal_types, **literal_types}
        return replace(self, op=op, inputs=inputs, attributes=attributes, literal_types=literal_types)

    def call(self, node: Node, *, lift: bool = False) -> Call:
        """The operator with its attributes as they are now."""
        current = [
            _attribute(name, node.operands[name], kind, lift=lift)
            for name, kind in self.attributes.items()
            if node.operands.get(name) is not None
        ]
        protos = [*current, *self.fixed]
        if lift:
            protos = [_lifted(proto) for proto in (*protos, *self.precision({proto.name for proto in protos}))]
        inputs = tuple(operand is not None for _, operand in self.operands(node))
        attributes = tuple(proto.SerializeToString(deterministic=True) for proto in protos)
        return Call(self.domain, self.op, self.opset, attributes, inputs, self.outputs)

    def precision(self, names: set[str]) -> list[onnx.AttributeProto]:
        """The attribute that asks for single precision where it is not given."""
        asking = None if self.domain else _SINGLE.get(self.op)
        return [asking] if asking is not None and asking.name not in names else []


def _attribute(name: str, value: Operand, kind: onnx_ir.AttributeType, *, lift: bool) -> onnx.AttributeProto:
    """An attribute. A float is a tensor if lifted, as what is computed from it would else be rounded."""
    if lift and kind is onnx_ir.AttributeType.FLOAT:
        return onnx.helper.make_attribute(name, onnx.numpy_helper.from_array(np.array(value)))
    return onnx.helper.make_attribute(name, value, attr_type=kind.value)


def frozen(literal: Operand) -> Any:
    """A literal in a form that says the same after the graph is copied: computed numbers by their names."""
    if isinstance(literal, Value):
        return literal.name
    return tuple(frozen(item) for item in literal) if isinstance(literal, list | tuple) else (literal,)


def _attribute_type(literal: Operand) -> onnx_ir.AttributeType:
    several = items_of(literal)
    if isinstance(several[0] if several else literal, int):
        return onnx_ir.AttributeType.INTS if several else onnx_ir.AttributeType.INT
    return onnx_ir.AttributeType.FLOATS if several else onnx_ir.AttributeType.FLOAT


def _shape(literal: Operand) -> tuple[int, ...]:
    """The shape of a literal: a list of numbers is a vector."""
    return (len(literal),) if isinstance(literal, list | tuple) else ()


def _lifted(proto: onnx.AttributeProto) -> onnx.AttributeProto:
    """An attribute that asks for low precision, asking for float64."""
    if proto.name in ("to", "dtype", "output_datatype", "softmax_precision") and proto.i in _LIFTED:
        return onnx.helper.make_attribute(proto.name, onnx.TensorProto.DOUBLE)
    if proto.type == onnx.AttributeProto.TENSOR and proto.t.data_type in _LIFTED:
        array = onnx.numpy_helper.to_array(proto.t).astype(np.float64)
        return onnx.helper.make_attribute(proto.name, onnx.numpy_helper.from_array(array))
    return proto


_ON_SIZES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "size.axis": lambda operands: int(operands["self"].shape[operands["dim"]]),
    "size.element": lambda operands: int(operands["self"].flatten()[operands["index"]]),
    "size.pack": lambda operands: torch.tensor([int(item) for item in operands["items"]], dtype=torch.int64),
    "size.times": lambda operands: operands["self"] * operands["other"],
    "size.over": lambda operands: operands["self"] // operands["other"],
}
"""The size of one axis, one element of a vector, a vector of numbers, a multiple of a number, and a part of one."""


class OnnxDialect:
    """ONNX operators, run by onnx's reference implementation.

    Attributes:
        opset: of the default domain.
    """

    name = "onnx"
    assertions: Collection[str] = ()
    spellings = SPELLINGS

    def __init__(self, opset: int) -> None:
        self.opset = opset

    def run(self, node: Node, operands: Mapping[str, Any], *, lift: bool = False) -> Sequence[Any]:
        if node.op in _ON_SIZES:
            return [_ON_SIZES[node.op](operands)]
        if node.op == "onnx.If":
            return list(operands["then_branch" if bool(operands["cond"]) else "else_branch"])
        target: Target = node.target
        resolved = replace(node, operands=dict(operands))
        call = target.call(resolved, lift=lift)
        if self.is_random(node) and "seed" not in target.attributes:
            call = call.seeded(float(crc32(node.name.encode()) % 1000))
        arrays = [
            _array(operand, target.literal_types.get(place), lift=lift) for place, operand in target.operands(resolved)
        ]
        results = run_call(call, arrays)
        return [to_torch(result) if isinstance(result, np.ndarray) else result for result in results]

    def mutates(self, node: Node) -> bool:  # noqa: ARG002  nothing does
        return False

    def writes(self, node: Node) -> Collection[Value]:  # noqa: ARG002
        return ()

    def aliases(self, node: Node) -> Collection[Value]:  # noqa: ARG002
        return ()

    def is_random(self, node: Node) -> bool:
        return node.op.removeprefix("onnx.").startswith(_RANDOM)

    def respell(self, node: Node, op: str, operands: dict[str, Operand]) -> None:
        new = {name: literal for name, literal in operands.items() if name not in node.operands}
        node.target = node.target.respelled(op.removeprefix(f"{node.target.domain or 'onnx'}."), new)
        node.op, node.operands = op, operands

    def copy(self, node: Node) -> Node:
        if node.op.startswith(_CONTROL):
            raise GraphcloneError(f"{node.name}: a block that holds a loop or a condition cannot be repeated")
        return replace(node, target=None if node.target is None else replace(node.target, node=None))

    def multiply(self, value: Value, factor: float, name: str) -> Node:
        out = Value(name, value.shape, value.dtype, value.dynamic)
        if value.is_tensor:
            literal_types = {("B", 0): LiteralType(data_type(value.dtype), ())}
            target = Target("", "Mul", self.opset, ("A", "B"), literal_types=literal_types)
            node = Node(name, "onnx.Mul", {"A": value, "B": factor}, [out], target)
        else:
            node = Node(name, "size.times", {"self": value, "other": factor}, [out])
        out.producer = node
        return node

    def divide(self, size: Value, divisor: int, name: str) -> Node:
        out = Value(name, size.shape, size.dtype, size.dynamic)
        node = Node(name, "size.over", {"self": size, "other": divisor}, [out])
        out.producer = node
        return node


def _array(operand: Any, literal_type: LiteralType | None, *, lift: bool) -> Any:
    if isinstance(operand, torch.Tensor):
        return to_array(operand)
    return literal_type.array(operand, lift=lift) if literal_type is not None and operand is not None else operand
