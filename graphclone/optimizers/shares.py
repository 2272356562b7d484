"""Shares: how the gradient of every widened parameter follows from that of the source's.

A clone computes what its source computes whatever value a tensor T takes, T' being its copies. So what all copies do
to the loss together is what T does to it: of ``dL/dT'[i'] = c[i'] dL/dT[g(i')]`` the shares c of the copies of an index
sum to 1 (to 1 / s where T' is s times as large). How they divide it depends on what reads them:

- where all copies are read alike, exchanging them changes nothing: each has 1 / n. A strategy that treats them alike
  (symmetric, without noise) leaves every share so, whatever the operators are;
- a contraction with ``W' = A (x) W`` hands on what its output copies have by ``c_in = A^T c_out`` (staged
  training grows the moments of Adam by such shares; Shen et al. 2022, arXiv 2203.06211);
- what acts on every index apart hands on what its result has; what pools an axis, a norm say, must find equal shares,
  or the gradients of its copies are no multiples of the source's. Neither are they behind noise.

Where no shares exist there is a doubt in their place, which says what stands in the way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphclone.algebra.axes import Axis, Kind
from graphclone.algebra.growth import PAD, Fill, Layout
from graphclone.algebra.strategies import FloatArray
from graphclone.analysis.facts import Contraction
from graphclone.graph.ir import Node, Value, values_in
from graphclone.pipeline.state import State

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """One parameter of the clone beside the source's: ``W' = size W[g]``, ``dL/dW' = gradient dL/dW[g]``.

    Factors are given per axis, as they multiply: one vector over the new indices of every axis, 0 at pads.

    Attributes:
        name: of the parameter.
        gradient: of every axis, what its copies have of the gradient.
        scale: of the parameter itself, which its gradient has inversely.
        size: of every axis, how large the copies are; shared out along the axes that are contracted.
        doubt: why the gradient is no multiple of the source's; None where it is.
        shifted: whether a number is added to the parameter, too.
    """

    name: str
    gradient: tuple[FloatArray, ...]
    scale: float
    size: tuple[FloatArray, ...]
    doubt: str | None = None
    shifted: bool = False

    @property
    def held(self) -> tuple[BoolArray, ...]:
        """The new indices of each axis that are copies, and no pads."""
        return tuple(vector != 0 for vector in self.size)

    @property
    def uneven(self) -> bool:
        """Whether some copies are larger than others, so that no one rate suits all."""
        return any(len(_levels(vector)) > 1 for vector in self.size)

    @property
    def size_factor(self) -> float:
        """The factor by which copies differ from the source in size, the greatest if there are several."""
        return self.scale * _greatest(self.size)

    @property
    def gradient_factor(self) -> float:
        """The share of a copy, the greatest if they differ."""
        return _greatest(self.gradient) / self.scale


def _levels(vector: FloatArray) -> FloatArray:
    levels: FloatArray = np.unique(vector[vector != 0])
    return levels


def _greatest(vectors: Sequence[FloatArray]) -> float:
    return float(np.prod([np.abs(vector).max(initial=0.0) if len(vector) else 1.0 for vector in vectors]))


def shares(state: State) -> dict[str, Share]:
    """The shares of every parameter, by all its names.

    Args:
        state: after the whole pipeline.
    """
    backward = _Backward(state)
    backward.run()
    return {
        name: backward.share(initializer.value)
        for initializer in state.graph.initializers
        if initializer.kind == "parameter"
        for name in initializer.names
    }


class _Place(NamedTuple):
    """A dim in an axis of a value; a value with no such place in it has equal shares there."""

    at: int
    dim: Axis


_Spreads = Mapping[_Place, FloatArray]
"""What the copies at a place have, one number per new index, where these differ."""


class _Doubt(Exception):
    """There are no shares; the reason names the node in the way."""


class _Backward:
    """From the outputs back to the parameters."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.facts = state.facts
        self.axes = state.facts.axes
        self.strategy = state.request.strategy
        self.spreads: dict[Value, _Spreads] = {}
        self.doubts: dict[Value, str] = {}
        self.contractions: dict[Node, list[Contraction]] = {}
        for contraction in self.facts.contractions:
            self.contractions.setdefault(contraction.node, []).append(contraction)
        self.pooled: dict[str, set[Axis]] = {}
        for axis, why in self.axes.uniforms:
            self.pooled.setdefault(why.node, set()).update(self.axes.leaves(axis))

    def run(self) -> None:
        """Find what every value has, the last first."""
        alike = self.strategy.uniform and not self.strategy.noisy
        for output in self.state.graph.outputs:
            for value in values_in(output.operand):
                self.spreads.setdefault(value, {})
                if self.growing(value):
                    self.doubts[value] = f"{output.name} has grown, and what a loss makes of its copies is not known"
        for node in reversed(self.state.graph.nodes):
            reached = [value for value in node.outputs if value in self.spreads]
            for value in dict.fromkeys(node.inputs) if reached else ():
                if value.is_tensor and value.is_float:
                    self.receive(value, node, reached, alike=alike)

    def receive(self, value: Value, node: Node, outputs: Sequence[Value], *, alike: bool) -> None:
        """What an operand has from one of its readers, which must be what it has from the others."""
        doubts = [self.doubts[output] for output in outputs if output in self.doubts]
        spreads: _Spreads = {}
        try:
            if not alike and not doubts:
                spreads = self.handed_on(value, node, outputs)
        except _Doubt as doubt:
            doubts.append(str(doubt))
        known = self.spreads.setdefault(value, spreads)
        if not doubts and not _equal(known, spreads):
            doubts.append(f"{value.name} is read by several, which its copies serve in unequal shares ({node.name})")
        if doubts:
            self.doubts.setdefault(value, doubts[0])

    # One node

    def handed_on(self, value: Value, node: Node, outputs: Sequence[Value]) -> _Spreads:
        """What an operand has from one node.

        Raises:
            _Doubt: its copies have no shares.
        """
        if self.state.graph.dialect.writes(node):
            raise _Doubt(f"{node.name} writes into what others read, and copies are not treated alike")
        contracted: set[_Place] = set()
        spreads: dict[_Place, FloatArray] = {}
        weighted = [c for c in self.contractions.get(node, ()) if self.facts.absorbed(c) and self.grows(c)]
        if len(weighted) > 1:
            raise _Doubt(f"{node.name} ({node.op}) contracts several weights at once")
        for contraction in self.contractions.get(node, ()):
            places = self.contracted(value, contraction, outputs)
            contracted |= places
            if contraction in weighted and places and self.facts.source(value) not in self.facts.folded:
                spreads |= self.transposed(value, places, contraction, outputs)
        for place in self.growing(value):
            if place not in contracted and (spread := self.carried(place.dim, node, outputs)) is not None:
                spreads[place] = spread
        return spreads

    def carried(self, dim: Axis, node: Node, outputs: Sequence[Value]) -> FloatArray | None:
        """What a result has along a dim that an operand has, too; None where all copies have the same."""
        found = [
            self.spreads[output].get(place) for output in outputs for place in self.growing(output) if place.dim is dim
        ]
        if all(spread is None for spread in found):
            return None
        first = found[0]
        if any(spread is None or first is None or not np.array_equal(spread, first) for spread in found):
            raise _Doubt(f"the results of {node.name} have unequal shares of one dim")
        if dim in self.pooled.get(node.name, ()):
            raise _Doubt(f"{node.name} ({node.op}) takes together copies that have unequal shares")
        return first

    def grows(self, contraction: Contraction) -> bool:
        return any(self.state.layout(axis).grows for axis in contraction.axes)

    def contracted(self, value: Value, contraction: Contraction, outputs: Sequence[Value]) -> set[_Place]:
        """Where an operand has what is contracted, be it among the factors of a longer axis."""
        growing = self.growing(value)
        listed = [indices for operand, indices in contraction.operands if operand is value]
        if listed:
            return {place for place in growing if any(place.at in indices for indices in listed)}
        dims = {leaf for axis in contraction.axes for leaf in self.axes.leaves(axis)}
        summands = [summand for output in outputs for summand in self.facts.summands.get(output, ())]
        beside = {factor for factor, _ in contraction.operands}
        if summands and not any(value in s.factors and not beside.isdisjoint(s.factors) for s in summands):
            return set()
        return {place for place in growing if place.dim in dims}

    def transposed(
        self, value: Value, places: Collection[_Place], contraction: Contraction, outputs: Sequence[Value]
    ) -> _Spreads:
        """What an operand has where it is contracted with a weight: ``A^T`` of what the result has.

        Raises:
            _Doubt: its copies have no shares.
        """
        if self.strategy.noisy:
            raise _Doubt(f"{contraction.node.name} reads its copies through noise")
        if self.strategy.uniform:
            return {}
        weight, side = next((v, axes) for v, axes in contraction.operands if self.facts.source(v) in self.facts.folded)
        own = self.facts.source(weight)
        layouts = [self.state.layout(axis) for axis in self.facts.of[own]]
        if not all(layout.uniform for layout in layouts):
            raise _Doubt(f"{own.name} is repeated unevenly by a strategy that treats copies unequally")
        folded = self.facts.folded[own]
        free = [i for i in range(own.rank) if i not in folded]
        kept = {place.dim for place in self.growing(value) if place not in places}
        if kept & {place.dim for place in self.growing(own) if place.at in free}:
            raise _Doubt(f"{contraction.node.name} keeps a dim that its weight and its input have, copy by copy")
        row = _outer([self.by_copy(own, i, contraction.node, outputs) for i in free])
        counts = [layouts[i].uniform or 1 for i in folded]
        columns = (self.strategy.matrix(len(row), int(np.prod(counts))).T @ row).reshape(counts)
        factors = _factors(columns)
        if factors is None:
            raise _Doubt(f"{contraction.node.name} shares out its input by several dims at once")
        order, seen = dict(zip(folded, factors, strict=True)), self.origins(weight)
        found: dict[Axis, FloatArray] = {}
        for axis, other in zip(contraction.axes, side, strict=True):
            if (origin := seen[other]) is not None and origin in order:
                for dim, spread in self.by_index(axis, order[origin]):
                    if not np.array_equal(found.setdefault(dim, spread), spread):
                        raise _Doubt(f"{contraction.node.name} contracts one dim twice")
        return {place: found[place.dim] for place in places if place.dim in found}

    def origins(self, view: Value) -> Sequence[int | None]:
        """The axes of a parameter that those of a view of it show."""
        if view not in self.facts.views:
            return range(view.rank)
        source, axes = self.facts.views[view]
        seen = self.origins(source)
        return [None if axis is None else seen[axis] for axis in axes]

    def by_copy(self, value: Value, at: int, node: Node, outputs: Sequence[Value]) -> FloatArray:
        """What the result of a weight has along one of the axes of the weight, by number of the copy."""
        axis = self.facts.of[value][at]
        layout = self.state.layout(axis)
        vector = self.along(axis, lambda dim: self.carried(dim, node, outputs))
        copies = layout.copies
        found = np.array([vector[copies == copy].mean() for copy in range(layout.uniform or 1)])
        if not np.array_equal(found[copies], vector):
            raise _Doubt(f"the copies that {node.name} computes have shares that differ within a copy")
        return found

    def by_index(self, axis: Axis, copies: FloatArray) -> Iterator[tuple[Axis, FloatArray]]:
        """What every dim of an axis has by new index, where its copies differ.

        Raises:
            _Doubt: the factors of a product have no shares of their own.
        """
        axis = self.axes.find(axis)
        if axis.kind is Kind.CONCAT:
            for part in self.axes.segments(axis):
                yield from self.by_index(part, copies)
        elif axis.kind is Kind.PRODUCT:
            parts = self.axes.factors(axis)
            factors = _factors(copies.reshape([self.state.layout(part).uniform or 1 for part in parts]))
            if factors is None:
                raise _Doubt("the factors of an axis have no shares of their own")
            for part, factor in zip(parts, factors, strict=True):
                yield from self.by_index(part, factor)
        elif len(np.unique(copies)) > 1:
            yield axis, copies[self.state.layout(axis).copies]

    # What values have

    def growing(self, value: Value) -> list[_Place]:
        """Where a value has dims that grow."""
        return [
            _Place(at, leaf)
            for at, axis in enumerate(self.facts.of.get(value, ()))
            for leaf in dict.fromkeys(self.axes.leaves(axis))
            if self.state.growth_of(leaf).grows
        ]

    def along(self, axis: Axis, spread_of: Callable[[Axis], FloatArray | None]) -> FloatArray:
        """What the new indices of an axis have, given what those of its dims do, None for equal shares."""
        axis = self.axes.find(axis)
        if axis.kind is Kind.DIM:
            spread = spread_of(axis)
            return spread if spread is not None else _divided(self.state.layout(axis))
        parts = self.axes.segments(axis) if axis.kind is Kind.CONCAT else self.axes.factors(axis)
        vectors = [self.along(part, spread_of) for part in parts]
        return np.concatenate(vectors) if axis.kind is Kind.CONCAT else _outer(vectors)

    def share(self, value: Value) -> Share:
        """That of a parameter."""
        recipe, axes, spreads = self.state.recipes[value], self.facts.of[value], self.spreads.get(value, {})
        gradient, size = [], []
        for at, axis in enumerate(axes):
            layout = self.state.layout(axis)
            held = (layout.index_map != PAD).astype(np.float64)
            if at in recipe.contracted:
                gradient.append(held)
                size.append(_divided(layout))
            else:
                gradient.append(self.along(axis, lambda dim, at=at: spreads.get(_Place(at, dim))))  # type: ignore[misc]
                size.append(held)
        doubt = self.doubts.get(value) or self.doubt_of_pads(value)
        return Share(recipe.name, tuple(gradient), recipe.scale, tuple(size), doubt, bool(recipe.shift))

    def doubt_of_pads(self, value: Value) -> str | None:
        """Why the gradient of a parameter is unknown where its pads add to a mean of what is learned elsewhere."""
        for place in self.growing(value):
            fill = self.state.fill_of(value, *place)
            if fill.is_mean or fill == Fill.ONE:
                held = "the mean of the others" if fill.is_mean else "1"
                return f"its pads hold {held}, whose gradient is none of the source's"
        return None


def _divided(layout: Layout) -> FloatArray:
    """One over the number of copies of what every new index repeats; 0 at pads."""
    index = layout.index_map
    counts = layout.multiplicity[index] if layout.size else np.ones(len(index), np.int64)
    return np.where(index == PAD, 0.0, 1.0 / np.maximum(counts, 1))


def _outer(vectors: Sequence[FloatArray]) -> FloatArray:
    """What every index of a row-major product has, given what those of its factors do."""
    joint = np.ones(1)
    for vector in vectors:
        joint = np.multiply.outer(joint, vector).ravel()
    return joint


def _factors(joint: FloatArray) -> list[FloatArray] | None:
    """The vectors whose outer product an array is, each with sum 1; None where there are none."""
    axes = range(joint.ndim)
    marginals = [joint.sum(axis=tuple(other for other in axes if other != axis)) for axis in axes]
    return marginals if np.allclose(_outer(marginals), joint.ravel(), rtol=0, atol=1e-12) else None


def _equal(a: _Spreads, b: _Spreads) -> bool:
    return a.keys() == b.keys() and all(np.allclose(a[place], b[place], rtol=0, atol=1e-12) for place in a)
