"""A small ONNX model, and the ways to break it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

Change = Callable[[ModelProto], object]

OUTPUT = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
FLOATS = np.arange(12, dtype=np.float32).reshape(3, 4)


def small() -> ModelProto:
    """``y = relu(x @ w + b)``, with one weight as bytes and one as numbers."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="mm"),
        helper.make_node("Add", ["h", "b"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    weights = [numpy_helper.from_array(FLOATS, "w"), helper.make_tensor("b", TensorProto.FLOAT, [4], [1, 2, 3, 4])]
    graph = helper.make_graph(nodes, "main", inputs, [OUTPUT], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def changed(*changes: Change) -> ModelProto:
    model = small()
    for change in changes:
        change(model)
    return model


def adding(node: NodeProto) -> Change:
    return lambda model: model.graph.node.append(node)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> Change:
    return adding(helper.make_node(op, inputs, outputs, **attributes))


def weight(**fields: object) -> Change:
    """Change fields of the initializer w."""

    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            tensor.ClearField(name)
            getattr(tensor, name).extend(value) if isinstance(value, list) else setattr(tensor, name, value)

    return change


def external(tensor: TensorProto, **entries: object) -> None:
    """Let a tensor lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def branches(then: Sequence[NodeProto], result: str = "t", otherwise: str = "e") -> NodeProto:
    """An If whose branches are these nodes, and a Neg."""
    returned = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 4]) for name in (result, otherwise)]
    other = [helper.make_node("Neg", ["s"], [otherwise])]
    graphs = helper.make_graph(then, "then", [], returned[:1]), helper.make_graph(other, "else", [], returned[1:])
    return helper.make_node("If", ["c"], ["chosen"], name="if", then_branch=graphs[0], else_branch=graphs[1])


def condition(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))


def nested(depth: int) -> Change:
    """Ifs within each other."""

    def change(model: ModelProto) -> None:
        condition(model)
        graph, result = model.graph, "chosen"
        for _ in range(depth):
            inner = graph.node.add(op_type="If", input=["c"], output=[result])
            for name in ("else_branch", "then_branch"):
                graph, result = inner.attribute.add(name=name, type=AttributeProto.GRAPH).g, "t"
                graph.output.add(name=result)
                if name == "else_branch":
                    graph.node.add(op_type="Neg", input=["s"], output=[result])
        graph.node.add(op_type="Relu", input=["s"], output=[result])

    return change


def function(name: str, *called: str, domain: str = "own", **fields: object) -> FunctionProto:
    """A function of one input that calls others of the domain own, one after the other."""
    names = ["a", *(f"v{i}" for i in range(len(called)))]
    nodes = [helper.make_node(op, [a], [b], domain="own") for op, (a, b) in zip(called, pairwise(names), strict=True)]
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    return helper.make_function(domain, name, ["a"], names[-1:], nodes, opsets, **fields)


def functions(*made: FunctionProto) -> Change:
    """Give the model functions, and call the first of them."""

    def change(model: ModelProto) -> None:
        model.functions.extend(made)
        model.opset_import.append(helper.make_opsetid("own", 1))
        model.graph.node.append(helper.make_node(made[0].name, ["s"], ["f"], domain="own"))

    return change


def attribute(**fields: object) -> Change:
    """Give the Relu an attribute."""
    return lambda model: model.graph.node[-1].attribute.append(AttributeProto(name="a", **fields))


def value_info(**type_fields: object) -> Change:
    return lambda model: model.graph.value_info.add(name="h", type=TypeProto(**type_fields))


def _opset(*versions: int, domain: str = "") -> Change:
    def change(model: ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(domain, version) for version in versions)

    return change


def _sparse(model: ModelProto) -> None:
    values, places = numpy_helper.from_array(FLOATS[0, :1], "thin"), numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [9]))


def _double(bomb: int) -> Change:
    """Functions that call the next one twice."""
    return functions(*(function(f"f{i}", f"f{i + 1}", f"f{i + 1}") for i in range(bomb)), function(f"f{bomb}"))


def _input(name: str, element: int, shape: Sequence[int]) -> Change:
    return lambda model: model.graph.input.append(helper.make_tensor_value_info(name, element, shape))


_SHORT = TensorProto(data_type=TensorProto.INT64, dims=[3], int64_data=[1, 2])
_GRAPH = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "inner", [], [OUTPUT])
_GRAPH.output[0].name = "t"
_SHADOWED = helper.make_graph([helper.make_node("MatMul", ["x"], ["h"])], "inner", [], [OUTPUT])

BROKEN: dict[str, tuple[Change, str]] = {
    "no-graph": (lambda m: m.ClearField("graph"), "has no graph: it is no ONNX model, or its end is missing"),
    "no-ir-version": (lambda m: m.ClearField("ir_version"), "says no IR version"),
    "negative-ir-version": (lambda m: setattr(m, "ir_version", -3), "says no IR version"),
    "no-outputs": (lambda m: m.graph.ClearField("output"), "its graph has no outputs, so it computes nothing"),
    "no-opset": (_opset(), "the model says no version (opset_import) of ONNX's operators"),
    "no-opset-version": (lambda m: m.opset_import[0].ClearField("version"), "the model says no version (opset_import)"),
    "other-opset": (_opset(17, domain="own"), "the model says no version (opset_import)"),
    "old-opset": (_opset(6), "the model uses opset 6; 7 to 26 can be read; onnx.version_converter.convert_version("),
    "new-opset": (_opset(27), "the model uses opset 27; 7 to 26 can be read"),
    "negative-opset": (_opset(-1), "the model uses opset -1; 7 to 26"),
    "two-opsets": (_opset(17, 17, 11), "the model imports ONNX's operators more than once (opsets 17, 11)"),
    "two-opsets-of-one": (
        lambda m: m.opset_import.extend(helper.make_opsetid("own", version) for version in (1, 2)),
        "the model imports the operators of 'own' more than once (opsets 1, 2)",
    ),
    # Values
    "undefined-input": (node("Neg", ["q"], ["z"], name="bad"), "node 'bad' ('Neg') reads 'q', which nothing makes"),
    "undefined-output": (lambda m: m.graph.output.add(name="q"), "graph 'main' returns 'q', which nothing in it makes"),
    "unnamed-output": (lambda m: m.graph.output.add(), "graph 'main' returns '', which nothing in it makes"),
    "unnamed-input": (lambda m: m.graph.input.add(), "an input of graph 'main' has no name"),
    "unnamed-initializer": (weight(name=""), "an initializer of graph 'main' has no name"),
    "two-inputs": (_input("x", TensorProto.FLOAT, [2]), "graph 'main' has two inputs that are called 'x'"),
    "two-initializers": (weight(name="b"), "graph 'main' has two initializers that are called 'b'"),
    "made-twice": (node("Neg", ["x"], ["s"]), "the 'Neg' node that makes 's' makes 's', which exists already"),
    "made-twice-by-one": (node("Split", ["x"], ["p", "p"]), "makes 'p', which exists already"),
    "input-made": (node("Neg", ["s"], ["x"]), "makes 'x', which exists already"),
    "initializer-made": (node("Neg", ["s"], ["w"]), "makes 'w', which exists already"),
    "cycle": (
        lambda m: (node("Neg", ["q"], ["p"], name="n1")(m), node("Neg", ["p"], ["q"], name="n2")(m)),
        "nodes of graph 'main' wait for each other: node 'n1' ('Neg') -> node 'n2' ('Neg') -> node 'n1' ('Neg')",
    ),
    "reads-itself": (node("Add", ["x", "p"], ["p"], name="n"), "wait for each other: node 'n' ('Add') -> node 'n'"),
    "cycle-through-branch": (
        lambda m: (condition(m), adding(branches([helper.make_node("Neg", ["chosen"], ["t"])]))(m)),
        "nodes of graph 'main' wait for each other: node 'if' ('If') -> node 'if' ('If')",
    ),
    "cycle-in-branch": (
        lambda m: (condition(m), adding(branches([helper.make_node("Neg", ["t"], ["t"])]))(m)),
        "nodes of graph 'then' wait for each other",
    ),
    "undefined-in-branch": (
        lambda m: (condition(m), adding(branches([helper.make_node("Neg", ["q"], ["t"])]))(m)),
        "the 'Neg' node that makes 't' reads 'q', which nothing makes",
    ),
    "sibling-branch-read": (
        lambda m: (condition(m), adding(branches([helper.make_node("Neg", ["e"], ["t"])]))(m)),
        "the 'Neg' node that makes 't' reads 'e', which nothing makes",
    ),
    "outer-value-returned": (
        lambda m: (condition(m), adding(branches([], "s"))(m)),
        "graph 'then' returns 's', which nothing in it makes; add an Identity",
    ),
    "outer-value-made": (
        lambda m: (condition(m), adding(branches([helper.make_node("Neg", ["x"], ["s"])], "s"))(m)),
        "the 'Neg' node that makes 's' makes 's', which exists already",
    ),
    # Tensors
    "data-type-99": (weight(data_type=99), "initializer 'w' has data type 99, which ONNX does not have"),
    "data-type-missing": (weight(data_type=0), "initializer 'w' has data type 0, which ONNX does not have"),
    "negative-size": (weight(dims=[-3, -4]), "initializer 'w' declares a negative size: [-3, -4]"),
    "too-large": (
        weight(dims=[10**6, 10**6]),
        "initializer 'w' holds 48 bytes, but its shape [1000000, 1000000] needs 4000000000000",
    ),
    "overflowing": (weight(dims=[2**32, 2**32, 4]), "initializer 'w' declares more elements than any memory holds"),
    "overflowing-empty": (weight(dims=[2**62, 2**62, 0], raw_data=b""), "declares more elements than any memory holds"),
    "axes": (weight(dims=[1] * 10**5), "initializer 'w' has 100000 axes, and 64 are the most"),
    "too-short": (weight(raw_data=b"1234"), "initializer 'w' holds 4 bytes, but its shape [3, 4] needs 48"),
    "too-long": (weight(raw_data=bytes(52)), "initializer 'w' holds 52 bytes, but its shape [3, 4] needs 48"),
    "nothing-held": (
        lambda m: m.graph.initializer[0].ClearField("raw_data"),
        "holds 0 entries, but its shape [3, 4] needs 12",
    ),
    "huge-nothing-held": (
        lambda m: (weight(dims=[10**12])(m), m.graph.initializer[0].ClearField("raw_data")),
        "initializer 'w' holds 0 entries, but its shape [1000000000000] needs 1000000000000",
    ),
    "too-few-numbers": (
        lambda m: m.graph.initializer[1].float_data.pop(),
        "initializer 'b' holds 3 entries, but its shape [4] needs 4",
    ),
    "scalar-with-two": (
        lambda m: m.graph.initializer[1].ClearField("dims"),
        "initializer 'b' holds 4 entries, but its shape [] needs 1",
    ),
    "other-field": (
        lambda m: (m.graph.initializer[1].ClearField("float_data"), m.graph.initializer[1].int32_data.extend(range(4))),
        "initializer 'b' holds its data in int32_data, not in just one of raw_data or float_data",
    ),
    "two-fields": (weight(float_data=[0.0] * 12), "holds its data in float_data and raw_data, not in just one of"),
    "empty-bytes-and-numbers": (
        lambda m: setattr(m.graph.initializer[1], "raw_data", b""),
        "holds its data in float_data and raw_data",
    ),
    "strings-as-bytes": (weight(data_type=TensorProto.STRING), "holds its data in raw_data, not in just one of string"),
    "few-int32": (
        lambda m: m.graph.initializer.append(TensorProto(name="i", data_type=6, dims=[3], int32_data=[1, 2])),
        "initializer 'i' holds 2 entries, but its shape [3] needs 3",
    ),
    "few-int4": (
        lambda m: m.graph.initializer.append(
            TensorProto(name="i", data_type=TensorProto.INT4, dims=[5], int32_data=[1])
        ),
        "initializer 'i' holds 1 entries, but its shape [5] needs 3",
    ),
    "few-strings": (
        lambda m: m.graph.initializer.append(TensorProto(name="t", data_type=8, dims=[2], string_data=[b"a"])),
        "initializer 't' holds 1 entries, but its shape [2] needs 2",
    ),
    "constant": (node("Constant", [], ["k"], value=_SHORT), "attribute 'value' of the 'Constant' node that makes 'k'"),
    "sparse-initializer": (_sparse, "initializer 'thin' is a sparse tensor, which cannot be read; store it dense"),
    "other-type-than-input": (
        _input("w", TensorProto.INT64, [3, 4]),
        "initializer 'w' and the input of that name have",
    ),
    "other-size-than-input": (_input("w", TensorProto.FLOAT, [3, 5]), "of that name have different shapes"),
    "other-rank-than-input": (_input("w", TensorProto.FLOAT, [12]), "of that name have different shapes"),
    # Attributes and types
    "attribute-twice": (
        lambda m: (attribute(type=1, f=1)(m), attribute(type=1, f=2)(m)),
        "the 'Relu' node that makes 'y' has the attribute 'a' twice",
    ),
    "attribute-untyped": (
        attribute(i=1),
        "attribute 'a' of the 'Relu' node that makes 'y' has no type that ONNX knows",
    ),
    "attribute-sparse": (attribute(type=AttributeProto.SPARSE_TENSOR), "is a sparse tensor, which cannot be read"),
    "attribute-reference": (
        attribute(type=1, ref_attr_name="b"),
        "attribute 'a' of the 'Relu' node that makes 'y' refers to an attribute of a function, but is in none",
    ),
    "attribute-tensors": (
        attribute(type=AttributeProto.TENSORS, tensors=[_SHORT]),
        "attribute 'a' of the 'Relu' node that makes 'y' holds 2 entries, but its shape [3] needs 3",
    ),
    "attribute-type": (
        attribute(type=AttributeProto.TYPE_PROTO, tp=TypeProto(map_type=TypeProto.Map())),
        "attribute 'a' of the 'Relu' node that makes 'y' is of type map; only tensors and sequences of them",
    ),
    "attribute-graphs": (
        attribute(type=AttributeProto.GRAPHS, graphs=[_GRAPH, _SHADOWED]),
        "the 'MatMul' node that makes 'h' makes 'h', which exists already",
    ),
    "attribute-graph": (attribute(type=AttributeProto.GRAPH), "should be a graph, and there is none"),
    "type-map": (value_info(map_type=TypeProto.Map()), "value 'h' is of type map; only tensors and sequences of them"),
    "type-99": (value_info(tensor_type=TypeProto.Tensor(elem_type=99)), "value 'h' has element type 99"),
    "type-sequence-of-nothing": (
        value_info(sequence_type=TypeProto.Sequence(elem_type=TypeProto(tensor_type=TypeProto.Tensor()))),
        "value 'h' is a sequence or optional of unknown type",
    ),
    "type-sequence-of-maps": (
        value_info(sequence_type=TypeProto.Sequence(elem_type=TypeProto(map_type=TypeProto.Map()))),
        "value 'h' is of type map",
    ),
    # Functions
    "function-calls-itself": (
        functions(function("f", "f")),
        "functions call themselves, which ONNX forbids: 'f' -> 'f'",
    ),
    "functions-in-a-circle": (
        functions(function("f", "g"), function("g", "h"), function("h", "f")),
        "functions call themselves, which ONNX forbids: ",
    ),
    "functions-that-explode": (_double(60), "its functions stand for more than 10,000,000 nodes"),
    "function-of-two-domains": (
        functions(function("f", domain=""), function("f", domain="ai.onnx")),
        "function 'f' is defined twice; rename one",
    ),
    "function-twice": (functions(function("f"), function("f")), "function 'f' is defined twice"),
    "function-opset": (
        functions(helper.make_function("own", "f", ["a"], ["a"], [], [helper.make_opsetid("", 5)])),
        "function 'f' uses opset 5; 7 to 26 can be read",
    ),
    "function-output": (
        functions(helper.make_function("own", "f", ["a"], ["q"], [], [helper.make_opsetid("", 17)])),
        "function 'f' returns 'q', which nothing in it makes",
    ),
    "function-reads-outside": (
        functions(
            helper.make_function(
                "own", "f", [], ["q"], [helper.make_node("Neg", ["x"], ["q"])], [helper.make_opsetid("", 17)]
            )
        ),
        "the 'Neg' node that makes 'q' reads 'x', which nothing makes",
    ),
    "function-default-graph": (
        functions(function("f", attribute_protos=[AttributeProto(name="g", type=AttributeProto.GRAPH, g=_GRAPH)])),
        "function 'f' has a graph for the default of 'g'",
    ),
    "function-default-tensor": (
        functions(function("f", attribute_protos=[AttributeProto(name="g", type=AttributeProto.TENSOR, t=_SHORT)])),
        "attribute 'g' of function 'f' holds 2 entries, but its shape [3] needs 3",
    ),
    "names-with-newlines": (
        node("Neg", ["no\nsuch\x1b[31m"], ["z" * 10**5]),
        r"reads 'no\nsuch\x1b[31m', which nothing makes",
    ),
}
"""A change that breaks the model, and what is said of it."""


# What is unusual, and no fault


def unsorted(model: ModelProto) -> None:
    first = model.graph.node.pop(0)
    model.graph.node.append(first)


def _sibling(model: ModelProto) -> None:
    condition(model)
    model.graph.node.append(branches([helper.make_node("Neg", ["s"], ["same"])], "same", "same"))


def _named_as_result(model: ModelProto) -> None:
    condition(model)
    model.graph.node.append(branches([helper.make_node("Neg", ["s"], ["chosen"])], "chosen"))


_FLOAT = TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT))


UNUSUAL: tuple[Change, ...] = (
    node("Clip", ["x", "", "b"], ["z"]),
    node("Dropout", ["x"], ["z", ""]),
    node("Split", ["x"], ["", "z"]),
    lambda model: model.graph.output.append(model.graph.output[0]),
    lambda model: model.graph.output.add(name="x"),
    lambda model: model.training_info.add(algorithm=small().graph),
    lambda model: model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [2], ["a", "b"])),
    lambda model: model.graph.initializer.append(TensorProto(name="empty", data_type=1, dims=[3, 0])),
    lambda model: model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4])),
    lambda model: model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", None])),
    lambda model: model.graph.input.add(name="w"),
    lambda model: model.ClearField("producer_name"),
    lambda model: model.opset_import.append(helper.make_opsetid("own", 3)),
    lambda model: model.opset_import.extend([model.opset_import[0], helper.make_opsetid("ai.onnx", 17)]),
    lambda model: model.graph.node[-1].attribute.add(name="a", type=AttributeProto.STRING, s=b"\xff"),
    value_info(),
    value_info(sequence_type=TypeProto.Sequence(elem_type=_FLOAT)),
    value_info(optional_type=TypeProto.Optional(elem_type=_FLOAT)),
    nested(1),
    _sibling,
    _named_as_result,
    functions(function("f", "g", "g"), function("g", attributes=["a"])),
    functions(function("f", "f", domain="other"), function("f")),
)
