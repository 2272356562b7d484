"""What widening an ONNX file of 2 GB costs: its time beside plain writing of the same bytes, and its peak memory."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx_ir
from onnx import TensorProto, helper

from graphclone.formats.onnx.file import load
from graphclone.formats.onnx.saving import write_model
from tests.bench import Figure, against, child

LAYERS, WIDTH, PORT = 30, 4096, 8
REPEATS = 3

_CLONE = """
import json, sys, time, graphclone
from tests.bench import peak_memory
start = time.perf_counter()
graphclone.clone(sys.argv[1], widen=2).save_onnx(sys.argv[2])
seconds = time.perf_counter() - start
peak = peak_memory()
print(json.dumps([seconds, peak]))
"""


def widen_file() -> Iterator[Figure]:
    """A file of 2 GB becomes one of 8 GB."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        source, clone, plain = (Path(folder) / name for name in ("source.onnx", "clone.onnx", "plain"))
        write_model(model(), source)
        rounds = []
        for _ in range(REPEATS):
            for old in clone.parent.glob("clone.onnx*"):
                old.unlink()
            seconds, peak = child(_CLONE, str(source), str(clone))
            size = sum(file.stat().st_size for file in clone.parent.glob("clone.onnx*"))
            rounds.append((seconds, written(plain, size), peak))
        work, yardstick, peak = (statistics.median(column) for column in zip(*rounds, strict=True))
        name, tensor = f"widen {size / 4e9:.1f} GB of ONNX 2x", 4 * (2 * WIDTH) ** 2
        yield Figure(name, work, "write()", yardstick)
        yield Figure(f"{name}, peak", peak, "600 MB and two tensors", 600e6 + 2 * tensor, "MB", 1)


def read_long_file() -> Iterator[Figure]:
    """A file of 40,000 operators beside one of 20,000: twice the time, if reading is linear."""
    with tempfile.TemporaryDirectory(prefix="graphclone-bench-") as folder:
        long, short = (chain(length, Path(folder) / f"{length}.onnx") for length in (40_000, 20_000))
        yield against("read ONNX of 40,000 operators", lambda: load(long), "20,000 operators", lambda: load(short))


def chain(length: int, path: Path) -> Path:
    """A file of one operator after the other, without weights."""
    names = [f"n{i}" for i in range(length + 1)]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [PORT]) for name in (names[0], names[-1])]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def written(path: Path, size: int) -> float:
    """Seconds to write that many bytes."""
    block = memoryview(bytes(64 << 20))
    start = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while size > 0:
            size -= file.write(block[:size] if size < len(block) else block)
    seconds = time.perf_counter() - start
    path.unlink()
    return seconds


def model() -> onnx_ir.Model:
    """Square layers between a narrow input and a narrow output, 2 GB together, drawn as they are written."""
    x = onnx_ir.Value(name="x", shape=onnx_ir.Shape(["batch", PORT]), type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
    sizes = [PORT, *[WIDTH] * (LAYERS + 1), PORT]
    weights = [_weight(f"layers.{i}.weight", sizes[i], sizes[i + 1]) for i in range(len(sizes) - 1)]
    nodes: list[onnx_ir.Node] = []
    value = x
    for i, weight in enumerate(weights):
        nodes.append(onnx_ir.node("MatMul", [value, weight], name=f"/layers.{i}/MatMul"))
        nodes.append(onnx_ir.node("Relu", nodes[-1].outputs, name=f"/layers.{i}/Relu"))
        value = nodes[-1].outputs[0]
    value.name, value.shape, value.type = "y", onnx_ir.Shape(["batch", PORT]), x.type
    graph = onnx_ir.Graph([x], [value], nodes=nodes, initializers=weights, opset_imports={"": 17}, name="layers")
    return onnx_ir.Model(graph, ir_version=8)


def _weight(name: str, rows: int, columns: int) -> onnx_ir.Value:
    def draw() -> onnx_ir.TensorProtocol:
        random = np.random.default_rng(len(name))
        return onnx_ir.tensor(random.standard_normal((rows, columns), np.float32) / rows**0.5)

    shape = onnx_ir.Shape((rows, columns))
    lazy = onnx_ir.LazyTensor(draw, dtype=onnx_ir.DataType.FLOAT, shape=shape, name=name)
    return onnx_ir.Value(name=name, shape=shape, type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), const_value=lazy)
