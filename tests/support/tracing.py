"""Models of the zoo, traced once, and clones of them made from copies of the trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch.utils import _pytree as pytree

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Growth, Kind
from graphclone.analysis.fills import infer_fills
from graphclone.analysis.places import Unfillable
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
    """Every free dim of the graph, offered or not, grows by its own random factor from {1, 2, 3}."""

    seed: int = 0
    kind: Kind = "tile"
    name: ClassVar[str] = "choose-widths"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"widths"})

    def __call__(self, state: State) -> bool:
        rng = random.Random(self.seed)
        wanted = {leaf: Growth(leaf.size, rng.choice([1, 2, 3]), self.kind) for leaf in free_leaves(state)}
        state.widths = Widths(settle(state.facts, wanted)[0])
        return True


@dataclass(frozen=True)
class RandomSizes:
    """Every free dim of the graph, offered or not, grows to a random size of up to three times its own.

    One that cannot bear pads grows twofold, or, where nothing is copied, not at all.
    """

    seed: int = 0
    name: ClassVar[str] = "choose-widths"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"widths"})

    def __call__(self, state: State) -> bool:
        rng = random.Random(self.seed)
        kind, copies = state.request.kind, state.request.strategy.copies
        sizes = {leaf: rng.randint(leaf.size, 3 * leaf.size) for leaf in free_leaves(state)}
        wanted = grown(state.facts, sizes, kind, copies=copies)
        while True:
            growths = settle(state.facts, wanted)[0]
            try:
                state.widths = Widths(growths, fills=infer_fills(state.facts, growths))
            except Unfillable as problem:
                if (dim := problem.dim) is None:
                    raise
                wanted[dim] = Growth(dim.size, 2 if copies else 1, kind)
            else:
                return True


def free_leaves(state: State) -> list[Axis]:
    """Every dim of a graph that may grow."""
    leaves = (leaf for axes in state.facts.of.values() for axis in axes for leaf in state.facts.axes.leaves(axis))
    return list(dict.fromkeys(leaf for leaf in leaves if leaf.pin is None and leaf.size > 1))


def random_pipeline(seed: int, kind: Kind) -> tuple[Pass, ...]:
    """The pipeline with random widths."""
    return pipeline_by(RandomWidths(seed, kind))


def pipeline_by(widths: Pass) -> tuple[Pass, ...]:
    """The pipeline with widths chosen by a pass of the tests' own."""
    return (Canonicalize(), InferDims(), widths, BalanceScales(), WidenInitializers(), RewriteLiterals())
