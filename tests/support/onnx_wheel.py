"""The models in the onnx wheel that have a weight to widen: real architectures of old opsets, with old habits.

The weights of the ``light`` ones are nodes that make tensors of one value. Here they are initializers, drawn at
random. All else is as it was: IR version 3 wants every initializer among the inputs of the graph.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnx.backend.test
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.version_converter import convert_version

_DATA = Path(onnx.backend.test.__file__).parent / "data"
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)

_OLDEST = 7
"""The oldest opset that is read."""

_SPREAD = 0.2
"""Standard deviation of biases, and of norm weights about 1."""


class Reader(NamedTuple):
    """Who reads a weight: an op, and as which of its inputs."""

    op: str
    index: int


def light_models() -> dict[str, Path]:
    """Image classifiers as published, without their weights."""
    return {path.stem: path for path in sorted((_DATA / "light").glob("*.onnx"))}


def with_matrices(folder: str) -> dict[str, Path]:
    """The models of one folder of tests that read a float weight of two axes or more."""
    paths = sorted((_DATA / folder).glob("*/model.onnx"))
    return {path.parent.name.removeprefix("test_"): path for path in paths if _has_matrix(onnx.load(path))}


def convert(source: Path, target: Path) -> None:
    """Write a model in opset 7, the oldest that is read, if it is older."""
    model = onnx.load(source)
    if model.opset_import[0].version < _OLDEST:
        model = convert_version(model, _OLDEST)
    onnx.save(model, target)


def write_randomised(source: Path, target: Path) -> None:
    """Write a model with its weights as initializers, drawn anew, always the same ones."""
    model = onnx.load(source)
    _fold(model.graph)
    readers = _readers(model.graph)
    random = np.random.default_rng(zlib.crc32(source.stem.encode()))
    for tensor in model.graph.initializer:
        if tensor.data_type in _FLOATS and tensor.name in readers:
            _replace(tensor, _drawn(tuple(tensor.dims), readers[tensor.name], random))
    _calibrate(model)
    onnx.save(model, target)


def _has_matrix(model: onnx.ModelProto) -> bool:
    read = {name for node in model.graph.node for name in node.input}
    return any(t.data_type in _FLOATS and len(t.dims) > 1 and name in read for name, t in _constants(model.graph))


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")


def _fold(graph: onnx.GraphProto) -> None:
    """Make an initializer of every ConstantOfShape of a constant shape, and forget shapes that nobody reads."""
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    folded = [node for node in graph.node if node.op_type == "ConstantOfShape" and node.input[0] in shapes]
    for node in folded:
        value = numpy_helper.to_array(node.attribute[0].t)
        array = np.full(numpy_helper.to_array(shapes[node.input[0]]), value[0])
        tensor = numpy_helper.from_array(array, node.output[0])
        graph.initializer.append(tensor)
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for field in (graph.initializer, graph.input):
        for unread in [each for each in field if each.name in shapes and each.name not in read]:
            field.remove(unread)


def _readers(graph: onnx.GraphProto) -> dict[str, Reader]:
    """The first reader of every tensor, looking through nodes that only reshape it."""
    readers: dict[str, Reader] = {}
    for node in reversed(graph.node):
        for index, name in enumerate(node.input):
            through = node.op_type in ("Unsqueeze", "Transpose") and node.output[0] in readers
            readers[name] = readers[node.output[0]] if through else Reader(node.op_type, index)
    return readers


def _replace(tensor: onnx.TensorProto, array: NDArray[Any]) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(dtype), tensor.name))


def _drawn(shape: tuple[int, ...], reader: Reader, random: np.random.Generator) -> NDArray[Any]:
    """Random numbers that keep the variance of what a matrix multiplies, before a rectifier, and are no neutral
    elements elsewhere.
    """
    normal = random.standard_normal(shape)
    if len(shape) > 1:
        outputs = next(size for size in shape if size > 1)
        return normal * (2 * outputs / normal.size) ** 0.5
    return 1 + _SPREAD * normal if reader in _FACTORS else _SPREAD * normal


def _calibrate(model: onnx.ModelProto) -> None:
    """Give batch norms the statistics of what they see, as training does, and the logits a spread of one.

    With a batch of one a batch norm that takes its statistics from its input is an instance norm.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    head = next(node for node in reversed(model.graph.node) if node.op_type in ("Conv", "Gemm"))
    seen = _seen(model, [*(norm.input[0] for norm in norms), head.output[0]])
    for norm in norms:
        x = seen[norm.input[0]]
        _replace(weights[norm.input[3]], x.mean((0, 2, 3)))
        _replace(weights[norm.input[4]], x.var((0, 2, 3)))
    origin = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"}
    for name in head.input[1:]:
        weight = weights[origin.get(name, name)]
        _replace(weight, numpy_helper.to_array(weight) / seen[head.output[0]].std())


def _seen(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Values of the model on a random image, with batch norms that take their statistics from it."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    for node in probe.graph.node:
        if node.op_type == "BatchNormalization":
            node.op_type = "InstanceNormalization"
            del node.input[3:], node.output[1:]
            for other in [each for each in node.attribute if each.name != "epsilon"]:
                node.attribute.remove(other)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    random = np.random.default_rng(0)
    feeds = {image.name: random.standard_normal(image.shape).astype(np.float32)}
    return dict(zip(names, session.run(names, feeds), strict=True))


_FACTORS = {Reader("BatchNormalization", 1), Reader("Mul", 0), Reader("Mul", 1)}
