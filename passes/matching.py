"""Grow a graph into another whose code is given: the pipeline of ``into=`` and of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphclone.graph.ir import Graph
from graphclone.passes.balance_scales import BalanceScales, Unbalanced
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.deepen import MatchDepth
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.match_widths import MatchWidths
from graphclone.passes.rewrite_literals import RewriteLiterals
from graphclone.passes.widen_initializers import WidenInitializers
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.runner import Pass, Timing, run
from graphclone.pipeline.state import Request, State


def match(state: State, target: Graph, after: Callable[[Pass, State], None] | None = None) -> Sequence[Timing]:
    """Run the pipeline that grows a source into a target, given the target's trace.

    Raises:
        Unbalanced: the target's code multiplies by what no weight of its can absorb.
        GraphcloneError: the target is not the source at other widths.
    """
    wide = State(target, Request(untie=state.request.untie))
    run((Canonicalize(),), wide)
    matching = (MatchDepth(wide.graph), InferDims(), MatchWidths(wide.graph))
    passes = (Canonicalize(), *matching, BalanceScales(), WidenInitializers(), RewriteLiterals())
    try:
        return run(passes, state, goal=CLONED, after=after)
    except Unbalanced as error:
        tied = next((i.names for i in state.graph.initializers if i.kind == "parameter" and len(i.names) > 1), ())
        hint = f"; a wide model in which {' and '.join(tied)} are not tied can be cloned into" if tied else ""
        raise Unbalanced(f"{error}{hint}") from None
