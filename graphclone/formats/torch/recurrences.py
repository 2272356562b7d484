"""Recurrent layers in code that torch exports.

A trace has them as one operator each. To learn the shapes of their results torch runs the loop that defines them, so
that the trace would hold for one length. Operators of our own, which have shapes and no definition, stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram

_NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_LIBRARY = torch.library.Library("graphclone", "FRAGMENT")


def _shapes(seen: torch.Tensor, hx: torch.Tensor | Sequence[torch.Tensor], *options: Any) -> tuple[torch.Tensor, ...]:
    """Tensors of the shapes that a layer returns: what it gives on at every step, and its last states."""
    *_, bidirectional, _ = options
    states = [hx] if isinstance(hx, torch.Tensor) else list(hx)
    width = states[0].shape[-1] * (2 if bidirectional else 1)
    return (seen.new_empty((*seen.shape[:-1], width)), *map(torch.empty_like, states))


def _stand_in(name: str) -> torch._ops.OpOverload:
    schema = str(getattr(torch.ops.aten, name).input._schema)
    _LIBRARY.define(name + schema[schema.index("(") :])
    torch.library.register_fake(f"graphclone::{name}", _shapes, lib=_LIBRARY)
    operator: torch._ops.OpOverload = getattr(torch.ops.graphclone, name).default
    return operator


STAND_INS = {getattr(torch.ops.aten, name).input: _stand_in(name) for name in _NAMES}
"""By the operator that each stands in for."""


@contextmanager
def any_length() -> Iterator[None]:
    """Let recurrent layers be traced for every length of a sequence.

    If torch looks into a layer nevertheless, the trace has an operator that no rule knows.
    """
    kernels = {layer: dict(layer.py_kernels) for layer in STAND_INS}
    try:
        for layer, stand_in in STAND_INS.items():
            layer.py_kernels.update(dict.fromkeys(layer.py_kernels, stand_in))
            layer._dispatch_cache.clear()
        yield
    finally:
        for layer, defined in kernels.items():
            layer.py_kernels.update(defined)
            layer._dispatch_cache.clear()


def keep_recurrences(program: ExportedProgram) -> None:
    """Let the layers of a program be what no exporter decomposes, in place."""
    for layer, stand_in in STAND_INS.items():
        for node in program.graph.find_nodes(op="call_function", target=layer):
            node.target = stand_in
