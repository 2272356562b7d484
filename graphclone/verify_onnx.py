"""Source and clone side by side in ONNX Runtime, both exported by the same code."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from graphclone.checks import Check, NoiseFloor
from graphclone.emit.onnx import to_onnx, write
from graphclone.emit.torch import to_module
from graphclone.errors import GraphcloneError
from graphclone.input_sets import clone_examples
from graphclone.ir import Graph, Value
from graphclone.lockstep import Deviation, input_through_maps
from graphclone.sessions import Provider, Session
from graphclone.verify import Sample, compare, judge

if TYPE_CHECKING:
    from graphclone.clone import Clone

NAME = "ONNX Runtime"

_EXPORT_SLACK = 64.0
"""How much farther from float64 than torch an exported source may be before its export is taken to be wrong."""


def check_onnx(
    clone: Clone,
    tensors: Mapping[Value, torch.Tensor],
    samples: Sequence[Sample],
    provider: Provider,
    onnx: bool | Path,
) -> Check:
    """Export both, run them on every input set, and judge the outputs as in torch.

    Args:
        clone: to be verified.
        tensors: the data of its initializers.
        samples: input sets, with what the source gives for them.
        provider: what ONNX Runtime runs on.
        onnx: the file of the clone, where there is one already.

    Raises:
        GraphcloneError: the provider is not there. A model that cannot be exported or loaded makes a check that
            was not made.
    """
    with tempfile.TemporaryDirectory(prefix="graphclone-") as folder:
        try:
            source = _source_session(clone, Path(folder) / "source.onnx", provider)
            path = onnx if isinstance(onnx, Path) else _export_clone(clone, tensors, Path(folder) / "clone.onnx")
            wide = Session(path, provider)
        except GraphcloneError as error:
            return Check(NAME, None, f"not checked: {error}", {"reason": str(error)})
        return _compare(clone, source, wide, samples)
