"""ONNX files as another exporter, or a careless one, might have written them: seeded changes of real files.

.venv/bin/python -m tests.support.onnx_mutants 2000        so many mutants, and what each internal error was
"""

from __future__ import annotations

import random
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from graphclone.api import clone
from graphclone.errors import GraphcloneError
from graphclone.formats.onnx.writer import to_model
from tests.support import onnx_wheel as wheel
from tests.support.onnx_graphs import parse
from tests.support.onnx_node_cases import cases
from tests.support.onnx_zoo import model_file

_ATTENTION = """
    attention (float[n, t, 8] x) => (float[n, t, 3] y) {
        shape = Shape(x)
        batch = Gather(shape, zero)
        qkv = MatMul(x, in)
        q, k, v = Split<axis=-1>(qkv, thirds)
        first = Unsqueeze(batch, front)
        sizes = Concat<axis=0>(first, rest)
        q4 = Reshape(q, sizes)
        k4 = Reshape(k, sizes)
        v4 = Reshape(v, sizes)
        q5 = Transpose<perm=[0, 2, 1, 3]>(q4)
        k5 = Transpose<perm=[0, 2, 3, 1]>(k4)
        v5 = Transpose<perm=[0, 2, 1, 3]>(v4)
        scores = MatMul(q5, k5)
        weights = Softmax<axis=-1>(scores)
        mixed = MatMul(weights, v5)
        turned = Transpose<perm=[0, 2, 1, 3]>(mixed)
        joined = Reshape(turned, whole)
        y = MatMul(joined, out)
    }
"""
_ATTENTION_WEIGHTS = {
    "in": (8, 24), "out": (8, 3), "zero": np.array(0), "front": np.array([0]), "thirds": np.array([8, 8, 8]),
    "rest": np.array([-1, 2, 4]), "whole": np.array([0, -1, 8]),
}  # fmt: skip
_BRANCHES = """
    branches (float[n, 4] x, bool c) => (float[n, 3] y) {
        h = Gemm(x, first, bias)
        z = If (c) <
            then_branch = then_graph () => (float[n, 8] t) { t = Relu(h) },
            else_branch = else_graph () => (float[n, 8] e) { f = Tanh(h) e = Mul(f, scale) }
        >
        y = MatMul(z, last)
    }
"""
_CONVOLUTIONS = """
    convolutions (float[n, 3, h, w] x) => (float[n, 4] y) {
        a = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, first, bias)
        b = BatchNormalization(a, scale, bias, mean, variance)
        c = Clip(b, low, high)
        d = Conv<group=8, pads=[1, 1, 1, 1]>(c, depthwise)
        e = Concat<axis=1>(c, d)
        f = MaxPool<kernel_shape=[2, 2]>(e)
        g = GlobalAveragePool(f)
        h2 = Flatten(g)
        y = Gemm<transB=1>(h2, last)
    }
"""
SMALL = [
    parse(_ATTENTION, _ATTENTION_WEIGHTS).SerializeToString(),
    parse(_BRANCHES, {"first": (4, 8), "bias": (8,), "scale": (8,), "last": (8, 3)}).SerializeToString(),
    parse(_CONVOLUTIONS, {
        "first": (8, 3, 3, 3), **dict.fromkeys(("bias", "scale", "mean"), (8,)), "variance": np.ones(8, np.float32),
        "low": np.array(0, np.float32), "high": np.array(6, np.float32), "depthwise": (8, 1, 3, 3), "last": (4, 16),
    }).SerializeToString(),
]  # fmt: skip
"""Models of a few nodes."""

Mutation = Callable[[ModelProto, random.Random], None]

_EXPORTED = ("legacy-17/opt-mini", "dynamo-optimized/pythia-mini", "ort-extended/opt-mini", "legacy-11/lstm")

_MOST_WEIGHTS = 1 << 20
"""Bytes of the largest file that is mutated."""


@cache
def originals() -> list[list[bytes]]:
    """Small files of three kinds: models, layers, and single operators."""
    with TemporaryDirectory(prefix="onnx-mutants-") as folder:
        models = [model_file(name, Path(folder)).read_bytes() for name in _EXPORTED]
    layers = [*wheel.with_matrices("pytorch-converted").values(), *wheel.with_matrices("pytorch-operator").values()]
    nodes = [case.model.SerializeToString() for of_op in cases().values() for case in of_op[:2]]
    kinds = [[*models, *SMALL], [path.read_bytes() for path in layers], nodes]
    return [[file for file in files if len(file) < _MOST_WEIGHTS] for files in kinds]


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and the bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
                yield from graphs(body)


