"""The requirements between growths: tied factors grow alike, and what is summed over is repeated evenly.

Sums of integers must stay within the integers, and sizes that tell a node what to compute must stay apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

from graphclone.algebra.axes import Axes, Axis, Kind, Why
from graphclone.algebra.growth import Growth, Layout
from graphclone.algebra.growth import Kind as GrowthKind
from graphclone.analysis.facts import Facts


def grown(
    facts: Facts, sizes: Mapping[Axis, int], kind: GrowthKind = "tile", *, copies: bool = True
) -> dict[Axis, Growth]:
    """The growth that takes every dim to its new size.

    What is left over beside whole copies are pads where something averages over the dim, else more copies.

    Args:
        facts: of the graph.
        sizes: new sizes, none smaller than the dim's.
        kind: how copies are laid out.
        copies: whether there are any; else all that is added are pads.
    """
    if not copies:
        return {axis: Growth(axis.size, kind=kind, pads=size - axis.size) for axis, size in sizes.items()}
    averaged = {leaf for axis, _ in facts.axes.uniforms for leaf in facts.axes.leaves(axis)}
    return {axis: Growth.between(axis.size, size, kind, padded=axis in averaged) for axis, size in sizes.items()}


def evened(facts: Facts, growths: Mapping[Axis, Growth]) -> dict[Axis, Growth]:
    """The growths to the same sizes, with pads in place of copies where segments that count alike have more of them.

    Args:
        facts: of the graph.
        growths: of dims.
    """
    result = dict(growths)
    while True:
        fewer = {dim: growth for axis, _ in facts.axes.uniforms for dim, growth in _fewer(facts.axes, axis, result)}
        if not fewer:
            return result
        result |= fewer


def _fewer(axes: Axes, axis: Axis, growths: Mapping[Axis, Growth]) -> Iterator[tuple[Axis, Growth]]:
    """The dims of an axis that have more copies than its other segments, with as many as those and pads."""
    copies = {axes.find(segment): _layout(axes, segment, growths).even for segment in axes.segments(axis)}
    counts = [count for count in copies.values() if count]
    for segment, count in copies.items() if len(counts) == len(copies) else ():
        growing = [leaf for leaf in axes.leaves(segment) if leaf in growths and growths[leaf].grows]
        if count and count > min(counts) and len(growing) == 1:
            growth, least = growths[growing[0]], min(counts)
            if growth.whole or growth.pads:
                yield growing[0], Growth(growth.size, least, growth.kind, pads=growth.new_size - least * growth.size)


def settle(facts: Facts, wishes: Mapping[Axis, Growth]) -> tuple[dict[Axis, Growth], dict[Axis, Why]]:
    """Lower the growth of dims until all ties, uniform axes, sums of integers and distinct sizes are respected.

    Args:
        facts: of the graph.
        wishes: growth of free leaves.

    Returns:
        The growth that is possible, and for every dim that was held back the reason.
    """
    growths = {facts.axes.find(axis): growth for axis, growth in wishes.items() if growth.grows}
    reasons: dict[Axis, Why] = {}
    while (
        _settle_ties(facts.axes, growths, reasons)
        or _settle_uniforms(facts.axes, growths, reasons)
        or _settle_integers(facts, growths, reasons)
        or _settle_distinct(facts, growths, reasons)
    ):
        pass
    return growths, reasons


def _hold(growths: dict[Axis, Growth], reasons: dict[Axis, Why], axes: Iterable[Axis], why: Why) -> bool:
    """Keep axes at their size. Whether that changes anything."""
    losers = [axis for axis in dict.fromkeys(axes) if axis in growths]
    for axis in losers:
        del growths[axis]
        reasons[axis] = why
    return bool(losers)


def _settle_ties(axes: Axes, growths: dict[Axis, Growth], reasons: dict[Axis, Why]) -> bool:
    changed = False
    for tie in axes.ties:
        sides = axes.leaves(tie.a), axes.leaves(tie.b)
        inner = [leaf for side in sides for leaf in side[1:]]
        a, b = (growths.get(side[0]) for side in sides)
        concat = any(axes.find(axis).kind is Kind.CONCAT for axis in (tie.a, tie.b))
        whole = a is not None and b is not None and a.whole and b.whole
        agree = whole and a is not None and b is not None and (a.kind, a.factor, b.kind) == ("tile", b.factor, "tile")
        outer = [] if agree and not concat else [side[0] for side in sides]
        changed |= _hold(growths, reasons, [*inner, *outer], tie.why)
    return changed


def _settle_uniforms(axes: Axes, growths: dict[Axis, Growth], reasons: dict[Axis, Why]) -> bool:
    changed = False
    for axis, why in axes.uniforms:
        leaves = axes.leaves(axis)
        if not any(leaf in growths for leaf in leaves):
            continue
        layout = _layout(axes, axis, growths)
        if layout.even is None:  # what pads hold is asked later
            why = Why(why.node, f"{why.text} an axis whose parts would be repeated unequally")
            changed |= _equalise(axes, axis, growths, reasons, why)
    return changed


def _settle_integers(facts: Facts, growths: dict[Axis, Growth], reasons: dict[Axis, Why]) -> bool:
    changed = False
    for total in facts.sums:
        layouts = [_layout(facts.axes, axis, growths) for axis in total.axes]
        if not total.fits(prod(-(-layout.new_size // max(1, layout.size)) for layout in layouts)):
            why = Why(total.node.name, "a sum over more integers might not fit into 32 bits")
            leaves = [leaf for axis in total.axes for leaf in facts.axes.leaves(axis)]
            changed |= _hold(growths, reasons, leaves, why)
    return changed


def _settle_distinct(facts: Facts, growths: dict[Axis, Growth], reasons: dict[Axis, Why]) -> bool:
    changed = False
    for a, b, why in facts.distinct:
        if _layout(facts.axes, a, growths).new_size == _layout(facts.axes, b, growths).new_size:
            changed |= _hold(growths, reasons, [*facts.axes.leaves(a), *facts.axes.leaves(b)], why)
    return changed


def _layout(axes: Axes, axis: Axis, growths: Mapping[Axis, Growth]) -> Layout:
    return axes.layout(axis, lambda leaf: growths.get(leaf) or Growth(leaf.size))


def _equalise(axes: Axes, axis: Axis, growths: dict[Axis, Growth], reasons: dict[Axis, Why], why: Why) -> bool:
    """Let the segments of a concat grow alike: by the least factor if each is one dim, else not at all."""
    segments = axes.segments(axis)
    alike = [growths.get(axes.find(segment)) for segment in segments]
    if all(axes.find(s).kind is Kind.DIM for s in segments) and all(g and g.whole for g in alike):
        least = min(g.factor for g in alike if g)
        for segment, growth in zip(segments, alike, strict=True):
            if growth and growth.factor != least:
                growths[axes.find(segment)] = Growth(growth.size, least, growth.kind)
                reasons[axes.find(segment)] = why
        return True
    return _hold(growths, reasons, axes.leaves(axis), why)
