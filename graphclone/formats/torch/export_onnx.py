"""From a graph to an ONNX model, by way of torch's own exporter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir
import onnx_ir.passes.common
import torch
from onnxscript import opset18
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument

from graphclone.errors import GraphcloneError, causes, one_line
from graphclone.formats.onnx.metadata import annotate
from graphclone.formats.onnx.saving import write_model
from graphclone.formats.torch import onnx_recurrences, onnx_sizes
from graphclone.formats.torch.decompose import spell_out
from graphclone.formats.torch.exact_quotients import exact_quotients
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import export
from graphclone.formats.torch.input_guard import GUARD
from graphclone.formats.torch.input_sets import clone_examples, varying_lengths
from graphclone.formats.torch.onnx_recurrences import check_recurrences
from graphclone.formats.torch.onnx_sizes import settle_precision
from graphclone.formats.torch.plain_outputs import refuse_texts
from graphclone.formats.torch.recurrences import keep_recurrences
from graphclone.formats.torch.writer import module_of
from graphclone.graph.ir import Graph, values_in
from graphclone.graph.names import fresh
from graphclone.pipeline.state import State
from graphclone.runtime.exclusive import exclusive
from graphclone.runtime.quiet import quiet

OPSET = 20
MAX_IR_VERSION = 13
"""The newest that ONNX Runtime 1.31 reads."""


@exclusive()
def save_as_onnx(state: State, example: Example, path: Path) -> None:
    """Write a clone as ONNX, with its weights in ``<name>.data`` beside it where they are too many for one file.

    Raises:
        GraphcloneError: torch cannot export the clone, or the file cannot be written.
    """
    refuse_texts(state.graph, path)
    args, kwargs = clone_examples(state, example)
    model = to_onnx(state.graph, module_of(state, example), args, kwargs)
    annotate(model, state)
    write_model(model, path)


@exclusive()
def to_onnx(graph: Graph, module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> onnx_ir.Model:
    """Export the module that runs a graph.

    Args:
        graph: gives the inputs and outputs of the model their names.
        module: the graph as ``to_module`` makes it.
        args: positional example inputs of the module.
        kwargs: example inputs by name.

    Returns:
        A model whose initializers have the names of the module's state dict, dynamic where the module is.

    Raises:
        GraphcloneError: torch cannot export it.
    """
    module.get_submodule(GUARD).in_graph = True  # type: ignore[assignment]
    with quiet(), exact_quotients():
        lengths = varying_lengths(graph, args, kwargs)
        program = export(module, tuple(args), dict(kwargs), graph.name, lengths=lengths).program
        _unfreeze_strides(program)
        _pool_any_length(program)
        check_recurrences(program)
        keep_recurrences(program)
        program.graph_module.recompile()
        try:
            exported = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table=_TRANSLATIONS,
            )
        except Exception as error:  # the exporter raises whatever its parts raise
            *_, root = causes(error)
            reason = one_line(root)
            raise GraphcloneError(f"{graph.name}: torch cannot export it to ONNX: {reason}") from error
    assert exported is not None
    model = exported.model
    _name_guard(model)
    settle_precision(model)
    model.ir_version = min(model.ir_version or MAX_IR_VERSION, MAX_IR_VERSION)
    onnx_ir.passes.common.IdentityEliminationPass()(model)
    _name_ports(model, [value.name for value in graph.inputs], _returned(graph, program))
    _clean(model)
    return model


def _number(
    s: Any, dtype: int = onnx_ir.DataType.FLOAT, layout: str = "", device: str = "", pin_memory: bool = False
) -> Any:
    """A number as a tensor, in the precision that it is read in; the exporter itself makes a float32 of it first."""
    del layout, device, pin_memory
    if not isinstance(s, bool | int | float):  # a size
        return opset18.Cast(s, to=dtype)
    return opset18.Constant(value=onnx_ir.tensor(s, dtype=onnx_ir.DataType(dtype)))  # type: ignore[arg-type]


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scalar_tensor.default: _number,
    **onnx_sizes.TRANSLATIONS,
    **onnx_recurrences.TRANSLATIONS,
}


def _name_guard(model: onnx_ir.Model) -> None:
    """Let the node that fails where the trace does not hold say so: ONNX Runtime shows its name."""
    for node in model.graph:
        if node.op_type == "Gather" and GUARD in node.metadata_props.get("pkg.torch.onnx.name_scopes", ""):
            node.name = "inputs of sizes that the model was not traced for"


def _unfreeze_strides(program: ExportedProgram) -> None:
    """Let every view be of a copy. A view is legal only for the strides of the kernels that the trace ran, and
    the exporter puts other kernels in their place; in ONNX the copies are identities, which go again.
    """
    views = (torch.ops.aten.view.default, torch.ops.aten.reshape.default)
    for node in [n for op in views for n in program.graph.find_nodes(op="call_function", target=op)]:
        viewed = node.args[0]
        with program.graph.inserting_before(node):
            copy = program.graph.call_function(
                torch.ops.aten.clone.default, (viewed,), {"memory_format": torch.contiguous_format}
            )
        copy.meta = {"val": viewed.meta["val"].contiguous()}
        node.replace_input_with(viewed, copy)


_POOLS = tuple(getattr(torch.ops.aten, f"adaptive_avg_pool{n}d").default for n in (1, 2, 3))


def _pool_any_length(program: ExportedProgram) -> None:
    """Spell out what is pooled to a fixed length: the exporter takes for granted that it divides the length."""
    pools = [n for op in _POOLS for n in program.graph.find_nodes(op="call_function", target=op)]
    for pool in pools:
        source, sizes = pool.args
        varies = any(isinstance(size, torch.SymInt) for size in source.meta["val"].shape[-len(sizes) :])
        if varies and not spell_out(pool, _pooled):
            raise GraphcloneError(f"{pool.name}: torch exports this pooling for one length only")


def _pooled(x: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Means over windows along the last axes; they follow one another, as the windows are products."""
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        length = x.shape[axis]
        place, at = torch.arange(size).unsqueeze(1), torch.arange(length)
        first, end = place * length // size, ((place + 1) * length + size - 1) // size
        share = ((at >= first) & (at < end)).to(x.dtype) / (end - first).to(x.dtype)
        x = (x.transpose(axis, -1) @ share.t()).transpose(axis, -1)
    return x


