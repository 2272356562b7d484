"""The passes of the pipeline, one per file, and their order; beside them what several of them share."""

from __future__ import annotations

from graphclone.passes.balance_scales import BalanceScales
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.choose_widths import ChooseWidths
from graphclone.passes.deepen import Deepen
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.rewrite_literals import RewriteLiterals
from graphclone.passes.widen_initializers import WidenInitializers
from graphclone.pipeline.runner import Pass

PASSES: tuple[type[Pass], ...] = (
    Canonicalize,
    Deepen,
    InferDims,
    ChooseWidths,
    BalanceScales,
    WidenInitializers,
    RewriteLiterals,
)
"""Every pass, in the order of the default pipeline."""


def analysis() -> tuple[Pass, ...]:
    """The passes that find out what can grow."""
    return (Canonicalize(), InferDims())


def default_pipeline() -> tuple[Pass, ...]:
    """The passes that make a clone."""
    return tuple(cls() for cls in PASSES)