def _a_graph(model: ModelProto, rng: random.Random) -> GraphProto:
    return rng.choice(list(graphs(model.graph)))


def _a_node(model: ModelProto, rng: random.Random) -> NodeProto | None:
    nodes = _a_graph(model, rng).node
    return rng.choice(nodes) if nodes else None


# What means the same


def shuffle_attributes(model: ModelProto, rng: random.Random) -> None:
    for graph in graphs(model.graph):
        for node in graph.node:
            attributes = list(node.attribute)
            rng.shuffle(attributes)
            del node.attribute[:]
            node.attribute.extend(attributes)


def drop_value_info(model: ModelProto, rng: random.Random) -> None:
    for graph in graphs(model.graph):
        del graph.value_info[:]
    del rng


def drop_node_names(model: ModelProto, rng: random.Random) -> None:
    for graph in graphs(model.graph):
        for node in graph.node:
            node.name = rng.choice(["", "same", node.name, "a/b c.d#2"])


def rename(model: ModelProto, rng: random.Random) -> None:
    """Every value another name: numbers, paths, and names that differ in their last sign only."""
    if len(list(graphs(model.graph))) > 1:
        return
    graph, form = model.graph, rng.choice(["{}", "/model/{}.0/out_{}", "v{} ", "x_for_{}", "{}#2"])
    ports = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    old = [port.name for port in ports] + [name for node in graph.node for name in (*node.input, *node.output)]
    names = {name: form.format(number, number) for number, name in enumerate(dict.fromkeys(old)) if name}
    for port in ports:
        port.name = names[port.name]
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, "") for name in field]


def reorder(model: ModelProto, rng: random.Random) -> None:
    """Another order of the nodes in which every value is made before it is read."""
    graph = model.graph
    if len(list(graphs(graph))) > 1:
        return
    pending, made, ordered = list(graph.node), set[str](), []
    computed = {name for node in graph.node for name in node.output}
    while pending:
        ready = [n for n in pending if all(name in made or name not in computed for name in n.input)]
        if not ready:
            return
        node = rng.choice(ready)
        pending.remove(node)
        ordered.append(node)
        made.update(node.output)
    del graph.node[:]
    graph.node.extend(ordered)


def constants_for_initializers(model: ModelProto, rng: random.Random) -> None:
    graph = model.graph
    fed = {port.name for port in graph.input}
    chosen = [t for t in graph.initializer if rng.random() < 0.5 and t.name not in fed]
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in chosen]
    for tensor in chosen:
        graph.initializer.remove(tensor)
    old = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *old])


def initializers_for_inputs(model: ModelProto, rng: random.Random) -> None:
    chosen = [port for port in model.graph.input if rng.random() < 0.3]
    for port in chosen:
        tensor = port.type.tensor_type
        if tensor.elem_type not in (1, 7) or any(not dim.dim_value for dim in tensor.shape.dim):
            continue
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        drawn = np.random.default_rng(rng.randrange(1000)).integers(-2, 3, shape).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(drawn, port.name))
        model.graph.input.remove(port)


def no_shapes_of_outputs(model: ModelProto, rng: random.Random) -> None:
    del rng
    for port in model.graph.output:
        port.type.tensor_type.ClearField("shape")


# What may mean something else, or nothing


def another_opset(model: ModelProto, rng: random.Random) -> None:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = rng.randrange(7, 27)


def dynamic_sizes(model: ModelProto, rng: random.Random) -> None:
    for port in model.graph.input:
        for axis, dim in enumerate(port.type.tensor_type.shape.dim):
            if rng.random() < 0.4:
                dim.dim_param = rng.choice(["n", f"d{axis}", f"{port.name}_{axis}", "n + m", "2*n", ""])


