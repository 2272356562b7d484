"""Passes and how they are run: a pass is a frozen dataclass, a pipeline is a tuple of passes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol, runtime_checkable

from graphclone.algebra.axes import Axis
from graphclone.algebra.growth import Growth
from graphclone.algebra.recipes import Widening
from graphclone.algebra.scales import Expression
from graphclone.algebra.strategies import SYMMETRIC, Strategy
from graphclone.analysis.facts import Facts, Literal
from graphclone.errors import GraphcloneError, InvariantError
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


@runtime_checkable
class Pass(Protocol):
    """A step of the pipeline: a frozen dataclass whose fields are its options.

    ``requires`` and ``ensures`` name facts about the state; the runner checks that what a pass requires has been
    ensured before it.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]]
    ensures: ClassVar[frozenset[str]]

    def __call__(self, state: State) -> bool:
        """Do it. Whether anything changed."""
        ...


@dataclass(frozen=True)
class Timing:
    """How long a pass took, and whether it changed anything."""

    name: str
    seconds: float
    changed: bool


def run(
    passes: Sequence[Pass],
    state: State,
    *,
    after: Callable[[Pass, State], None] | None = None,
    check: bool = False,
) -> list[Timing]:
    """Run passes in order.

    Args:
        passes: the pipeline.
        state: read and written.
        after: called after every pass, to print or to watch.
        check: test the graph's invariants after every pass.

    Raises:
        InvariantError: a pass is run before what it requires, or breaks the graph.
    """
    from graphclone.graph.invariants import check_graph

    known: set[str] = set()
    timings: list[Timing] = []
    for step in passes:
        missing = step.requires - known
        if missing:
            raise InvariantError(f"{step.name} requires {', '.join(sorted(missing))}, which no earlier pass ensures")
        start = time.perf_counter()
        changed = step(state)
        timings.append(Timing(step.name, time.perf_counter() - start, changed))
        known |= step.ensures
        if check:
            check_graph(state.graph)
        if after is not None:
            after(step, state)
    return timings


def available(extra: Iterable[type[Any]] = ()) -> dict[str, type[Any]]:
    """Every pass by name: graphclone's own, those of installed plug-ins, and those given."""
    from graphclone.passes import PASSES

    plugged = [entry.load() for entry in entry_points(group="graphclone.passes")]
    return {cls.name: cls for cls in (*PASSES, *plugged, *extra)}


def parse(text: str, extra: Iterable[type[Any]] = ()) -> tuple[Pass, ...]:
    """The pipeline written as ``canonicalize,infer-dims,choose-widths{factor=2}``.

    Raises:
        GraphcloneError: no such pass or option, or a value of the wrong type.
    """
    known = available(extra)
    return tuple(_parse_pass(item, known) for item in _split(text))


def _split(text: str) -> list[str]:
    items, depth, item = [], 0, ""
    for char in text:
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            items.append(item)
            item = ""
        else:
            item += char
    return [part.strip() for part in (*items, item) if part.strip()]


def _parse_pass(item: str, known: Mapping[str, type[Any]]) -> Pass:
    name, brace, options = item.partition("{")
    if brace and not options.endswith("}"):
        raise GraphcloneError(f"pass {item!r}: the options have no closing brace")
    cls = known.get(name.strip())
    if cls is None:
        raise GraphcloneError(f"no pass is called {name.strip()!r}; there are {', '.join(known)}")
    fields = {option.name: option for option in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for option in filter(None, (part.strip() for part in options.removesuffix("}").split(","))):
        key, _, value = option.partition("=")
        field_name = key.strip().replace("-", "_")
        if field_name not in fields:
            raise GraphcloneError(f"pass {name} has no option {key.strip()!r}; it has {', '.join(fields) or 'none'}")
        values[field_name] = _converted(value.strip(), fields[field_name].default, f"{name}: {key.strip()}")
    made: Pass = cls(**values)
    return made


def _converted(text: str, default: Any, where: str) -> Any:
    """Text as a value of the type an option has by default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text) if isinstance(default, int | float) else text
    except (KeyError, ValueError):
        raise GraphcloneError(f"pass option {where} cannot be {text!r}") from None
