"""From a traced model, or a clone, to the data of its page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from graphclone.analysis.dims import Group
from graphclone.analysis.flow import why_pinned
from graphclone.clones.traced import Traced
from graphclone.graph.ir import Graph
from graphclone.inspection import inspect
from graphclone.passes import analysis
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.report import costs, tree
from graphclone.report.heats import heats
from graphclone.report.layouts import Layouts
from graphclone.report.page import Cloned, DimGroup, Page
from graphclone.verification.distance import VALUE_TOLERANCE
from graphclone.version import __version__

if TYPE_CHECKING:
    from graphclone.verification.checks import Report


def page_of(traced: Traced) -> Page:
    """The page of a model before it grows.

    Examples:
        >>> page_of(gc.trace(model, (x,))).to_dict()["model"]
        'Sequential'
    """
    return _page(traced, traced, traced.graph, costs.sizes(traced.graph))


def page_of_clone(
    clone: Traced,
    command: str,
    verification: Report | None,
    config: Mapping[str, tuple[Any, Any]] | None = None,
) -> Page:
    """The page of a clone.

    Args:
        clone: the clone.
        command: the command that makes it again.
        verification: the report, if the clone was verified.
        config: by field of its configuration, the old and the new value.

    Examples:
        >>> page = page_of_clone(clone, "made by hand", clone.verify(onnx=False))
        >>> page.clone.strategy
        'symmetric'
    """
    state = clone.state
    source = State(state.source.copy(), Request(widen_io=state.request.widen_io), state.rules)
    before, after = costs.sizes(state.model), costs.sizes(state.graph)
    names = {**costs.sizes(source.graph), **before, **after}
    page = _page(clone, Traced(source, run(analysis(), source)), state.model, names)
    part = costs.part_of(names)
    cloned = Cloned(
        command=command,
        strategy=state.request.strategy.name,
        seed=state.request.seed,
        before=costs.by_part(before, page.parts, part),
        after=costs.by_part(after, page.parts, part),
        heats=tuple(heats(state)),
        verification=verification.to_dict() if verification is not None else None,
        tolerance=VALUE_TOLERANCE,
        config=dict(config or {}),
    )
    return replace(page, clone=cloned)


def _page(shown: Traced, source: Traced, model: Graph, names: Iterable[str]) -> Page:
    """The page of a model, or of its clone.

    Args:
        shown: what the tree is drawn of.
        source: the same before anything was widened.
        model: the user's own.
        names: of all parameters that are counted.
    """
    found = inspect(source)
    shorts = _shorts([group.name for group in shown.dims])
    numbers = {dim.axis: number for number, group in enumerate(shown.dims) for dim in group.dims}
    model_tree = tree.tree(shown.state, Layouts(shown.state, numbers, shorts))
    bands = {number: span for number, span in tree.spans(model_tree).items() if found.dims[number].matters}
    columns = tree.lanes(bands)
    part = costs.part_of(names)
    parts = tuple(dict.fromkeys(part.values()))
    rows = zip(shown.dims, source.dims, found.dims, shorts, strict=True)
    return Page(
        model=model.name,
        version=__version__,
        nodes=len(model.nodes),
        parameters=sum(costs.sizes(model).values()),
        dims=tuple(
            DimGroup(
                name=group.name,
                short=short,
                size=group.size,
                new_sizes=_new_sizes(shown.state, group),
                count=len(group.dims),
                default=group.default,
                pinned=row.pinned,
                path=tuple(str(why) for why in reversed(why_pinned(source.state.facts, own.dims[0]))),
                freed_by=row.freed_by,
                parameters=group.dims[0].parameters,
                doubled=row.parameters,
                matters=row.matters,
                lane=columns.get(number, 0),
                first=bands.get(number, (0, -1))[0],
                last=bands.get(number, (0, -1))[1],
            )
            for number, (group, own, row, short) in enumerate(rows)
        ),
        lanes=max(columns.values(), default=-1) + 1,
        tree=model_tree,
        parts=parts,
        choices=costs.choices(source, parts, part),
        refusals=tuple((refusal.node, refusal.op, refusal.reason) for refusal in found.refusals),
        notes=tuple(model.notes),
    )


def _new_sizes(state: State, group: Group) -> tuple[int, ...]:
    return tuple(dict.fromkeys(state.growth_of(state.facts.axes.find(dim.axis)).new_size for dim in group.dims))


def _shorts(names: Sequence[str]) -> list[str]:
    """So many last words of every name as tell it apart from the others, stars left out."""
    words = [[word for word in re.split(r"[./]", name) if word not in ("", "*")] or [name] for name in names]

    def ending(at: int, count: int) -> str:
        return ".".join(words[at][-count:])

    result = []
    for at, own in enumerate(words):
        counts = range(1, len(own) + 1)
        apart = (n for n in counts if all(ending(at, n) != ending(b, n) for b in range(len(words)) if b != at))
        count = next(apart, len(own))
        result.append(ending(at, count))
    return result