def drop_attribute(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None and node.attribute:
        node.attribute.remove(rng.choice(node.attribute))


def change_attribute(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is None or not node.attribute:
        return
    attribute = rng.choice(node.attribute)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice([-1, 0, 1, 2, 3, 7, -9, 1 << 40])
    elif attribute.type == AttributeProto.INTS:
        attribute.ints[:] = [rng.choice([0, 1, 2, -1, size]) for size in attribute.ints][: rng.randrange(5)]
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice([0.0, -1.0, float("nan"), 1e30])
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice([b"", b"SAME_UPPER", b"linear", b"DCR"])


def drop_input(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None and node.input:
        if rng.random() < 0.5:
            node.input.pop()
        else:
            node.input[rng.randrange(len(node.input))] = ""


def swap_inputs(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None and len(node.input) > 1:
        names = list(node.input)
        rng.shuffle(names)
        node.input[:] = names


def repeat_input(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None and node.input:
        node.input.append(node.input[0])


def drop_output(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None and len(node.output) > 1:
        node.output[rng.randrange(len(node.output))] = ""


def reshape_initializer(model: ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        array = numpy_helper.to_array(tensor)
        other = rng.choice(
            [array.reshape(-1), array[None], array.reshape(-1)[:1], array.reshape(-1)[:0], array[..., None]]
        )
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(other), tensor.name))


def change_initializer(model: ModelProto, rng: random.Random) -> None:
    """Other numbers in small tensors of integers, which are sizes as a rule."""
    small = [t for t in model.graph.initializer if t.data_type == 7 and sum(t.dims) <= 8]
    if small:
        tensor = rng.choice(small)
        array = numpy_helper.to_array(tensor).copy()
        array[...] = rng.choice([0, 1, -1, 2, 3, -7])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def remove_node(model: ModelProto, rng: random.Random) -> None:
    graph = _a_graph(model, rng)
    if graph.node:
        graph.node.remove(rng.choice(graph.node))


def another_operator(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None:
        node.op_type = rng.choice(
            ["Identity", "Relu", "Add", "MatMul", "Concat", "Shape", "Squeeze", "Nonsense", "Split"]
        )


def another_domain(model: ModelProto, rng: random.Random) -> None:
    node = _a_node(model, rng)
    if node is not None:
        node.domain = rng.choice(["ai.onnx", "com.microsoft", "org.example", "ai.onnx.ml"])
        if node.domain != "ai.onnx":
            model.opset_import.append(helper.make_opsetid(node.domain, 1))


def return_another(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node) if model.graph.node else None
    if node is not None and node.output and node.output[0]:
        model.graph.output.append(onnx.ValueInfoProto(name=node.output[0]))


SAME: tuple[Mutation, ...] = (
    shuffle_attributes,
    drop_value_info,
    drop_node_names,
    rename,
    reorder,
    constants_for_initializers,
    initializers_for_inputs,
    no_shapes_of_outputs,
)
OTHER: tuple[Mutation, ...] = (
    another_opset,
    dynamic_sizes,
    drop_attribute,
    change_attribute,
    drop_input,
    swap_inputs,
    repeat_input,
    drop_output,
    reshape_initializer,
    change_initializer,
    remove_node,
    another_operator,
    another_domain,
    return_another,
)


def mutant(number: int) -> tuple[ModelProto, list[str]]:
    """A file with one to four changes, always the same for one number, and their names."""
    rng = random.Random(number)
    model = ModelProto.FromString(rng.choice(rng.choice(originals())))
    chosen = [*rng.sample(SAME, rng.randrange(3)), *rng.sample(OTHER, rng.randrange(3))]
    for mutation in chosen:
        mutation(model, rng)
    return model, [mutation.__name__ for mutation in chosen]


def outcome(number: int, folder: Path) -> str:
    """What becomes of a mutant: a refusal, or a clone that is written as it should be.

    Raises:
        Exception: anything but a refusal.
    """
    model, _ = mutant(number)
    path = folder / "mutant.onnx"
    path.write_bytes(model.SerializeToString())
    try:
        made = clone(path, widen_io=["*"])
        to_model(made.state)
    except GraphcloneError:
        return "refused"
    return "cloned"


def main(count: int, first: int = 0) -> int:
    """Try so many mutants. How many end in an error that is no refusal."""
    found: Counter[str] = Counter()
    with TemporaryDirectory(prefix="onnx-mutants-") as folder:
        for number in range(first, first + count):
            try:
                found[outcome(number, Path(folder))] += 1
            except Exception as error:  # what is looked for
                found["broken"] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                print(number, *mutant(number)[1], f"{type(error).__name__}: {error} at {place}", sep="  ", flush=True)
    print(dict(found))
    return found["broken"]


if __name__ == "__main__":
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
