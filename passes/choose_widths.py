"""Turn the request into a growth map per dim; refuse what cannot be done, with the reason."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from numbers import Integral
from typing import ClassVar

from graphclone.algebra.axes import Axis, Cause, Why
from graphclone.algebra.factors import fraction
from graphclone.algebra.growth import Growth
from graphclone.algebra.strategies import Strategy
from graphclone.analysis.dims import Dim, dims
from graphclone.analysis.facts import Facts
from graphclone.analysis.fills import Fills, infer_fills
from graphclone.analysis.places import Unfillable
from graphclone.analysis.settling import evened, grown, settle
from graphclone.errors import GraphcloneError, Remedy
from graphclone.passes.infer_dims import freeing
from graphclone.pipeline.state import Request, State, Widths


@dataclass(frozen=True)
class ChooseWidths:
    """Decide how every dim grows.

    Attributes:
        factor: overrides the request's factor for all dims that grow by default; 0 leaves the request.
    """

    factor: int = 0
    name: ClassVar[str] = "choose-widths"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"widths"})

    def __call__(self, state: State) -> bool:
        graph_dims = dims(state.facts)
        request = state.request
        sizes = _sizes(state.facts, graph_dims, self.factor, request)
        wishes = grown(state.facts, sizes, request.kind, copies=request.strategy.copies)
        wishes, growths, reasons = _settled(state.facts, wishes)
        _refuse_held(graph_dims, request, wishes, growths, reasons)
        if not any(growth.grows for growth in growths.values()) and any(growth.grows for growth in wishes.values()):
            raise GraphcloneError(f"nothing can grow: {next(iter(reasons.values()))}")
        state.widths = Widths(growths, fills=padded(state.facts, growths, request.strategy, graph_dims))
        return bool(growths)


def _settled(
    facts: Facts, wishes: dict[Axis, Growth]
) -> tuple[dict[Axis, Growth], dict[Axis, Growth], dict[Axis, Why]]:
    """The wishes, what of them is possible, and for every dim that is held back the reason.

    Parts of what is averaged over that would have more copies than others have pads instead, if these can be borne.
    """
    growths, reasons = settle(facts, wishes)
    instead = evened(facts, wishes) if reasons else wishes
    if instead != wishes:
        with_pads = instead, *settle(facts, instead)
        try:
            infer_fills(facts, with_pads[1])
        except Unfillable:
            pass
        else:
            return with_pads
    return wishes, growths, reasons


def padded(
    facts: Facts, growths: Mapping[Axis, Growth], strategy: Strategy, offered: Sequence[Dim] | None = None
) -> Fills:
    """The fills at the pads of all dims.

    Args:
        facts: of the graph.
        growths: of the dims that grow.
        strategy: by which they grow.
        offered: all dims, where a refusal may advise which others to ask for; None where every size is given.

    Raises:
        GraphcloneError: something in the graph cannot bear them.
    """
    try:
        return infer_fills(facts, growths)
    except Unfillable as problem:
        if problem.dim is None:
            raise
        size = growths[problem.dim].new_size
        raise _unfillable(facts, problem, problem.dim, size, offered, copies=strategy.copies) from None


def _unfillable(
    facts: Facts, problem: Unfillable, axis: Axis, size: int, offered: Sequence[Dim] | None, *, copies: bool
) -> GraphcloneError:
    """Why a dim cannot have the pads that a size takes, and which sizes it can have."""
    before, graph_dims = axis.size, dims(facts) if offered is None else offered
    name = next((dim.name for dim in graph_dims if dim.axis is axis), f"a dim of {before}")
    refusal = f"{name} cannot grow from {before} to {size}"
    if not copies:
        return GraphcloneError(
            f"{refusal} by what is new alone: {problem.why}; "
            f"take a strategy that makes copies, or name the dims that are to grow"
        )
    if size % before == 0:
        return GraphcloneError(
            f"{refusal}: what is beside it in the same axis grows less, and {problem.why}; "
            f"let the whole axis grow alike"
        )
    multiple = size - size % before
    nearest = f"leave it at {before}" if multiple == before else f"grow it to {multiple}"
    free = ", ".join(_of_any_size(facts, offered or ()))
    others = f"; any size can be had by {free}" if free else ""
    return GraphcloneError(
        f"{refusal}, which is no whole multiple: {problem.why}; {nearest} or grow it to {multiple + before}{others}"
    )


def _of_any_size(facts: Facts, offered: Sequence[Dim]) -> Iterator[str]:
    """The groups of dims that can grow by a single element, and so to any size."""
    for group, dim in {dim.group: dim for dim in reversed(offered) if dim.default}.items():
        wishes = grown(facts, {dim.axis: dim.size + 1})
        growths, _ = settle(facts, wishes)
        try:
            infer_fills(facts, growths)
        except Unfillable:
            continue
        if growths == wishes:
            yield group


def _sizes(facts: Facts, graph_dims: list[Dim], factor: int, request: Request) -> dict[Axis, int]:
    """The new size asked for, by dim."""
    widen = factor or request.factors
    sizes: dict[Axis, int] = {}
    if not isinstance(widen, Mapping):
        all_by = fraction(widen, "widen")
        offered = [dim for dim in graph_dims if dim.default]
        if all_by > 1 and not offered:
            raise _nothing(facts, graph_dims)
        sizes = {dim.axis: _times(dim, all_by) for dim in offered}
        widen = {}
    for pattern, number in widen.items():
        by = fraction(number, pattern)
        sizes |= {dim.axis: _times(dim, by) for dim in _matching(graph_dims, pattern) if dim.pin is None}
    for pattern, size in request.sizes.items():
        for dim in _matching(graph_dims, pattern):
            if isinstance(size, bool) or not isinstance(size, Integral) or size < dim.size:
                raise GraphcloneError(
                    f"{pattern}={size!r}: a size is a whole number of at least {dim.size}, the source's"
                )
            if dim.pin is None:
                sizes[dim.axis] = int(size)
    for dim in graph_dims:
        if sizes.get(dim.axis, 0) > _GREATEST:
            raise GraphcloneError(f"{dim.name}: would have {sizes[dim.axis]:,} indices; {_GREATEST:,} is the most")
    return sizes


_GREATEST = 1 << 26
"""A size at which one index for each element still fits into memory, and which no width comes near."""


def _times(dim: Dim, factor: Fraction) -> int:
    """The new size of a dim."""
    size = dim.size * factor
    if size.denominator != 1:
        near = " and ".join(str(near) for near in (int(size), int(size) + 1))
        raise GraphcloneError(
            f"{dim.name}={factor}: {dim.size} * {factor} is no whole number; the nearest sizes are {near}",
            Remedy("sizes", "asks for one", {dim.name: int(size) + 1}),
        )
    return int(size)


def _nothing(facts: Facts, graph_dims: list[Dim]) -> GraphcloneError:
    """Why nothing can grow: what pins the hidden dims, an input or output first, else what holds most parameters.

    Dims that no product of matrices knows, such as the rows of a table, are nothing that a user wants to grow.
    """
    if not graph_dims:
        return GraphcloneError("nothing to widen: no parameter has an axis of more than one element")
    sizes = {i.name: prod(i.value.shape or ()) for i in facts.graph.initializers}
    operands = (value for contraction in facts.contractions for value, _ in contraction.operands)
    multiplied = {leaf for value in operands for axis in facts.of[value] for leaf in facts.axes.leaves(axis)}
    parameters: dict[Why | None, set[str]] = {}
    for dim in graph_dims:
        parameters.setdefault(dim.pin, set()).update(dim.parameters)

    def weight(dim: Dim) -> tuple[bool, bool, bool, bool, int]:
        assert dim.pin is not None
        boundary = dim.pin.kind in (Cause.BOUNDARY, Cause.NUMBERS)
        fed = boundary and _is_hidden(facts, dim)
        size = sum(sizes[name] for name in parameters[dim.pin])
        return dim.pin.kind is not Cause.UNREAD, dim.axis in multiplied, fed, not boundary, size

    worst = max(graph_dims, key=weight)
    if any(refusal.why == worst.pin for refusal in facts.refusals):
        return GraphcloneError(f"nothing to widen: {worst.pin}, which pins {worst.name}")
    reason = f"nothing to widen: every dim is pinned, {worst.name} by {worst.pin}"
    return GraphcloneError(reason, freeing(worst.pin))


def _is_hidden(facts: Facts, dim: Dim) -> bool:
    """Whether one weight produces the dim and another consumes it."""
    contracted: set[bool] = set()
    for initializer in facts.graph.initializers:
        folded = facts.folded.get(initializer.value, ())
        for index, axis in enumerate(facts.of[initializer.value] if initializer.name in dim.parameters else ()):
            if dim.axis in facts.axes.leaves(axis):
                contracted.add(index in folded)
    return len(contracted) == 2


def _matching(graph_dims: list[Dim], pattern: str) -> list[Dim]:
    """The dims that a name means. At least one of them must be free."""
    matching = [dim for dim in graph_dims if dim.matches(pattern)]
    if not matching:
        names = list(dict.fromkeys(dim.group for dim in graph_dims))
        close = difflib.get_close_matches(pattern, names, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(names)}"
        raise GraphcloneError(f"no dim is called {pattern!r}; {hint}")
    if all(dim.pin is not None for dim in matching):
        dim = matching[0]
        raise GraphcloneError(f"{pattern!r} cannot grow: {dim.name} is pinned by {dim.pin}", freeing(dim.pin))
    return matching


def _refuse_held(
    graph_dims: list[Dim],
    request: Request,
    wishes: Mapping[Axis, Growth],
    growths: Mapping[Axis, Growth],
    reasons: Mapping[Axis, Why],
) -> None:
    """A dim asked for by name must grow as asked."""
    for dim in graph_dims:
        held = dim.axis in wishes and growths.get(dim.axis, Growth(dim.size)) != wishes[dim.axis]
        if held and any(dim.matches(pattern) for pattern in request.patterns):
            size = wishes[dim.axis].new_size
            raise GraphcloneError(f"{dim.name} cannot grow from {dim.size} to {size}: {reasons[dim.axis]}")
