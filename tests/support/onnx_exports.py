"""ONNX files of torch models, by torch's two exporters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from graphclone.formats.torch.export_onnx import MAX_IR_VERSION
from graphclone.runtime.quiet import quiet
from tests.support.zoo import ZOO

Axes = dict[str, dict[int, str]]
Level = Literal["basic", "extended"]

OPSET = 20
"""Of the files of the dynamo exporter."""

_LAYERS, _PAST = 2, 3

_FIXES_SEQUENCE = {"dynamo": nn.LSTM, "legacy": nn.MultiheadAttention}
"""What makes the length of a sequence a constant in a trace, whatever the exporter is told and says."""


@dataclass(frozen=True)
class Exportable:
    """A module whose inputs and outputs have names.

    Attributes:
        module: takes the inputs by position or name, and returns a tuple of the outputs.
        inputs: example tensors.
        outputs: names.
        axes: symbols of dynamic axes, by input or output.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    axes: Axes


def zoo_model(name: str, *, masked: bool = False, attention: str = "") -> Exportable:
    """A model of the zoo that returns one tensor.

    Args:
        name: in the zoo.
        masked: whether a language model has all the inputs that a tokenizer makes.
        attention: how a model of transformers spells it, if not as the zoo says.
    """
    built = ZOO[name].build()
    inputs = dict(zip(inspect.signature(built.module.forward).parameters, built.args, strict=False)) | built.kwargs
    if masked and "input_ids" in inputs:
        inputs = _from_tokenizer(built.module.config, inputs["input_ids"]) | inputs
    if attention and hasattr(built.module, "set_attn_implementation"):
        built.module.set_attn_implementation(attention)
    forward = built.module.forward

    def first(**tensors: Tensor) -> tuple[Tensor]:
        outputs = forward(**tensors) if built.kwargs else forward(*tensors.values())
        return (outputs if isinstance(outputs, Tensor) else outputs[0],)

    module = with_forward(built.module, first, list(inputs))
    with torch.no_grad():
        logits = module(**inputs)[0]
    sequence = "decoder_sequence" if "decoder_input_ids" in inputs else "sequence"
    axes = {key: _axes(key, tensor) for key, tensor in inputs.items()}
    axes["logits"] = {0: "batch", **({1: sequence} if logits.ndim == 3 else {})}
    return Exportable(module, inputs, ["logits"], axes)


def cached_model(name: str) -> Exportable:
    """A causal language model of the zoo that takes and returns the keys and values of all layers."""
    built = ZOO[name].build()
    return with_cache(built.module, built.kwargs["input_ids"])


def with_cache(module: nn.Module, ids: Tensor) -> Exportable:
    """A causal language model of transformers that takes and returns the keys and values of all layers."""
    from transformers import DynamicCache

    batch, sequence = ids.shape
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *_cache_shape(module.config))
    past = [f"past_key_values.{layer}.{part}" for layer in range(_LAYERS) for part in ("key", "value")]
    inputs = {"input_ids": ids, "attention_mask": torch.ones(batch, _PAST + sequence, dtype=torch.int64)}
    inputs |= {key: torch.randn(shape, generator=generator) for key in past}
    forward = module.forward

    def step(input_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> tuple[Tensor, ...]:
        keys_and_values = list(past.values())
        cache = DynamicCache(list(zip(keys_and_values[::2], keys_and_values[1::2], strict=True)))
        outputs = forward(input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)
        return (outputs.logits, *(each for layer in cache.layers for each in (layer.keys, layer.values)))

    present = [key.replace("past_key_values", "present") for key in past]
    axes: Axes = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "total_sequence"}}
    axes |= {key: {0: "batch", 2: "past_sequence"} for key in past}
    axes |= {key: {0: "batch", 2: "total_sequence"} for key in present}
    axes["logits"] = {0: "batch", 1: "sequence"}
    return Exportable(with_forward(module, step, list(inputs)), inputs, ["logits", *present], axes)


