"""The request, and the state in which each pass leaves what it found out for later passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar, overload

from graphclone.algebra.axes import Axis
from graphclone.algebra.depths import Depths, Start, Where
from graphclone.algebra.factors import Widen
from graphclone.algebra.growth import Fill, Growth, Kind, Layout
from graphclone.algebra.recipes import Widening
from graphclone.algebra.scales import Expression
from graphclone.algebra.strategies import SYMMETRIC, Strategy
from graphclone.analysis.facts import Facts, Literal
from graphclone.analysis.fills import Fills
from graphclone.analysis.places import Place
from graphclone.errors import InvariantError
from graphclone.graph.deepen import Depth
from graphclone.graph.ir import Graph, Node, Value
from graphclone.graph.snapshot import Snapshot
from graphclone.rules import Rules, default_rules


@dataclass(frozen=True)
class Request:
    """The user's request.

    Attributes:
        widen: a factor, or a dict of factors by name, which may hold wildcards. None means no factor, or 2 if nothing
            else is asked for.
        widen_io: patterns of names. Inputs and outputs that match one may grow.
        strategy: how copies share a contracted weight.
        seed: of the noise.
        untie: give a weight that is both looked up and contracted one copy for each use.
        kind: whether dims are tiled, as in the paper, or interleaved.
        sizes: new sizes by name, beside ``widen``.
        depth: the number of blocks, or a dict of numbers by stack. None keeps the number.
        new_blocks: where new blocks go.
        new_from: what new blocks begin as.
        like: a configuration whose widths are taken in place of all these: its file, its folder or a hub id.
        keep_vocab: keep the source's vocabulary if ``like`` has another one.
        omit: names or patterns of parts that nothing reads, which the clone is to lack.

    Examples:
        >>> Request(sizes={"hidden": 960}).patterns
        ('hidden',)
    """

    widen: Widen | None = None
    widen_io: tuple[str, ...] = ()
    strategy: Strategy = SYMMETRIC
    seed: int = 0
    untie: bool = False
    kind: Kind = "tile"
    sizes: Mapping[str, int] = field(default_factory=dict)
    depth: Depths | None = None
    new_blocks: Where = "spread"
    new_from: Start = "copy"
    like: str | None = None
    keep_vocab: bool = False
    omit: tuple[str, ...] = ()

    @property
    def factors(self) -> Widen:
        """The factors: 2 if neither factors nor sizes nor a depth are asked for."""
        if self.widen is not None:
            return self.widen
        return {} if self.sizes or self.depth is not None else 2

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names and patterns of dims that are asked for; none if every dim that can is to grow."""
        return (*(self.widen if isinstance(self.widen, Mapping) else ()), *self.sizes)

    def frees(self, name: str) -> bool:
        """Whether an input or output of a name may grow."""
        return any(fnmatchcase(name, pattern) for pattern in self.widen_io)


# Results of passes


@dataclass(frozen=True)
class Analysis:
    """The result of ``infer-dims``.

    Attributes:
        facts: what the rules say about the graph.
        source: a copy of that graph, which stays as it is while the graph becomes the clone's.
        snapshot: of that graph, by which it is seen whether the facts are still about it.
    """

    facts: Facts
    source: Graph
    snapshot: Snapshot

    @classmethod
    def of(cls, facts: Facts) -> Analysis:
        """The facts, of their graph as it is now."""
        return cls(facts, facts.graph.copy(), Snapshot.of(facts.graph))


@dataclass(frozen=True)
class Widths:
    """The result of ``choose-widths``, or of ``match-widths``, which reads it off a wide model.

    Attributes:
        growths: the growth of every dim that grows.
        given: logarithm of the scale of literals and constants, which are those of a given wide model and may not be
            changed, nor may anything be put into its graph; None where the clone's code is ours to write.
        fills: what values hold at the pads of dims that have some; what is not there may be anything.
        layouts: the widened layouts of axes that have been asked for, which many values share.
    """

    growths: Mapping[Axis, Growth]
    given: Mapping[Value | Literal, Expression] | None = None
    fills: Fills = field(default_factory=dict)
    layouts: dict[Axis, Layout] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Mend:
    """A multiplication that is put into the graph, since no parameter and no literal can absorb its factor.

    Attributes:
        value: what is multiplied.
        node: the node that reads it, or the one that computes it.
        on_operand: whether it is for that reader alone; else for all.
    """

    value: Value
    node: Node
    on_operand: bool

    @property
    def name(self) -> str:
        """The name of the node that multiplies."""
        return f"{self.value.name}_rescaled_for_{self.node.name}"


