"""Small ONNX models for tests, written as text in ONNX's own syntax, with weights drawn by name."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import torch

from graphclone.formats.onnx.reader import from_model
from graphclone.formats.onnx.tensors import to_torch
from graphclone.graph.ir import Graph
from graphclone.passes import default_pipeline
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.verification.lockstep import Lockstep, run_lockstep
from tests.support.tracing import random_pipeline

Weights = Mapping[str, Sequence[int] | np.ndarray]

SUMMED_BEFORE = """
    g (float[batch, 5] x) => (float[batch, 5] y) {
        h = MatMul(x, up)
        before = ReduceSum<keepdims=1>(h, last)
        after = ReduceMean<axes=[-1], keepdims=1>(h)
        end, all = Loop (rounds, , before) <
            body = b (int64 i, bool c, float[batch, 1] s) => (bool d, float[batch, 1] u, float[batch, 1] o) {
                d = Identity(c)
                u = Identity(after)
                o = Identity(s)
            }
        >
        mean = ReduceMean<axes=[0], keepdims=0>(all)
        z = MatMul(mean, down)
        w = MatMul(end, side)
        y = Add(z, w)
    }
"""
"""A loop that begins with a sum, which counts the copies, and goes on with a mean, which does not."""

SUMMED_BEFORE_WEIGHTS: Weights = {
    "up": (5, 6),
    "down": (1, 5),
    "side": (1, 5),
    "last": np.array([-1]),
    "rounds": np.array(3, np.int64),
}


def parse(text: str, weights: Weights | None = None, *, opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """A model of the graph that the text describes; a weight given by its shape is drawn, float32, by its name."""
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}, "com.microsoft": 1]>'
    model = onnx.parser.parse_model(f"{header}\n{text}")
    for name, weight in (weights or {}).items():
        array = weight if isinstance(weight, np.ndarray) else drawn(name, weight)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def drawn(name: str, shape: Sequence[int]) -> np.ndarray:
    """Random numbers of about 1, always the same for one name."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model to a file, as it is, be it broken; the path."""
    path.write_bytes(model.SerializeToString())
    return path


def shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape of every initializer."""
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def graph_of(model: onnx.ModelProto) -> Graph:
    """The graph that is read from a model."""
    return from_model(onnx_ir.serde.deserialize_model(model), Path("model.onnx"), "model.onnx")


def widened(model: onnx.ModelProto, request: Request | None = None, seed: int | None = None) -> State:
    """A clone of a model, by the default widths or by random ones, its graph checked after every pass."""
    state = State(graph_of(model), request or Request(2))
    run(default_pipeline() if seed is None else random_pipeline(seed, "tile"), state, check=True)
    return state


def inputs_of(graph: Graph, seed: int = 0) -> list[torch.Tensor]:
    """Random inputs in the sizes the graph was read with; integers are 0 or 1."""
    random = np.random.default_rng(seed)
    arrays = [
        random.standard_normal(value.shape).astype(np.float32)
        if value.is_float
        else random.integers(0, 2, value.shape).astype(value.dtype)
        for value in graph.inputs
    ]
    return [to_torch(array) for array in arrays]


def lockstep(state: State) -> Lockstep:
    """Source and clone side by side in float64."""
    return run_lockstep(state, inputs_of(state.source))
