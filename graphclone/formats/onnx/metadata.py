"""Metadata of weights for viewers of ONNX files: dims, the size in the source, and the number of copies."""

from __future__ import annotations

import onnx_ir

from graphclone.algebra.growth import Layout
from graphclone.pipeline.printer import Printer
from graphclone.pipeline.state import State

DIM = "graphclone.dim"
"""The layout of every axis of a weight, as ``heads*head_dim=12x2*64, hidden=768x2``."""

SOURCE = "graphclone.source"
"""Its shape in the source, as ``768x768``."""

FACTOR = "graphclone.factor"
"""By how much every axis grew, as ``2, 2``; ``768>1000`` where that is no whole number."""


def annotate(model: onnx_ir.Model, state: State) -> None:
    """Say beside every weight that grew what it was, in the metadata of its tensor, which nothing computes with.

    Args:
        model: of a clone, as it is to be written.
        state: of the clone, after the whole pipeline.
    """
    printer = Printer(state)
    for initializer in state.graph.initializers:
        recipe = state.recipes[initializer.value]
        stored = next((model.graph.initializers[n] for n in initializer.names if n in model.graph.initializers), None)
        if stored is None or stored.const_value is None or not any(layout.grows for layout in recipe.axes):
            continue
        stored.const_value.metadata_props.update(
            {
                DIM: ", ".join(printer.axes(initializer.value)),
                SOURCE: "x".join(map(str, recipe.source_shape)),
                FACTOR: ", ".join(map(_factor, recipe.axes)),
            }
        )


def _factor(layout: Layout) -> str:
    if not layout.size or layout.new_size % layout.size:
        return f"{layout.size}>{layout.new_size}"
    return str(layout.new_size // layout.size)