@dataclass(frozen=True)
class Scales:
    """The result of ``balance-scales``.

    Attributes:
        factors: of every parameter and literal.
        shifts: what is added to a parameter that is read as ``w + b``, and to its views.
        values: scale of every value that is not the source's own.
        mends: the factor of every multiplication that the graph needs.
    """

    factors: dict[Value | Literal, float] = field(default_factory=dict)
    shifts: dict[Value, float] = field(default_factory=dict)
    values: dict[Value, float] = field(default_factory=dict)
    mends: dict[Mend, float] = field(default_factory=dict)


_Result = TypeVar("_Result")


class Stage(Generic[_Result]):
    """The attribute of a state that holds the result of one pass.

    To read it before there is one is a mistake, and the error names the pass. To set it takes back the results of
    later stages, which were found from another.

    Args:
        producer: the name of the pass.
    """

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, state: None, owner: type) -> Stage[_Result]: ...

    @overload
    def __get__(self, state: State, owner: type) -> _Result: ...

    def __get__(self, state: State | None, owner: type) -> Stage[_Result] | _Result:
        if state is None:
            return self
        if self.name not in state.results:
            raise InvariantError(f"the state has no {self.name} yet: {self.producer} has not run")
        result: _Result = state.results[self.name]
        return result

    def __set__(self, state: State, result: _Result) -> None:
        earlier = STAGES[: STAGES.index(self.name)]
        results = {name: state.results[name] for name in earlier if name in state.results}
        state.results = {**results, self.name: result}


@dataclass
class State:
    """The state that passes read and write.

    Attributes:
        graph: the source first, the clone at the end.
        request: what the user asked for.
        rules: by op name.
        results: of the passes so far, by stage.
        depth: set by ``deepen`` where it puts blocks into the graph.
        analysis: set by ``infer-dims``.
        widths: set by ``choose-widths`` or ``match-widths``.
        scales: set by ``balance-scales``.
        recipes: how every initializer is widened; set by ``widen-initializers``.

    Examples:
        >>> state = clone.state
        >>> [dim.new_size for dim in state.growths.values()]
        [12]
    """

    graph: Graph
    request: Request = field(default_factory=Request)
    rules: Rules = field(default_factory=default_rules)
    results: Mapping[str, Any] = field(default_factory=dict)

    depth = Stage[Depth]("deepen")
    analysis = Stage[Analysis]("infer-dims")
    widths = Stage[Widths]("choose-widths")
    scales = Stage[Scales]("balance-scales")
    recipes = Stage[dict[Value, Widening]]("widen-initializers")

    def has(self, stage: Stage[Any]) -> bool:
        """Whether a stage has its result: ``state.has(State.widths)``."""
        return stage.name in self.results

    @property
    def facts(self) -> Facts:
        """The facts that the rules state about the graph."""
        return self.analysis.facts

    @property
    def source(self) -> Graph:
        """The graph as the facts describe it, before anything was widened."""
        return self.analysis.source

    @property
    def model(self) -> Graph:
        """The graph of the user's own model: that of the source, without the blocks that were put into it."""
        return self.depth.source if self.has(State.depth) else self.source

    @property
    def growths(self) -> Mapping[Axis, Growth]:
        """The growth of every dim that grows."""
        return self.widths.growths

    def growth_of(self, axis: Axis) -> Growth:
        """The growth of a dim; none before widths are chosen."""
        growth = self.growths.get(axis) if self.has(State.widths) else None
        return growth or Growth(axis.size)

    def fill_of(self, value: Value, index: int, dim: Axis) -> Fill:
        """The fill that is demanded of a value at the pads of a dim in one of its axes."""
        return self.widths.fills.get(Place(value, index, dim), Fill.FREE)

    def layout(self, axis: Axis) -> Layout:
        """The widened layout of an axis."""
        axes = self.facts.axes
        if not self.has(State.widths):
            return axes.layout(axis, self.growth_of)
        root, layouts = axes.find(axis), self.widths.layouts
        if root not in layouts:
            layouts[root] = axes.layout(root, self.growth_of)
        return layouts[root]


STAGES = tuple(name for name, attribute in vars(State).items() if isinstance(attribute, Stage))
"""The names of the stages, in the order in which each rests on the earlier ones."""
