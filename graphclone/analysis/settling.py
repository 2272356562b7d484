"""What growths require of each other: tied factors grow alike, and what is summed over is repeated evenly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphclone.algebra.axes import Axes, Axis, Kind, Why
from graphclone.algebra.growth import Growth
from graphclone.analysis.facts import Facts


def settle(facts: Facts, wanted: Mapping[Axis, Growth]) -> tuple[dict[Axis, Growth], dict[Axis, Why]]:
    """Lower the growth of dims until all ties and all uniform axes are respected.

    Args:
        facts: of the graph.
        wanted: growth of free leaves.

    Returns:
        The growth that is possible, and for every dim that was held back the reason.
    """
    chosen = {facts.axes.find(axis): growth for axis, growth in wanted.items() if growth.grows}
    held: dict[Axis, Why] = {}
    while _settle_ties(facts.axes, chosen, held) or _settle_uniforms(facts.axes, chosen, held):
        pass
    return chosen, held


def _hold(chosen: dict[Axis, Growth], held: dict[Axis, Why], axes: Iterable[Axis], why: Why) -> bool:
    """Keep axes at their size. Whether that changes anything."""
    lowered = [axis for axis in dict.fromkeys(axes) if axis in chosen]
    for axis in lowered:
        del chosen[axis]
        held[axis] = why
    return bool(lowered)


def _settle_ties(axes: Axes, chosen: dict[Axis, Growth], held: dict[Axis, Why]) -> bool:
    changed = False
    for tie in axes.ties:
        sides = axes.leaves(tie.a), axes.leaves(tie.b)
        inner = [leaf for side in sides for leaf in side[1:]]
        a, b = (chosen.get(side[0]) for side in sides)
        concat = any(axes.find(axis).kind is Kind.CONCAT for axis in (tie.a, tie.b))
        agree = a is not None and b is not None and (a.kind, a.factor, b.kind) == ("tile", b.factor, "tile")
        outer = [] if agree and not concat else [side[0] for side in sides]
        changed |= _hold(chosen, held, [*inner, *outer], tie.why)
    return changed


def _settle_uniforms(axes: Axes, chosen: dict[Axis, Growth], held: dict[Axis, Why]) -> bool:
    changed = False
    for axis, why in axes.uniforms:
        leaves = axes.leaves(axis)
        if not any(leaf in chosen for leaf in leaves):
            continue
        layout = axes.layout(axis, lambda leaf: chosen.get(leaf) or Growth(leaf.size))
        if layout.uniform is None:
            why = Why(why.node, f"{why.text} an axis whose parts would be repeated unequally")
            changed |= _equalise(axes, axis, chosen, held, why)
    return changed


def _equalise(axes: Axes, axis: Axis, chosen: dict[Axis, Growth], held: dict[Axis, Why], why: Why) -> bool:
    """Let the segments of a concat grow alike: by the least factor if each is one dim, else not at all."""
    segments = axes.segments(axis)
    growths = [chosen.get(axes.find(segment)) for segment in segments]
    if all(axes.find(s).kind is Kind.DIM for s in segments) and all(g and g.kind != "explicit" for g in growths):
        least = min(g.factor for g in growths if g)
        for segment, growth in zip(segments, growths, strict=True):
            if growth and growth.factor != least:
                chosen[axes.find(segment)] = Growth(growth.size, least, growth.kind)
                held[axes.find(segment)] = why
        return True
    return _hold(chosen, held, axes.leaves(axis), why)
