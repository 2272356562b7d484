"""From an ONNX model to a graph.

Nodes keep ONNX's operators and its names of operands. What the algebra calls literals (sizes, axes, scalar factors)
lies in ONNX files as attributes, as initializers or as computed tensors; here they all become literals, or numbers
the graph computes where they depend on the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.control import CONTROL, Repeated, captured
from graphclone.formats.onnx.dialect import InputPlace, LiteralType, OnnxDialect, Target, frozen
from graphclone.formats.onnx.file import NOTES_KEY, load
from graphclone.formats.onnx.given_shapes import check_shape, declared_shapes
from graphclone.formats.onnx.ops import VERSIONED, Call, UnknownOpError, schema
from graphclone.formats.onnx.plain import make_plain, values_of
from graphclone.formats.onnx.reading import Reading, call_of, read_facts
from graphclone.formats.onnx.sizes import Fact
from graphclone.formats.onnx.tensors import OnnxTensor, dtype_name, to_torch
from graphclone.graph.ir import Graph, Initializer, Node, Operand, Output, Role, Value
from graphclone.graph.names import fresh

_LITERALS = {
    "AffineGrid": ("size",),
    "CenterCropPad": ("shape",),
    "Clip": ("min", "max"),
    "Col2Im": ("image_shape", "block_shape"),
    "ConstantOfShape": ("input",),
    "CumProd": ("axis",),
    "CumSum": ("axis",),
    "DFT": ("dft_length", "axis"),
    "Dropout": ("ratio", "training_mode"),
    "Expand": ("shape",),
    "MaxUnpool": ("output_shape",),
    "OneHot": ("depth",),
    "Pad": ("pads", "constant_value", "axes"),
    "Range": ("start", "limit", "delta"),
    "Reshape": ("shape",),
    "Resize": ("roi", "scales", "sizes"),
    "STFT": ("frame_step", "frame_length"),
    "Slice": ("starts", "ends", "axes", "steps"),
    "Split": ("split",),
    "Squeeze": ("axes",),
    "Tile": ("repeats",),
    "TopK": ("K",),
    "Trilu": ("k",),
    "Unsqueeze": ("axes",),
    "Upsample": ("scales",),
    **{
        f"Reduce{kind}": ("axes",)
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
}
"""The inputs that are sizes, axes and other numbers rather than data, by operator."""

_ARITHMETIC = {
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Mod", "Sum", "Mean"),
    *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor"),
}
"""Operators whose operands may be single numbers."""

_NUMBERS = (
    onnx_ir.AttributeType.INT,
    onnx_ir.AttributeType.FLOAT,
    onnx_ir.AttributeType.STRING,
    onnx_ir.AttributeType.INTS,
    onnx_ir.AttributeType.FLOATS,
    onnx_ir.AttributeType.STRINGS,
)


@dataclass(frozen=True, eq=False)
class Origin:
    """The file that an ONNX graph was read from.

    Attributes:
        path: of the file.
        model: as onnx-ir read it, functions and decided branches inlined.
        reading: sizes of its dynamic axes, and facts about its values.
        file_values: the value of the model behind each of the graph's, by name; initializers may share one.
    """

    path: Path
    model: onnx_ir.Model
    reading: Reading
    file_values: dict[str, onnx_ir.Value] = field(default_factory=dict)


def read_graph(path: Path, name: str | None = None, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Read an ONNX file.

    Args:
        path: of the model, with its external data beside it.
        name: for messages.
        shapes: of inputs that are known to be accepted, by name.

    Returns:
        The graph, whose initializers are read when they are wanted.

    Raises:
        GraphcloneError: it cannot be read, nothing says what shapes its tensors have, or shapes that are given do not
            fit.
    """
    model = load(path)
    declared = declared_shapes(model)
    for port, shape in (shapes or {}).items():
        check_shape(port, shape, declared)
    return from_model(model, path, name or path.name, shapes)