def dynamo(model: Exportable, path: Path, *, optimize: bool) -> None:
    """Write a model as the exporter does that traces by torch.export."""
    options = {"dynamo": True, "optimize": optimize, "verbose": False, "external_data": False, "opset_version": OPSET}
    axes = _axes_with(model, _FIXES_SEQUENCE["dynamo"])
    shapes = {_label(name): axes[name] for name in model.inputs}
    inputs = {_label(name): tensor for name, tensor in model.inputs.items()}
    _export(model, path, **options, kwargs=inputs, dynamic_shapes=shapes)


def legacy(model: Exportable, path: Path, *, opset: int) -> None:
    """Write a model as the exporter does that traces by TorchScript."""
    axes = _axes_with(model, _FIXES_SEQUENCE["legacy"])
    options = {"dynamo": False, "opset_version": opset, "args": tuple(model.inputs.values()), "dynamic_axes": axes}
    with _later_symbolics(opset):
        _export(model, path, **options)


def optimised(source: bytes, path: Path, level: Level) -> None:
    """Write a model as ONNX Runtime has it after its own optimisation, for a CPU."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _export(model: Exportable, path: Path, **options: Any) -> None:
    with quiet():
        names = {"input_names": list(model.inputs), "output_names": list(model.outputs)}
        torch.onnx.export(model.module, f=path, **names, **options)
    written = onnx.load(path)
    if written.ir_version > MAX_IR_VERSION:
        written.ir_version = MAX_IR_VERSION
        onnx.save(written, path)


def with_forward(module: nn.Module, forward: Callable[..., Any], names: Sequence[str]) -> nn.Module:
    """Give a module another forward, of tensors with these names, and leave the names of its weights alone.

    What hooks did to the outputs of the old one, the new one has to do.
    """
    labels = [_label(name) for name in names]

    def named(*args: Tensor, **kwargs: Tensor) -> Any:
        tensors = {**dict(zip(labels, args, strict=False)), **kwargs}
        return forward(**{name: tensors[label] for name, label in zip(names, labels, strict=True)})

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named.__signature__ = inspect.Signature([inspect.Parameter(label, kind) for label in labels])
    module.forward = named
    module._forward_hooks.clear()
    return module


def _axes_with(model: Exportable, fixing: type[nn.Module]) -> Axes:
    """The dynamic axes of a model, which are not of the sequence if it has a module of the kind that fixes it."""
    if not any(isinstance(module, fixing) for module in model.module.modules()):
        return model.axes
    return {
        name: {i: symbol for i, symbol in axes.items() if symbol != "sequence"} for name, axes in model.axes.items()
    }


def _label(name: str) -> str:
    """The name of a parameter in Python."""
    return name.replace(".", "_")


def _from_tokenizer(config: Any, ids: Tensor) -> dict[str, Tensor]:
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if hasattr(config, "type_vocab_size"):
        inputs["token_type_ids"] = ids % config.type_vocab_size
    return inputs


def _axes(name: str, tensor: Tensor) -> dict[int, str]:
    if tensor.is_floating_point():
        return {0: "batch"}
    return {0: "batch", 1: "decoder_sequence" if name.startswith("decoder") else "sequence"}


def _cache_shape(config: Any) -> tuple[int, int, int]:
    heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
    return heads, _PAST, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


@contextmanager
def _later_symbolics(opset: int) -> Iterator[None]:
    """Lend the exporter its own translations of attention from later opsets, which use no op that is newer."""
    from torch.onnx._internal.torchscript_exporter import symbolic_opset13, symbolic_opset14

    later = {
        "aten::unflatten": symbolic_opset13.unflatten,
        "aten::scaled_dot_product_attention": symbolic_opset14.scaled_dot_product_attention,
    }
    names = list(later) if opset < 13 else []
    for name in names:
        torch.onnx.register_custom_op_symbolic(name, later[name], opset)
    try:
        yield
    finally:
        for name in names:
            torch.onnx.unregister_custom_op_symbolic(name, opset)
