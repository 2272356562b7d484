"""ONNX operators: what their operands are called, how one is run by itself, and what shapes its results have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import shape_inference
from onnx.reference import ReferenceEvaluator

from graphclone.formats.onnx.evaluator.old import OLDEST_KNOWN, RENAMED, respelled
from graphclone.formats.onnx.evaluator.own import attribute_value
from graphclone.formats.onnx.evaluator.reference import OPERATORS
from graphclone.runtime.arrays import Array

_TENSOR_SHAPE = tuple[int | None, ...]

VERSIONED = {"Softmax": 13, "LogSoftmax": 13, "Hardmax": 13, "PRelu": 7}
"""Operators that meant something else before an opset: they flattened their operand to two axes, or had a slope for
each channel."""


class UnknownOpError(Exception):
    """No schema is known for an operator."""


@dataclass(frozen=True)
class Schema:
    """An operator of some version.

    Attributes:
        inputs: their formal names.
        variadic: whether the last input stands for any number of them.
        version: opset since which it is what it is.
    """

    inputs: tuple[str, ...]
    variadic: bool
    version: int
    definition: Any

    def place(self, index: int) -> tuple[str, bool]:
        """The formal name of the input at a position, and whether it is one of several under that name."""
        if self.variadic and index >= len(self.inputs) - 1:
            return self.inputs[-1], True
        return self.inputs[index], False


@cache
def schema(domain: str, op: str, opset: int) -> Schema:
    """The schema of an operator in an opset.

    Raises:
        UnknownOpError: there is none.
    """
    definition = _contrib_schemas().get((domain, op)) if is_contrib(domain, op) else None
    if definition is None:
        try:
            definition = onnx.defs.get_schema(op, opset, domain)
        except onnx.defs.SchemaError as error:
            raise UnknownOpError(f"no operator {op} in opset {opset} of {domain or 'ai.onnx'}") from error
    inputs = tuple(parameter.name for parameter in definition.inputs)
    last = definition.inputs[-1].option if inputs else None
    variadic = last is not None and getattr(last, "name", "") == "Variadic"
    return Schema(inputs, variadic, definition.since_version, definition)


def missing_part(call: Call) -> str:
    """The required input or attribute of an operator that is not given. Empty if none is missing.

    An operator without a schema lacks nothing.
    """
    try:
        definition = schema(call.domain, call.op, call.opset).definition
    except UnknownOpError:
        return ""
    for index, parameter in enumerate(definition.inputs):
        several = parameter.option.name == "Variadic" and getattr(
            parameter, "min_arity", 0
        )  # ONNX Runtime's say nothing
        needed = parameter.option.name == "Single" or several
        if needed and not any(call.inputs[index : index + 1]):
            return f"input {parameter.name}"
    attributes = {onnx.AttributeProto.FromString(attribute).name for attribute in call.attributes}
    required = (name for name, attribute in definition.attributes.items() if attribute.required)
    return next((f"attribute {name}" for name in required if name not in attributes), "")


def known_opset(domain: str, op: str, opset: int) -> int:
    """The opset an operator is of, which ONNX Runtime puts into files of older opsets as well."""
    return max(opset, 17) if (domain, op) == ("", "LayerNormalization") else opset


def is_contrib(domain: str, op: str) -> bool:
    """Whether an operator is ONNX Runtime's own. It has a few of them in the default domain."""
    return domain not in ("", "ai.onnx") or op == "SimplifiedLayerNormalization"


