"""Two traces side by side, whatever the order in which they compute what is independent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.alignment import Pair, align
from graphclone.graph.ir import Graph, Node, Operand
from graphclone.passes.canonicalize import Canonicalize
from graphclone.pipeline.state import State


class Kinds(nn.Module):
    """Tables for kinds of layers, in the order of a set, which differs from process to process."""

    def __init__(self, kinds: tuple[str, ...], width: int = 6) -> None:
        super().__init__()
        self.kinds = kinds
        self.first, self.second = nn.Linear(4, width), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        tables = {kind: torch.sin(getattr(self, kind)(x)) for kind in self.kinds}
        return torch.cat([tables["first"], tables["second"].exp()], -1)


class Written(Kinds):
    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(self.first(x))
        for kind in self.kinds:
            total.mul_(0.5).add_(getattr(self, kind)(x))
        return total


class Viewed(Kinds):
    """What is written by way of a view is read under its own name."""

    def forward(self, x: Tensor) -> Tensor:
        total = self.first(x).sin()
        total[:, 1:].mul_(0.5)
        total[:, :2].add_(self.second(x)[:, :2])
        return total.exp()


def graph_of(model: nn.Module) -> Graph:
    graph = trace_module(model.eval(), (torch.randn(3, 4),))
    Canonicalize()(State(graph))
    return graph


@pytest.mark.parametrize("kinds", [("first", "second"), ("second", "first")])
def test_what_is_independent_may_come_in_any_order(kinds: tuple[str, str]) -> None:
    source, target = graph_of(Kinds(("first", "second"))), graph_of(Kinds(kinds, width=9))
    values = align(source, target).values
    assert len(values) == count(source)
    assert all(a.producer is None or a.producer.op == b.producer.op for a, b in values.items() if b.producer)


def test_what_is_written_by_way_of_a_view_is_aligned() -> None:
    source, target = (graph_of(Viewed(("first", "second"), width=width)) for width in (6, 9))
    assert len(align(source, target).values) == count(source)


def count(graph: Graph) -> int:
    """The number of its values."""
    return sum(len(node.outputs) for node in graph.nodes) + len(graph.initializers) + len(graph.inputs)


def test_what_is_written_comes_in_its_order() -> None:
    source, target = graph_of(Written(("first", "second"))), graph_of(Written(("second", "first")))
    align(source, graph_of(Written(("first", "second"))))
    with pytest.raises(GraphcloneError, match="not the same code"):
        align(source, target)


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [
        (math.nan, math.nan, False),
        (math.inf, math.inf, False),
        (math.inf, -math.inf, True),
        (math.nan, 1.0, True),
        (1, 1.0, True),
        ("x", "x", False),
    ],
)
def test_numbers_that_are_none_differ_from_others(old: Operand, new: Operand, differs: bool) -> None:
    assert Pair(Node("n", "op", {}, []), (), old, new).differs is differs
