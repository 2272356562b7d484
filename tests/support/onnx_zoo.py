"""ONNX files for tests: real models in every form in which they are met, made without a download.

``SOURCES["legacy-17/opt"]`` makes one file, ``GROUPS["legacy-17"]`` lists the names of one kind. All weights are
random, and always the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.support import onnx_exports as exports
from tests.support import onnx_fused as fused
from tests.support import onnx_wheel as wheel
from tests.support.zoo import ZOO

CANNOT_EXPORT: Mapping[str, str] = {
    "legacy-11/t5": "torch writes Min of int64, which opset 11 does not have: ONNX Runtime refuses the file",
}
"""What torch itself does not export, and why."""

_IN_DYNAMO = {"t5": "eager"}
"""The exporter splits fused attention into ops whose strides do not allow the view that follows it."""

_CACHED = ("gpt2", "opt", "llama-gqa", "qwen3", "pythia-mini")

_SIZES = {"batch": 3, "sequence": 5, "past_sequence": 4, "total_sequence": 9, "decoder_sequence": 6}

_BOUNDS = {"token_type_ids": 3, "0": 4}
_VOCABULARY = 61
"""The least of all vocabularies."""


@dataclass(frozen=True, eq=False)
class OnnxSource:
    """One file.

    Attributes:
        name: its group and its model, with a slash between.
        make: writes the file.
    """

    name: str
    make: Callable[[Path], None]


def model_file(name: str, folder: Path) -> Path:
    """The file of a source in a folder, made there unless there is one already."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{os.getpid()}-{path.name}")
        SOURCES[name].make(part)
        part.replace(path)
    return path


def feeds(model: Path, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random inputs that a file of this collection accepts; padding is on the right."""
    graph = onnx.load(model, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    random = np.random.default_rng(seed)
    return {port.name: _drawn(port, random) for port in graph.input if port.name not in weights}


def _drawn(port: onnx.ValueInfoProto, random: np.random.Generator) -> NDArray[Any]:
    tensor = port.type.tensor_type
    shape = tuple(_SIZES[dim.dim_param] if dim.dim_param else dim.dim_value for dim in tensor.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if np.issubdtype(dtype, np.floating):
        return random.standard_normal(shape).astype(dtype)
    if port.name == "attention_mask":
        lengths = random.integers(shape[1] - 2, shape[1] + 1, (shape[0], 1))
        return (np.arange(shape[1]) < lengths).astype(dtype)
    return random.integers(0, _BOUNDS.get(port.name, _VOCABULARY), shape).astype(dtype)


# How each kind of file is made.


def _dynamo(name: str, path: Path, *, optimize: bool) -> None:
    exports.dynamo(exports.zoo_model(name, attention=_IN_DYNAMO.get(name, "")), path, optimize=optimize)


def _legacy(name: str, path: Path, *, opset: int) -> None:
    """With a mask, as nearly all files have it that were exported this way; without, torch traces aten::diff, which
    it does not translate. Opset 11 has no fused attention.
    """
    model = exports.zoo_model(name, masked=True, attention="eager" if opset < 14 else "")
    exports.legacy(model, path, opset=opset)


def _cached(name: str, path: Path, *, exporter: Literal["dynamo", "dynamo-optimized", "legacy-17"]) -> None:
    model = exports.cached_model(name)
    if exporter == "legacy-17":
        exports.legacy(model, path, opset=17)
    else:
        exports.dynamo(model, path, optimize=exporter == "dynamo-optimized")


def _optimised(source: str, path: Path, *, level: exports.Level) -> None:
    exports.optimised(_exported(source), path, level)


def _fused(source: str, path: Path, **options: Any) -> None:
    fused.fuse(_exported(source), path, **options)


def _exported_and_fused(export: Callable[[Path], None], path: Path, **options: Any) -> None:
    export(path)
    fused.fuse(path.read_bytes(), path, **options)


@cache
def _exported(source: str) -> bytes:
    with TemporaryDirectory(prefix="onnx-zoo-") as folder:
        return model_file(source, Path(folder)).read_bytes()


def _from_wheel() -> Iterator[OnnxSource]:
    for name, path in wheel.light_models().items():
        yield OnnxSource(f"light/{name}", partial(wheel.write_randomised, path))
    for folder in ("pytorch-converted", "pytorch-operator"):
        for name, path in wheel.with_matrices(folder).items():
            yield OnnxSource(f"{folder}/{name}", partial(wheel.convert, path))


def _from_zoo() -> Iterator[OnnxSource]:
    for name in ZOO:
        yield OnnxSource(f"dynamo/{name}", partial(_dynamo, name, optimize=False))
        yield OnnxSource(f"dynamo-optimized/{name}", partial(_dynamo, name, optimize=True))
        for opset in (11, 17):
            if f"legacy-{opset}/{name}" not in CANNOT_EXPORT:
                yield OnnxSource(f"legacy-{opset}/{name}", partial(_legacy, name, opset=opset))
        for level in ("basic", "extended"):
            for exporter, suffix in (("legacy-17", ""), ("dynamo", "-dynamo")):
                make = partial(_optimised, f"{exporter}/{name}", level=level)
                yield OnnxSource(f"ort-{level}/{name}{suffix}", make)


def _with_fused_ops() -> Iterator[OnnxSource]:
    bert = {"model_type": "bert", "heads": 5, "width": 40}
    gpt2 = bert | {"model_type": "gpt2"}
    for opset in (11, 17):
        for name in ("bert-mlm", "bert-classifier"):
            export = partial(fused.export_bert, name, opset=opset)
            yield OnnxSource(f"fused/{name}-{opset}", partial(_exported_and_fused, export, **bert))
            make = partial(_exported_and_fused, export, **bert, multi_head=True)
            yield OnnxSource(f"fused/{name}-multi-head-{opset}", make)
        export = partial(fused.export_vit, opset=opset)
        yield OnnxSource(f"fused/vit-{opset}", partial(_exported_and_fused, export, **bert | {"model_type": "vit"}))
        export = partial(fused.export_gpt2, opset=opset)
        yield OnnxSource(f"fused/gpt2-{opset}", partial(_exported_and_fused, export, **gpt2))
        export = partial(fused.export_gpt2_with_cache, opset=opset)
        yield OnnxSource(f"fused/gpt2-with-cache-{opset}", partial(_exported_and_fused, export, **gpt2))
    for name, options in (("bert-mlm", bert), ("bert-classifier", bert), ("gpt2", gpt2)):
        make = partial(_fused, f"dynamo-optimized/{name}", **options)
        yield OnnxSource(f"fused/{name}-dynamo-optimized", make)
    for form in ("gqa", "gqa-packed", "mha"):
        yield OnnxSource(f"fused/llama-{form}", partial(fused.write_decoder, form=form))


def _with_cache() -> Iterator[OnnxSource]:
    for name in _CACHED:
        for exporter in ("dynamo", "dynamo-optimized", "legacy-17"):
            yield OnnxSource(f"cache/{name}-{exporter}", partial(_cached, name, exporter=exporter))


SOURCES: dict[str, OnnxSource] = {
    source.name: source for source in (*_from_wheel(), *_from_zoo(), *_with_fused_ops(), *_with_cache())
}

GROUPS: dict[str, list[str]] = {}
for _name in SOURCES:
    GROUPS.setdefault(_name.split("/")[0], []).append(_name)