def _returned(graph: Graph, program: ExportedProgram) -> list[str]:
    """The names of the outputs that are not constants, which an ONNX model does not return."""
    names = [output.name for output in graph.outputs for _ in values_in(output.operand)]
    specs = [s for s in program.graph_signature.output_specs if not isinstance(s.arg, ConstantArgument)]
    if len(specs) != len(names):
        raise GraphcloneError(f"{graph.name}: {len(names)} outputs, but {len(specs)} after export")
    return names


def _name_ports(model: onnx_ir.Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name inputs and outputs as given; whatever else has one of those names gets another.

    An output that is an input, an initializer or another output as well becomes a copy of it.
    """
    graph = model.graph
    outside = {*graph.inputs, *graph.initializers.values()}
    for i, value in enumerate(graph.outputs):
        if value in outside:
            node = onnx_ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[i] = value = node.outputs[0]
        outside.add(value)
    others = set(graph.initializers)
    names = [fresh(name, others) for name in (*inputs, *outputs)]
    values = [*graph.inputs, *graph.outputs]
    for value in _values(model):
        if value.name in names and value not in values and value.name not in graph.initializers:
            value.name = f"{value.name}_inner"
    for value in values:  # first out of each other's way
        value.name = f"{value.name}_port"
    for value, name in zip(values, names, strict=True):
        value.name = name


def _clean(model: onnx_ir.Model) -> None:
    """Drop the exporter's notes to itself, and make a number of a symbol that is one."""
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in _values(model):
        value.metadata_props.clear()
        if value.shape is not None and not value.shape.frozen:
            for i, size in enumerate(value.shape):
                if isinstance(size, onnx_ir.SymbolicDim) and str(size.value).isdigit():
                    value.shape[i] = int(str(size.value))


def _values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from node.outputs