@cache
def _contrib_schemas() -> dict[tuple[str, str], Any]:
    """The schemas of ONNX Runtime's own operators."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    schemas = sorted(state.get_all_operator_schema(), key=lambda schema: schema.since_version)
    return {(schema.domain, schema.name): schema for schema in schemas if is_contrib(schema.domain, schema.name)}


@dataclass(frozen=True)
class Call:
    """An operator with its attributes, apart from any graph.

    Attributes:
        domain: empty for ONNX's own.
        op: its name.
        opset: version of its domain.
        attributes: as protobuf, in the order of their names.
        inputs: whether each input is given.
        outputs: whether each output is wanted.
    """

    domain: str
    op: str
    opset: int
    attributes: tuple[bytes, ...] = ()
    inputs: tuple[bool, ...] = (True,)
    outputs: tuple[bool, ...] = (True,)

    def node(self) -> onnx.NodeProto:
        """The node, with its inputs called i0, i1, .. and its outputs o0, o1, ..."""
        inputs = [f"i{i}" if present else "" for i, present in enumerate(self.inputs)]
        outputs = [f"o{i}" if present else "" for i, present in enumerate(self.outputs)]
        node = onnx.helper.make_node(self.op, inputs, outputs, domain=self.domain)
        node.attribute.extend(onnx.AttributeProto.FromString(attribute) for attribute in self.attributes)
        return node

    def cast(self, dtype: int) -> Call:
        """A cast to an element type in place of the operator."""
        to = onnx.helper.make_attribute("to", dtype).SerializeToString()
        return Call("", "Cast", self.opset, (to,))

    def without(self, name: str) -> Call:
        """The call without an attribute."""
        named = ((onnx.AttributeProto.FromString(attribute).name, attribute) for attribute in self.attributes)
        return replace(self, attributes=tuple(attribute for other, attribute in named if other != name))

    def seeded(self, seed: float) -> Call:
        """The call with a seed for what it draws."""
        return replace(
            self, attributes=(*self.attributes, onnx.helper.make_attribute("seed", seed).SerializeToString())
        )

    def integers(self) -> dict[str, int]:
        """The attributes that are integers, by name."""
        attributes = (onnx.AttributeProto.FromString(attribute) for attribute in self.attributes)
        return {a.name: a.i for a in attributes if a.type == onnx.AttributeProto.INT}

    def opsets(self) -> dict[str, int]:
        """The opset imports of a model with this node."""
        return {self.domain: self.opset} if self.domain in ("", "ai.onnx") else {"": 21, self.domain: self.opset}


def run_call(call: Call, arrays: Sequence[Array | None]) -> list[Array]:
    """Run an operator by onnx's reference implementation, in the precision of the operands.

    Raises:
        Exception: whatever the implementation raises.
    """
    if not call.domain and call.op in _FLATTENING and call.opset < VERSIONED[call.op]:
        return _flattened(call, arrays)
    call, arrays = _current(call, arrays)
    evaluator = _evaluator(call)
    feeds = {f"i{i}": array for i, array in enumerate(arrays) if array is not None}
    with np.errstate(all="ignore"):
        results: list[Array] = evaluator.run([f"o{i}" for i, present in enumerate(call.outputs) if present], feeds)
        return results


_FLATTENING = ("Softmax", "LogSoftmax", "Hardmax")


def _flattened(call: Call, arrays: Sequence[Array | None]) -> list[Array]:
    """An operator that took all axes from one on for one, which the reference implementation does not know."""
    (x,) = arrays
    assert x is not None
    axis = call.integers().get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    last = onnx.helper.make_attribute("axis", 1).SerializeToString()
    rows = x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))
    (result,) = run_call(replace(call, opset=VERSIONED[call.op], attributes=(last,)), [rows])
    return [result.reshape(x.shape)]


def _current(call: Call, arrays: Sequence[Array | None]) -> tuple[Call, Sequence[Array | None]]:
    """The call in a spelling that the reference implementation knows."""
    if call.domain or call.opset >= OLDEST_KNOWN:
        return call, arrays
    protos = [onnx.AttributeProto.FromString(attribute) for attribute in call.attributes]
    spelling = respelled(call.op, call.opset, {p.name: attribute_value(p) for p in protos}, arrays)
    if spelling is None:
        return call, arrays
    opset, attributes, arrays = spelling
    protos_now = (onnx.helper.make_attribute(name, value) for name, value in attributes.items())
    attributes_now = tuple(proto.SerializeToString(deterministic=True) for proto in protos_now)
    inputs = tuple(array is not None for array in arrays)
    return Call(call.domain, RENAMED.get(call.op, call.op), opset, attributes_now, inputs, call.outputs), arrays


@lru_cache(maxsize=4096)
def _evaluator(call: Call) -> Any:
    return ReferenceEvaluator(call.node(), opsets=call.opsets(), new_ops=OPERATORS)


@dataclass
class TensorInfo:
    """The known type, shape and, if they are few, elements of an operand or a result.

    Attributes:
        dtype: one of ``onnx.TensorProto``'s types; 0 for what is no tensor.
        shape: sizes, None where one depends on data; None as a whole for what is no tensor.
        array: the elements.
    """

    dtype: int
    shape: _TENSOR_SHAPE | None
    array: Array | None = field(default=None, repr=False)


def infer(call: Call, operands: Sequence[TensorInfo | None]) -> list[TensorInfo] | None:
    """The types and shapes of an operator's results; None where nothing is known about them.

    Raises:
        Exception: whatever onnx or ONNX Runtime raise where operands do not fit together.
    """
    if not is_contrib(call.domain, call.op):
        return _infer_standard(call, operands)
    return _infer_contrib(call, tuple(_Key.of(operand) for operand in operands))


_LIKE_FIRST = ("GroupNormalization", "MeanVarianceNormalization")
"""Operators whose result looks like their first operand. onnx infers nothing about them."""

_INFERRED_SINCE = {"GreaterOrEqual": 16, "LessOrEqual": 16}
"""The first opset in which onnx infers something of an operator that means the same in those before."""


def _infer_standard(call: Call, operands: Sequence[TensorInfo | None]) -> list[TensorInfo] | None:
    if call.op in _LIKE_FIRST and operands[0] is not None:
        return [TensorInfo(operands[0].dtype, operands[0].shape)]
    definition = schema("", call.op, max(call.opset, _INFERRED_SINCE.get(call.op, 0))).definition
    infos = {f"i{i}": info for i, info in enumerate(operands) if info is not None}
    types = {name: _type(info) for name, info in infos.items()}
    data = {
        name: onnx.numpy_helper.from_array(info.array, name) for name, info in infos.items() if info.array is not None
    }
    imports = [onnx.helper.make_opsetid("", call.opset)]
    inferred = shape_inference.infer_node_outputs(definition, call.node(), types, data, opset_imports=imports)
    results = [inferred.get(f"o{i}") for i, present in enumerate(call.outputs) if present]
    if all(result is None for result in results):
        return None
    result_infos = [info_of_type(result) if result is not None else TensorInfo(0, None) for result in results]
    if call.op == "Dropout":  # of whose mask onnx infers the shape in later opsets only
        result_infos = [TensorInfo(result.dtype, result_infos[0].shape) for result in result_infos]
    return result_infos


def _type(info: TensorInfo) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(info.dtype, info.shape)


def info_of_type(type_: onnx.TypeProto) -> TensorInfo:
    """The information in a declared type."""
    if not type_.HasField("tensor_type"):
        return TensorInfo(0, None)
    tensor = type_.tensor_type
    if not tensor.HasField("shape"):
        return TensorInfo(tensor.elem_type, None)
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorInfo(tensor.elem_type, shape)


@dataclass(frozen=True)
class _Key:
    """A known operand in a form that can be looked up."""

    dtype: int
    shape: _TENSOR_SHAPE | None
    data: bytes | None
    kind: str

    @classmethod
    def of(cls, info: TensorInfo | None) -> _Key | None:
        if info is None:
            return None
        array = info.array
        data, kind = (None, "") if array is None else (np.ascontiguousarray(array).tobytes(), array.dtype.str)
        return cls(info.dtype, info.shape, data, kind)

    def zeros(self) -> Array:
        """The operand, or zeros where its elements are not known."""
        if self.data is not None:
            return onnx.numpy_helper.to_array(self.tensor("known"))
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.dtype)
        return np.zeros([size or 0 for size in self.shape or ()], dtype)

    def tensor(self, name: str) -> onnx.TensorProto:
        """The operand as an initializer."""
        assert self.data is not None
        shape = [size or 0 for size in self.shape or ()]
        return onnx.helper.make_tensor(name, self.dtype, shape, self.data, raw=True)


@lru_cache(maxsize=4096)
def _infer_contrib(call: Call, operands: tuple[_Key | None, ...]) -> list[TensorInfo] | None:
    """Ask ONNX Runtime, which loads a model of this one node; what it does not know our own implementation may."""
    import onnxruntime

    keys = {f"i{i}": key for i, key in enumerate(operands) if key is not None}
    graph = onnx.helper.make_graph(
        [call.node()],
        "one",
        [
            onnx.helper.make_tensor_value_info(name, key.dtype, key.shape)
            for name, key in keys.items()
            if key.data is None
        ],
        [onnx.helper.make_empty_tensor_value_info(f"o{i}") for i, present in enumerate(call.outputs) if present],
        [key.tensor(name) for name, key in keys.items() if key.data is not None],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in call.opsets().items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:  # it has no implementation for a CPU
        return _tried(call, operands)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail as refusal:  # or one that lacks what attributes ask for
        if "during initialization" not in str(refusal):
            raise
        return _tried(call, operands)
    ports = {port.name: port for port in session.get_outputs()}
    results = [_of_port(ports[f"o{i}"]) for i, present in enumerate(call.outputs) if present]
    # A result of unknown rank is shown like a scalar
    return results if all(result.shape for result in results) else _tried(call, operands)


_LEARNERS = "ai.onnx.ml"


def _tried(call: Call, operands: Sequence[_Key | None]) -> list[TensorInfo] | None:
    """The types and shapes of what our own implementation, or onnx's of classical learners, makes of zeros."""
    ours = (call.domain, call.op) in {(cls.op_domain, cls.__name__) for cls in OPERATORS}
    if not ours and call.domain != _LEARNERS:
        return None
    if any(key is not None and (key.shape is None or None in key.shape) for key in operands):
        return None
    tensors = [None if key is None else key.zeros() for key in operands]
    try:
        results = run_call(call, tensors)
    except NotImplementedError:  # onnx knows the operator, but cannot run it
        return None
    if any(not isinstance(result, np.ndarray) or result.dtype.kind in "OUS" for result in results):
        return None  # dictionaries, and texts
    return [TensorInfo(onnx.helper.np_dtype_to_tensor_dtype(result.dtype), result.shape) for result in results]


_PORT_TYPES: Mapping[str, int] = {
    "float": onnx.TensorProto.FLOAT,
    **{name.lower(): number for name, number in onnx.TensorProto.DataType.items()},
}


def _of_port(port: Any) -> TensorInfo:
    name = port.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in port.shape)
    return TensorInfo(_PORT_TYPES.get(name, 0), shape)
