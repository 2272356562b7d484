"""Reading an ONNX graph: choosing sizes for its dynamic axes, and collecting facts about its values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx_ir

from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.assignments import Assignment, assignments, failed_sizes, symbol_of
from graphclone.formats.onnx.control import CONTROL, Repeated, inline_branch
from graphclone.formats.onnx.folding import constant_tensor, fold
from graphclone.formats.onnx.ops import Call, known_opset, missing_part
from graphclone.formats.onnx.sequences import plain_concats, plain_split
from graphclone.formats.onnx.sizes import LARGE, READINGS, Fact, ReadingError, Sizes
from graphclone.runtime.arrays import Array

_SIZE_TYPES = (onnx_ir.DataType.INT32, onnx_ir.DataType.INT64, onnx_ir.DataType.BOOL)
"""Element types of what is computed with rather than trained."""


@dataclass
class Reading:
    """Facts about all values of a model.

    Attributes:
        model: that was read.
        assignment: the sizes its symbols were given, one per reading.
        sizes: of its dynamic axes.
        facts: by value.
        notes: what the user should know about how it was read.
        refused: why it could not be read with sizes that say more; empty if it could.
    """

    model: onnx_ir.Model
    assignment: Assignment
    sizes: Sizes
    facts: dict[onnx_ir.Value, Fact] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    refused: str = ""

    def of(self, value: onnx_ir.Value) -> Fact:
        return self.facts[value]

    def stored(self, value: onnx_ir.Value) -> onnx_ir.TensorProtocol | None:
        """The data of an initializer, or of a node that makes what may be a weight."""
        if value.const_value is not None and value.producer() is None:
            return value.const_value
        node = value.producer()
        if node is None or node.domain or self.facts[value].constant is not None:
            return None
        if node.op_type == "Constant":
            return constant_tensor(node)
        return _filled(node, self.facts[value]) if self.is_filled(node) else None

    def is_filled(self, node: onnx_ir.Node) -> bool:
        """Whether a node makes a weight of equal numbers, as files do whose weights have been taken out."""
        if (node.domain, node.op_type) != ("", "ConstantOfShape") or "value" not in node.attributes:
            return False
        fact, fill = self.facts[node.outputs[0]], node.attributes["value"].as_tensor()
        static = fact.shapes is not None and not fact.dynamic() and prod(fact.shape or ()) > 1
        return static and fill.dtype.is_floating_point() and bool(fill.numpy().item())

    def is_weight(self, value: onnx_ir.Value) -> bool:
        """Whether a constant value may have been trained."""
        stored = self.stored(value)
        return stored is not None and stored.dtype not in _SIZE_TYPES

    def folded(self, node: onnx_ir.Node) -> bool:
        """Whether all that a node computes is constant."""
        if node.op_type == "Constant" and not node.domain:
            return True
        facts = [self.facts[output] for output in node.outputs if output.name]
        return self.is_filled(node) or all(fact.constant is not None for fact in facts)


def read_facts(
    model: onnx_ir.Model,
    name: str,
    assignment: Assignment | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Reading:
    """Collect the facts about a model; branches whose condition is known are put in place of their If.

    Args:
        model: to be read.
        name: for messages.
        assignment: sizes for its symbols, one per reading; found by trying where they are not given.
        shapes: of inputs that are known to be accepted, by name: tried where no sizes that vary can be read.

    Raises:
        GraphcloneError: an input declares no shape, or the nodes of the model do not fit together.
    """
    failures: list[_Failure] = []
    constants = fold(model)

    def told() -> Iterator[Assignment]:
        """What the first failure tells of, and what comes of that."""
        pending = [*failed_sizes(failures[0].sizes, failures[0].error.sizes)]
        for sizes in pending:  # which grows meanwhile
            yield sizes
            if len(pending) < _TOLD:
                pending += failed_sizes(sizes, failures[-1].error.sizes)

    candidates = assignments(model, name, shapes or {}, told()) if assignment is None else [assignment]
    for sizes in candidates:
        reader = _ModelReader(model, name, sizes, constants)
        try:
            reading = reader.read()
        except ReadingError as error:
            failures.append(_Failure(len(reader.facts), error, sizes))
            continue
        if failures:
            reading.refused = str(_furthest(failures))
            fixed = ", ".join(f"{symbol} = {size[0]}" for symbol, size in sizes.items() if len(set(size)) == 1)
            reading.notes += [f"read with static sizes: {fixed} ({reading.refused})"] if fixed else []
        return reading
    reason = _furthest(failures)
    raise GraphcloneError(f"{name}: {reason}") from reason


_TOLD = 16
"""Assignments from which on failures tell of no others."""


class _Failure(NamedTuple):
    """A reading that failed: after so many facts, why, and with which sizes."""

    facts: int
    error: ReadingError
    sizes: Assignment


def _furthest(failures: Sequence[_Failure]) -> ReadingError:
    """The failure that came after most facts: what stood in the way of sizes that fit better than others."""
    return max(failures, key=lambda failure: failure.facts).error


# Facts


class _ModelReader:
    def __init__(self, model: onnx_ir.Model, name: str, assignment: Assignment, constants: Mapping[str, Array]) -> None:
        self.model = model
        self.name = name
        self.constants = constants
        self.reading = Reading(model, assignment, Sizes(assignment))
        self.facts = self.reading.facts
        self.axes = assignment

    def read(self) -> Reading:
        for value in self.model.graph.inputs:
            if value.name not in self.model.graph.initializers:
                self.facts[value] = self.input(value)
        self.graph(self.model.graph)
        return self.reading

    def graph(self, graph: onnx_ir.Graph) -> None:
        """Collect facts about a graph whose inputs are known."""
        for value in graph.initializers.values():
            assert value.const_value is not None
            self.facts[value] = initializer_fact(value.const_value, numbers=_are_factors(value))
        pending = list(graph)[::-1]
        while pending:
            node = pending.pop()
            if node.graph is None:  # taken out since
                continue
            if what := missing_part(call_of(self.model, node)):
                raise GraphcloneError(f"{self.name}: {name_of(node)} ({node.op_type}) has no {what}")
            if (branch := self.decided(node)) is not None:
                pending += inline_branch(node, branch)[::-1]
            elif nodes := self.plain(node):
                pending += nodes[::-1]
            elif node.op_type in CONTROL and not node.domain:
                self.control(node)
            else:
                self.node(node)

    def input(self, value: onnx_ir.Value) -> Fact:
        if not isinstance(value.type, onnx_ir.TensorType) or value.shape is None:
            return Fact(0, None)
        sizes = [
            (size,) * READINGS if isinstance(size, int) else self.axes[symbol_of(value, axis, size)]
            for axis, size in enumerate(value.shape)
        ]
        shapes = tuple(tuple(size[reading] for size in sizes) for reading in range(READINGS))
        return Fact(value.type.dtype.value, shapes)

    def decided(self, node: onnx_ir.Node) -> onnx_ir.Graph | None:
        """The branch that an If takes whatever the inputs are."""
        if node.domain or node.op_type != "If" or node.inputs[0] is None:
            return None
        condition = self.facts[node.inputs[0]].constant
        if condition is None:
            return None
        return node.attributes["then_branch" if condition.item() else "else_branch"].as_graph()

    def plain(self, node: onnx_ir.Node) -> list[onnx_ir.Node]:
        """The nodes without a sequence that one amounts to which makes a sequence; none where there are no such."""
        if not node.domain and node.op_type == "SequenceConstruct":
            return plain_concats(node)
        if node.domain or node.op_type != "SplitToSequence" or node.inputs[0] is None:
            return []
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
        sizes = {shape[axis] for shape in self.facts[node.inputs[0]].shapes or ()}
        return plain_split(node, sizes.pop() if len(sizes) == 1 else None, self.elements)

    def fact(self, value: onnx_ir.Value) -> Fact:
        """The fact about a value, also about an initializer that has come in since the graph was begun."""
        if value not in self.facts and value.const_value is not None:
            self.facts[value] = initializer_fact(value.const_value)
        return self.facts[value]

    def elements(self, value: onnx_ir.Value) -> Array | None:
        """The elements of a value that is constant, whether its fact is there yet or not; None for another."""
        if value in self.facts:
            return self.facts[value].constant
        producer = value.producer()
        if producer is not None and producer.op_type == "Constant" and not producer.domain:
            return initializer_fact(constant_tensor(producer)).constant
        return self.constants.get(value.name or "")

    def node(self, node: onnx_ir.Node) -> None:
        outputs = [output for output in node.outputs if output.name]
        if node.op_type == "Constant" and not node.domain:
            self.facts[outputs[0]] = initializer_fact(constant_tensor(node), numbers=_are_factors(outputs[0]))
            return
        operands = [None if value is None else self.fact(value) for value in node.inputs]
        name = name_of(node)
        declared = [partial(self.declared, output) for output in outputs]
        if all(output.name in self.constants for output in outputs):
            facts = [Fact.of(self.constants[output.name or ""]) for output in outputs]
        else:
            facts = self.reading.sizes.add(name, call_of(self.model, node), operands, declared)
        self.facts.update(zip(outputs, facts, strict=True))
        if self.reading.is_filled(node):
            self.facts[outputs[0]] = unknown_elements(facts[0])

    def control(self, node: onnx_ir.Node) -> None:
        """Look into the bodies of a node; what differs between branches or rounds is a size that depends on data."""
        if node.op_type == "If":
            then, other = (node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))
            self.graph(then)
            self.graph(other)
            for result, a, b in zip(node.outputs, then.outputs, other.outputs, strict=True):
                self.facts[result] = self.either(node, self.facts[a], self.facts[b])
            return
        repeated = Repeated.of(node)
        for value in repeated.body.inputs:
            self.facts[value] = Fact(value.dtype.value if value.dtype else 0, ((),) * READINGS)
        for before, inside, _, _ in repeated.states:
            self.facts[inside] = unknown_elements(self.facts[before])
        for whole, axis, inside in repeated.scanned:
            self.facts[inside] = without_axis(self.facts[whole], axis)
        self.graph(repeated.body)
        if any(self.facts[inside].shapes != self.facts[after].shapes for _, inside, after, _ in repeated.states):
            for _, inside, after, _ in repeated.states:
                self.facts[inside] = self.either(node, self.facts[inside], self.facts[after])
            self.graph(repeated.body)
        for _, inside, _, final in repeated.states:
            self.facts[final] = self.facts[inside]
        for inside, axis, result in repeated.stacked:
            sizes = self.rounds(repeated)
            self.facts[result] = with_axis(self.facts[inside], axis, sizes)

    def rounds(self, repeated: Repeated) -> tuple[int, ...]:
        """How often a body is run, in every reading."""
        for whole, axis, _ in repeated.scanned:
            return tuple(shape[axis] for shape in self.facts[whole].shapes or ())
        return self.reading.sizes.unknown_size()

    def either(self, node: onnx_ir.Node, a: Fact, b: Fact) -> Fact:
        """What is known about a value that may be one or the other."""
        if a.shapes is None or b.shapes is None or len(a.shapes[0]) != len(b.shapes[0]):
            raise ReadingError(f"{node.name} ({node.op_type}): its bodies return different numbers of axes")
        columns = [
            one if one == other else self.reading.sizes.unknown_size()
            for one, other in zip(zip(*a.shapes, strict=True), zip(*b.shapes, strict=True), strict=True)
        ]
        return Fact(a.dtype, tuple(tuple(column[i] for column in columns) for i in range(READINGS)))

    def declared(self, value: onnx_ir.Value) -> Fact | None:
        """What the file says about a value, if it says it all."""
        if value.type is None or not isinstance(value.type, onnx_ir.TensorType):
            return Fact(0, None) if value.type is not None else None
        if value.shape is None:
            return None
        sizes: list[tuple[int, ...]] = []
        for size in value.shape:
            by_reading = (size,) * READINGS if isinstance(size, int) else self.axes.get(str(size.value))
            sizes.append(by_reading or self.reading.sizes.unknown_size())
        return Fact(value.type.dtype.value, tuple(tuple(s[i] for s in sizes) for i in range(READINGS)))


def name_of(node: onnx_ir.Node) -> str:
    """The name of a node: that of its first result, or of its operator, where it has none."""
    return node.name or next((output.name for output in node.outputs if output.name), node.op_type)


def unknown_elements(fact: Fact) -> Fact:
    """A fact without the elements of its value."""
    return Fact(fact.dtype, fact.shapes)


def without_axis(fact: Fact, axis: int) -> Fact:
    """The fact about one slice of a value."""
    shapes = [list(shape) for shape in fact.shapes or ()]
    for shape in shapes:
        shape.pop(axis)
    return Fact(fact.dtype, tuple(map(tuple, shapes)))


def with_axis(fact: Fact, axis: int, sizes: Sequence[int]) -> Fact:
    """The fact about slices put side by side along a new axis."""
    shapes = [list(shape) for shape in fact.shapes or ()]
    for shape, size in zip(shapes, sizes, strict=True):
        shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, size)
    return Fact(fact.dtype, tuple(map(tuple, shapes)))


def _are_factors(value: onnx_ir.Value, depth: int = 3) -> bool:
    """Whether a value, or one put together with it, says by how much something is resized."""
    for node, index in value.uses():
        if node.op_type in ("Resize", "Upsample") and index > 0 and not node.domain:
            return True
        if node.op_type in ("Concat", "Cast") and depth and _are_factors(node.outputs[0], depth - 1):
            return True
    return False


def initializer_fact(tensor: Any, *, numbers: bool = False) -> Fact:
    """The fact about stored data, which is read only where it is, or may be, sizes or a single number."""
    shape = tuple(int(size) for size in tensor.shape)
    count = prod(shape)
    small = count == 1 or (tensor.dtype in _SIZE_TYPES and count <= LARGE) or (numbers and count <= 32)
    if small and tensor.dtype != onnx_ir.DataType.STRING:
        return Fact.of(np.asarray(tensor.numpy()).reshape(shape))
    return Fact(tensor.dtype.value, (shape,) * READINGS)


def _filled(node: onnx_ir.Node, fact: Fact) -> onnx_ir.TensorProtocol:
    fill = node.attributes["value"].as_tensor()
    shape = fact.shape or ()
    return onnx_ir.LazyTensor(
        lambda: onnx_ir.tensor(np.full(shape, fill.numpy().item(), fill.dtype.numpy())),
        dtype=fill.dtype,
        shape=onnx_ir.Shape(shape),
        name=node.outputs[0].name,
    )


def call_of(model: onnx_ir.Model, node: onnx_ir.Node) -> Call:
    """The operator of a node with its attributes."""
    protos = [onnx_ir.serde.serialize_attribute(attribute) for _, attribute in sorted(node.attributes.items())]
    inputs = [value is not None for value in node.inputs]
    while inputs and not inputs[-1]:
        inputs.pop()
    return Call(
        domain="" if node.domain == "ai.onnx" else node.domain,
        op=node.op_type,
        opset=known_opset(node.domain, node.op_type, model.opset_imports.get(node.domain, 1)),
        attributes=tuple(_bytes(proto) for proto in protos),
        inputs=tuple(inputs),
        outputs=tuple(bool(output.name) for output in node.outputs),
    )


def _bytes(proto: onnx.AttributeProto) -> bytes:
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