def from_model(model: onnx_ir.Model, path: Path, name: str, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph of a model that has been read from a file."""
    make_plain(model, name)
    return _ModelImporter(Origin(path, model, read_facts(model, name, shapes=shapes)), name).graph()


@dataclass
class _ModelImporter:
    origin: Origin
    name: str
    values: dict[onnx_ir.Value, Value] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    node_names: set[str] = field(default_factory=set)
    nodes: list[Node] = field(default_factory=list)
    initializers: list[Initializer] = field(default_factory=list)
    shared: dict[onnx_ir.Value, bool] = field(default_factory=dict)

    @property
    def model(self) -> onnx_ir.Model:
        return self.origin.model

    def graph(self) -> Graph:
        reading = self.origin.reading
        graph = self.model.graph
        self.names = {value.name or "" for body in self.model.graphs() for value in values_of(body)}
        inputs = [self.input(value) for value in graph.inputs if value.name not in graph.initializers]
        self.body(graph)
        outputs = [Output(value.name or "", self.tensor(value, "returned")) for value in graph.outputs]
        return Graph(
            name=self.name,
            inputs=inputs,
            initializers=self.initializers,
            nodes=self.nodes,
            outputs=outputs,
            dialect=OnnxDialect(self.model.opset_imports.get("", 0)),
            notes=[*self.model.meta.get(NOTES_KEY, ()), *reading.notes],
            origin=self.origin,
        )

    def body(self, graph: onnx_ir.Graph) -> None:
        for node in graph:
            if node.op_type in CONTROL and not node.domain:
                self.control(node)
            elif not self.origin.reading.folded(node):
                self.node(node)

    # Values

    def input(self, value: onnx_ir.Value, role: Role = "input") -> Value:
        self.values[value] = self.value(value, role)
        return self.values[value]

    def value(self, value: onnx_ir.Value, role: Role = "node", name: str | None = None) -> Value:
        fact = self.origin.reading.of(value)
        name = name or value.name or ""
        self.origin.file_values[name] = value
        if fact.shape is None:
            return Value(name, None, "", role=role)
        dtype = dtype_name(onnx_ir.DataType(fact.dtype))
        return Value(name, fact.shape, dtype, self.origin.reading.sizes.dynamic(fact), role)

    def tensor(self, value: onnx_ir.Value, reader: str) -> Value:
        """The value as a tensor that a node reads."""
        if value in self.values:
            return self.values[value]
        proto = self.origin.reading.stored(value)
        if proto is not None and not self.each_its_own(value, proto):
            self.values[value] = self.initializer(value, value.name or "", OnnxTensor(proto))
            return self.values[value]
        tensor = OnnxTensor(proto) if proto is not None else to_torch(self.elements(value).copy())
        name = value.name or ""
        clash = name in self.origin.file_values
        return self.initializer(value, fresh(f"{name}_for_{reader}", self.names) if clash else name, tensor)

    def elements(self, value: onnx_ir.Value) -> Any:
        elements = self.origin.reading.of(value).constant
        assert elements is not None, f"{value.name} is read before it is computed"
        return elements

    def each_its_own(self, value: onnx_ir.Value, proto: onnx_ir.TensorProtocol) -> bool:
        """Whether the readers of an initializer may share it by chance alone.

        Exporters keep one of all initializers of equal content. Trained weights are equal only if they are tied,
        but those that hold one number throughout, and tables of integers, often are.
        """
        if value not in self.shared:
            many = len(value.uses()) > 1
            self.shared[value] = many and (proto.dtype.is_integer() or _holds_one_number(proto))
        return self.shared[value]

    def initializer(self, value: onnx_ir.Value, name: str, tensor: Any) -> Value:
        result = self.value(value, "initializer", name)
        kind = "parameter" if self.origin.reading.is_weight(value) else "constant"
        self.initializers.append(Initializer(result, (name,), kind, tensor))  # type: ignore[arg-type]
        return result

    # Nodes

    def node(self, node: onnx_ir.Node) -> None:
        name = self.fresh_node(node)
        if (node.domain, node.op_type) == ("", "Shape"):
            self.shape(node, name)
            return
        target, operands = self.spelled(node, name)
        outputs = [self.value(output) for output in node.outputs if output.name]
        self.append(Node(name, self.op(node), operands, outputs, target, _scope(node)))
        self.values.update(zip((output for output in node.outputs if output.name), outputs, strict=True))

    def control(self, node: onnx_ir.Node) -> None:
        """The bodies lie in the graph like any nodes; a node before and one after say how values pass."""
        name = self.fresh_node(node)
        if node.op_type == "If":
            branches = [node.attributes[branch].as_graph() for branch in ("then_branch", "else_branch")]
            for branch in branches:
                self.body(branch)
            assert node.inputs[0] is not None
            operands: dict[str, Operand] = {"cond": self.tensor(node.inputs[0], name)}
            operands |= {
                key: [self.tensor(value, name) for value in branch.outputs]
                for key, branch in zip(("then_branch", "else_branch"), branches, strict=True)
            }
            self.leave(node, name, operands)
            return
        repeated = Repeated.of(node)
        inward, outward = repeated.directions
        operands = {
            **self.present(dict(zip(("count", "cond"), repeated.limits, strict=True)), name),
            "states": [self.tensor(before, name) for before, *_ in repeated.states],
            "scanned": [self.tensor(whole, name) for whole, *_ in repeated.scanned],
            "axes": [axis for _, axis, _ in repeated.scanned],
            "directions": list(inward),
        }
        inside = [self.input(value, "node") for value in repeated.body.inputs]  # which the node of the body computes
        target = Target("", node.op_type, 0, (), node=node)
        self.append(Node(f"{name}_body", f"onnx.{node.op_type}.body", operands, inside, target, several=True))
        self.body(repeated.body)
        after = {
            **self.present({"cond": repeated.goes_on}, name),
            "states": [self.tensor(value, name) for _, _, value, _ in repeated.states],
            "before": operands["states"],
            "stacked": [self.tensor(value, name) for value, *_ in repeated.stacked],
            "axes": [axis for _, axis, _ in repeated.stacked],
            "directions": list(outward),
        }
        self.leave(node, name, after)

    def present(self, values: Mapping[str, onnx_ir.Value | None], reader: str) -> dict[str, Operand]:
        """Those of some operands that are given, as tensors."""
        return {key: self.tensor(value, reader) for key, value in values.items() if value is not None}

    def leave(self, node: onnx_ir.Node, name: str, operands: dict[str, Operand]) -> None:
        outputs = [self.value(output) for output in node.outputs]
        target = Target("", node.op_type, 0, (), node=node)
        self.append(Node(name, f"onnx.{node.op_type}", operands, outputs, target, several=True))
        self.values.update(zip(node.outputs, outputs, strict=True))

    def fresh_node(self, node: onnx_ir.Node) -> str:
        """The name of the node, or one after its operator and its first result."""
        return fresh(node.name or f"{node.op_type}_{node.outputs[0].name}", self.node_names)

    def op(self, node: onnx_ir.Node) -> str:
        """The qualified name by which rules know the operator."""
        domain = node.domain or "onnx"
        old = node.domain == "" and self.model.opset_imports[""] < VERSIONED.get(node.op_type, 0)
        return f"{domain}.{node.op_type}{'.1' if old else ''}"

    def append(self, node: Node) -> None:
        for output in node.outputs:
            output.producer = node
        self.nodes.append(node)

    def shape(self, node: onnx_ir.Node, name: str) -> None:
        """A shape is put together from literals and the sizes of dynamic axes, so that nothing else is read."""
        source, result = node.inputs[0], node.outputs[0]
        assert source is not None
        x, vector = self.tensor(source, name), self.value(result)
        bounds = (node.attributes[name].as_int() if name in node.attributes else None for name in ("start", "end"))
        axes = range(x.rank)[slice(*bounds)]
        items: list[Operand] = [
            self.number(f"{vector.name}_{axis}", "size.axis", {"self": x, "dim": axis})
            if axis in x.dynamic
            else x.shape[axis]  # type: ignore[index]
            for axis in axes
        ]
        target = Target("", "Shape", 0, (), node=node)
        self.append(Node(name, "size.pack", {"items": items}, [vector], target))
        self.values[result] = vector

    def number(self, name: str, op: str, operands: dict[str, Operand]) -> Value:
        name = fresh(name, self.names)
        value = Value(name, None, "")
        self.append(Node(fresh(name, self.node_names), op, operands, [value]))
        return value

    # Operands

    def spelled(self, node: onnx_ir.Node, name: str) -> tuple[Target, dict[str, Operand]]:
        call = call_of(self.model, node)
        formal = self.formal(call, node)
        operands: dict[str, Operand] = {}
        lists: dict[str, list[Operand]] = {key: [] for key, several in formal if several}
        literal_types: dict[InputPlace, LiteralType] = {}
        literals: dict[InputPlace, Any] = {}
        for (key, several), (index, value) in zip(formal, enumerate(node.inputs), strict=False):
            place = (key, len(lists[key]) if several else 0)
            operand = None if value is None else self.operand(node, key, value, name)
            if operand is not None and not (isinstance(operand, Value) and operand.is_tensor):
                fact = self.origin.reading.of(node.inputs[index])  # type: ignore[arg-type]
                literals[place] = frozen(operand)
                literal_types[place] = LiteralType(onnx_ir.DataType(fact.dtype), fact.shape or ())
            if several:
                lists[key].append(operand)
            operands[key] = lists[key] if several else operand
        numbers = {k: a for k, a in node.attributes.items() if a.type in _NUMBERS}
        operands.update({k: _literal(attribute.value) for k, attribute in numbers.items()})
        operands.update(_fill(node))
        if outer := captured(node):
            operands["captured"] = [self.tensor(value, name) for value in outer]
        names = tuple(dict.fromkeys(key for key, _ in formal))
        target = Target(
            domain=node.domain,
            op=node.op_type,
            opset=call.opset,
            inputs=names,
            variadic=any(several for _, several in formal),
            attributes={k: attribute.type for k, attribute in numbers.items()},
            fixed=_fixed(call, numbers),
            literal_types=literal_types,
            literals=literals,
            outputs=call.outputs,
            node=node,
        )
        return target, operands

    def formal(self, call: Call, node: onnx_ir.Node) -> list[tuple[str, bool]]:
        """For every input its formal name, and whether others share it."""
        try:
            definition = schema(call.domain, call.op, call.opset)
        except UnknownOpError:
            return [(f"input_{i}", False) for i in range(len(node.inputs))]
        if len(node.inputs) > len(definition.inputs) and not definition.variadic:
            raise GraphcloneError(f"{self.name}: {node.name} ({node.op_type}) has {len(node.inputs)} inputs")
        return [definition.place(i) for i in range(len(node.inputs))]

    def operand(self, node: onnx_ir.Node, key: str, value: onnx_ir.Value, reader: str) -> Operand:
        fact = self.origin.reading.of(value)
        if not node.domain and key in _LITERALS.get(node.op_type, ()) and fact.arrays is not None:
            literal = self.literal(value, fact, reader)
            if literal is not None:
                return literal
        if not node.domain and node.op_type in _ARITHMETIC and fact.constant is not None and fact.constant.size == 1:
            return _literal(fact.constant.item())
        return self.tensor(value, reader)

    def literal(self, value: onnx_ir.Value, fact: Fact, reader: str) -> Operand:
        """Numbers, some of which the graph may compute; None where not even their count is known."""
        assert fact.arrays is not None
        assert fact.static_mask is not None
        if len({array.shape for array in fact.arrays}) > 1 or fact.arrays[0].ndim > 1:
            return None
        elements, mask = fact.arrays[0].flatten(), fact.static_mask.flatten()
        items: list[Operand] = [
            element.item() if sure else self.element(value, i, reader)
            for i, (element, sure) in enumerate(zip(elements, mask, strict=True))
        ]
        return items if fact.arrays[0].ndim else items[0]

    def element(self, value: onnx_ir.Value, index: int, reader: str) -> Value:
        operands: dict[str, Operand] = {"self": self.tensor(value, reader), "index": index}
        return self.number(f"{value.name}_{index}", "size.element", operands)


def _scope(node: onnx_ir.Node) -> str:
    """The part of the model that a node belongs to, if that is known.

    Names of nodes may be paths (``/layers.0/attention/MatMul``); or torch's exporter has noted the modules that a node
    is in, each with its class (``: Model/layers.0: Layer/linear: aten.linear``).
    """
    if "namespace" in node.metadata_props:
        modules = node.metadata_props["namespace"].split("/")[:-1]
        return modules[-1].partition(":")[0].strip() if modules else ""
    return (node.name or "").rpartition("/")[0].strip("/").replace("/", ".")


def _literal(value: Any) -> Operand:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return [_literal(item) for item in value] if isinstance(value, tuple | list) else value


def _fill(node: onnx_ir.Node) -> dict[str, Operand]:
    """The number that a tensor is filled with."""
    if node.op_type != "ConstantOfShape" or node.domain:
        return {}
    value = node.attributes.get("value")
    return {"value": 0.0 if value is None else value.as_tensor().numpy().item()}


def _fixed(call: Call, numbers: Any) -> tuple[onnx.AttributeProto, ...]:
    protos = (onnx.AttributeProto.FromString(attribute) for attribute in call.attributes)
    return tuple(proto for proto in protos if proto.name not in numbers)


def _holds_one_number(proto: onnx_ir.TensorProtocol) -> bool:
    elements = proto.numpy().reshape(-1)
    return not elements.size or (bool(elements[0] == elements[-1]) and bool((elements == elements[0]).all()))
