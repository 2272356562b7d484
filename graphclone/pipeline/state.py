"""What a pipeline works on: the request, and a state in which every pass finds what the earlier ones found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Growth
from graphclone.algebra.recipes import Widening
from graphclone.algebra.scales import Expression
from graphclone.algebra.strategies import SYMMETRIC, Strategy
from graphclone.analysis.facts import Facts, Literal
from graphclone.graph.ir import Graph, Value
from graphclone.rules import Rules, default_rules

Widen = int | Mapping[str, int]
"""One factor for every dim that grows by default, or a factor per dim or group of dims."""


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        widen: factor, or factors by name (names may hold wildcards).
        widen_io: patterns of names of inputs and outputs that may grow.
        strategy: how copies share a contracted weight.
        seed: of the noise.
        untie: give a weight that is both looked up and contracted one copy for each use.
        kind: whether dims are tiled (as in the paper) or interleaved.
    """

    widen: Widen = 2
    widen_io: tuple[str, ...] = ()
    strategy: Strategy = SYMMETRIC
    seed: int = 0
    untie: bool = False
    kind: Any = "tile"


@dataclass
class State:
    """What passes read and write.

    Attributes:
        graph: the source first, the clone at the end.
        request: what the user asked for.
        rules: by op name.
        facts: what the rules say about the graph; set by ``infer-dims``.
        source: the graph as the facts describe it, before anything was widened; set by ``infer-dims``.
        growths: growth of every dim that grows; set by ``choose-widths``.
        given: logarithm of the scale of literals and constants, which are those of a given wide model and may not be
            changed, nor may anything be put into its graph; None where the clone's code is ours to write.
        scales: factor of every parameter and literal that is rescaled; set by ``balance-scales``.
        shifts: what is added to a parameter that is read as ``w + b``, and to its views; set by ``balance-scales``.
        value_scales: scale of every value that is not the source's own; set by ``balance-scales``.
        recipes: how every initializer is widened; set by ``widen-initializers``.
    """

    graph: Graph
    request: Request = field(default_factory=Request)
    rules: Rules = field(default_factory=default_rules)
    facts: Facts | None = None
    source: Graph | None = None
    growths: dict[Axis, Growth] | None = None
    given: dict[Value | Literal, Expression] | None = None
    scales: dict[Value | Literal, float] | None = None
    shifts: dict[Value, float] = field(default_factory=dict)
    value_scales: dict[Value, float] = field(default_factory=dict)
    recipes: dict[Value, Widening] | None = None

    @property
    def known(self) -> Facts:
        """The facts, which some earlier pass has inferred."""
        assert self.facts is not None, "infer-dims has not run"
        return self.facts

    def growth_of(self, axis: Axis) -> Growth:
        """The growth of a dim."""
        return (self.growths or {}).get(axis) or Growth(axis.size)

    def layout(self, axis: Axis) -> Any:
        """The widened layout of an axis."""
        return self.known.axes.layout(axis, self.growth_of)
