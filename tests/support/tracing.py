"""Models of the zoo, traced once, and clones of them made from copies of the trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar

import torch
from torch.utils import _pytree as pytree

from graphclone.algebra.growth import Kind
from graphclone.analysis.fills import Unfillable, infer_fills
from graphclone.analysis.settling import grown, settle
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Graph
from graphclone.passes import (
    BalanceScales,
    Canonicalize,
    InferDims,
    RewriteLiterals,
    WidenInitializers,
    default_pipeline,
)
from graphclone.pipeline.runner import Pass, run
from graphclone.pipeline.state import Request, State, Widths
from tests.support.zoo import ZOO


@cache
def traced(name: str) -> tuple[Graph, tuple[torch.Tensor, ...]]:
    """The graph of a zoo model and the tensors it was traced with."""
    built = ZOO[name].build()
    leaves = pytree.tree_leaves((built.args, built.kwargs))
    inputs = tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
    return trace_module(built.module, built.args, built.kwargs, name=name), inputs


def widened(name: str, request: Request, passes: Sequence[Pass] | None = None) -> State:
    """A clone of a zoo model, its graph checked after every pass."""
    state = State(traced(name)[0].copy(), request)
    run(default_pipeline() if passes is None else passes, state, check=True)
    return state


@dataclass(frozen=True)
class RandomWidths:
    """Every free dim of the graph, offered or not, grows by its own random factor from {1, 2, 3}, or to any size.

    A dim whose pads something cannot bear has whole copies instead.
    """

    seed: int = 0
    kind: Kind = "tile"
    any_size: bool = False
    name: ClassVar[str] = "choose-widths"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"widths"})

    def __call__(self, state: State) -> bool:
        facts, rng = state.facts, random.Random(self.seed)
        leaves = (leaf for axes in facts.of.values() for axis in axes for leaf in facts.axes.leaves(axis))
        free = dict.fromkeys(leaf for leaf in leaves if leaf.pin is None and leaf.size > 1)
        factor = partial(rng.choice, [1, 2, 3])
        sizes = {f: rng.randint(f.size, 3 * f.size) if self.any_size else f.size * factor() for f in free}
        while True:
            growths, _ = settle(facts, grown(facts, sizes, self.kind))
            try:
                state.widths = Widths(growths, fills=infer_fills(facts, growths))
            except Unfillable as problem:
                if (dim := problem.dim) is None:
                    raise
                sizes[dim] = 2 * dim.size if sizes[dim] % dim.size else dim.size
            else:
                return True


def random_pipeline(seed: int, kind: Kind, *, any_size: bool = False) -> tuple[Pass, ...]:
    """The pipeline with random widths."""
    widths = RandomWidths(seed, kind, any_size)
    return (Canonicalize(), InferDims(), widths, BalanceScales(), WidenInitializers(), RewriteLiterals())
