"""Take widths and constants from a second trace of the same code, instead of choosing widths.

Every axis of the source has a size in the target, which says how its dims grew: a dim by the ratio, a product by the
product of its factors' ratios, a concat by the sum of its segments. These equations are solved to a fixpoint. Numbers
that differ because the code computes them from a width, such as the square root of one, become known scales, around
which ``balance-scales`` finds those of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from graphclone.algebra.axes import Axis, Cause, Kind
from graphclone.algebra.growth import Growth
from graphclone.algebra.scales import Expression, ratio
from graphclone.analysis.dims import dims
from graphclone.analysis.facts import Facts, Follow, Literal
from graphclone.analysis.settling import evened, grown, settle
from graphclone.errors import GraphcloneError
from graphclone.graph.alignment import Pair, align
from graphclone.graph.ir import Graph, Node, Opaque, Path, Value
from graphclone.passes.choose_widths import padded
from graphclone.passes.infer_dims import freeing
from graphclone.passes.tables import paired, placed, table_scales
from graphclone.pipeline.state import State, Widths


@dataclass(frozen=True, eq=False)
class MatchWidths:
    """Grow the source into the target.

    Attributes:
        target: the canonical graph of the wide model.
    """

    target: Graph
    name: ClassVar[str] = "match-widths"
    requires: ClassVar[frozenset[str]] = frozenset({"dims"})
    ensures: ClassVar[frozenset[str]] = frozenset({"widths"})

    def __call__(self, state: State) -> bool:
        alignment = align(state.graph, self.target)
        facts = state.facts
        widths = _Widths(facts)
        for value, axes in facts.of.items():
            if (wide := alignment.values.get(value)) is not None:
                widths.state(value, axes, wide.shape or ())
        for follow, new in _followed(facts, alignment.literals):
            widths.count(follow, new)
        tables, strategy = paired(state.graph, alignment.values, self.target), state.request.strategy
        growths = grown(facts, widths.solve(), copies=strategy.copies)
        growths = evened(facts, placed(facts, growths, tables))
        _check_settled(facts, growths)
        fills = padded(facts, growths, strategy)
        state.widths = Widths(growths, fills=fills)
        scales = {**_given_literals(state, alignment.literals), **table_scales(state, tables)}
        state.widths = Widths(growths, scales, fills)
        return bool(growths)


# Widths


@dataclass(frozen=True)
class _Equation:
    """An axis has this size in the target: that is what a value of it has there, or a number in the code counts."""

    axis: Axis
    size: int
    where: str

    def __str__(self) -> str:
        return f"{self.where} is {self.axis.size} in the narrow model, {self.size} in the wide one"


class _Widths:
    """The system of equations between the new sizes of dims."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.axes = facts.axes
        self.sizes: dict[Axis, int] = {}
        self.equations: dict[tuple[Axis, int], _Equation] = {}

    def state(self, value: Value, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> None:
        """Every axis of a value has a size in the target."""
        for index, (axis, size) in enumerate(zip(axes, shape, strict=True)):
            self.require(axis, size, f"axis {index} of {value.name}")

    def count(self, follow: Follow, size: int) -> None:
        """A number in the target's code counts axes."""
        axis = follow.axes[0] if len(follow.axes) == 1 else self.axes.concat(follow.axes)
        self.require(axis, size * follow.sign, f"{follow.path[0]} of {follow.node.name} ({follow.node.op})")

    def require(self, axis: Axis, size: int, where: str) -> None:
        root = self.axes.find(axis)
        self.equations.setdefault((root, size), _Equation(root, size, where))

    def solve(self) -> dict[Axis, int]:
        """The new size of every dim that grows.

        Raises:
            GraphcloneError: sizes that no parts make up, that contradict each other, or that grow what cannot.
        """
        pending = list(self.equations.values())
        while pending:
            remainder = [equation for equation in pending if not self.step(equation, equation.axis, equation.size)]
            if len(remainder) == len(pending):
                self.assume(remainder[0])
            pending = remainder
        for equation in self.equations.values():
            if self.new_size(equation.axis) != equation.size:
                raise GraphcloneError(f"the widths contradict each other: {equation}")
        return {axis: size for axis, size in self.sizes.items() if size > axis.size}

    def new_size(self, axis: Axis) -> int:
        layout = self.axes.layout(axis, lambda leaf: Growth.between(leaf.size, self.sizes.get(leaf, leaf.size)))
        return layout.new_size

    def is_solved(self, axis: Axis) -> bool:
        return all(leaf in self.sizes for leaf in self.axes.leaves(axis))

    def step(self, equation: _Equation, axis: Axis, size: int) -> bool:
        """Learn what one equation says by now. Whether it has nothing more to say."""
        axis = self.axes.find(axis)
        if size == axis.size or axis.kind is Kind.DIM:
            for leaf in self.axes.leaves(axis):
                self.learn(equation, leaf, size if axis.kind is Kind.DIM else leaf.size)
            return True
        parts = list(dict.fromkeys(map(self.axes.find, axis.parts)))
        unknown = [part for part in parts if not self.is_solved(part)]
        if not unknown:
            return True
        if len(unknown) == 1:
            return self.step(equation, unknown[0], self.share(equation, axis, unknown[0], size))
        return False

    def share(self, equation: _Equation, axis: Axis, unknown: Axis, size: int) -> int:
        """The new size of the one part that is not known yet."""
        parts = [self.axes.find(part) for part in axis.parts]
        others = [self.new_size(part) for part in parts if part is not unknown]
        if axis.kind is Kind.PRODUCT:
            share = Fraction(size, prod(others))
        else:
            share = Fraction(size - sum(others), parts.count(unknown))
        if share.denominator != 1 or share <= 0:
            raise self.indivisible(equation)
        return int(share)

    def learn(self, equation: _Equation, leaf: Axis, size: int) -> None:
        if size < leaf.size:
            raise GraphcloneError(f"{equation}, and nothing shrinks")
        if size > leaf.size and leaf.pin is not None and leaf.pin.kind is not Cause.UNREAD:
            raise GraphcloneError(f"{equation}, but it cannot grow: {leaf.pin}", freeing(leaf.pin))
        if self.sizes.setdefault(leaf, size) != size:
            raise GraphcloneError(f"the widths contradict each other: {equation}")

    def indivisible(self, equation: _Equation) -> GraphcloneError:
        return GraphcloneError(f"{equation}, which no growth of its parts gives")

    def assume(self, equation: _Equation) -> None:
        """Nothing tells the unknown parts of an axis apart: segments grow alike, else the first factor alone."""
        axis = self.axes.find(equation.axis)
        unknown = list(dict.fromkeys(leaf for leaf in self.axes.leaves(axis) if leaf not in self.sizes))
        if axis.kind is Kind.CONCAT:
            for leaf in unknown:
                size, rest = divmod(leaf.size * equation.size, axis.size)
                if rest:
                    raise self.indivisible(equation)
                self.learn(equation, leaf, size)
        for leaf in unknown[1:]:
            self.sizes.setdefault(leaf, leaf.size)


def _check_settled(facts: Facts, growths: Mapping[Axis, Growth]) -> None:
    """What must be repeated equally often is."""
    _, reasons = settle(facts, growths)
    for axis, why in reasons.items():
        name = next((dim.name for dim in dims(facts) if dim.axis is axis), f"a dim of {axis.size}")
        raise GraphcloneError(f"{name} cannot grow from {axis.size} to {growths[axis].new_size}: {why}")


# Constants


def _followed(facts: Facts, pairs: list[Pair]) -> Iterator[tuple[Follow, int]]:
    """Numbers that count axes, with what they are in the target, whether that is another number or not."""
    follows = {(follow.node, follow.path): follow for follow in facts.follows}
    for pair in pairs:
        follow = follows.get((pair.node, pair.path))
        if follow is not None and isinstance(pair.new, int):
            yield follow, pair.new


def _given_literals(state: State, pairs: list[Pair]) -> dict[Any, Expression]:
    """The scale of every literal that has one, once sizes are seen to be what the widths make them."""
    facts = state.facts
    follows = {(follow.node, follow.path): follow for follow in facts.follows}
    scaled = _scaled_literals(facts)
    sizes = _size_nodes(facts)
    scales: dict[Any, Expression] = {}
    for pair in (pair for pair in pairs if pair.node not in sizes):
        if (follow := follows.get((pair.node, pair.path))) is not None:
            expected = follow.sign * sum(state.layout(axis).new_size for axis in follow.axes)
            if pair.new != expected:
                raise _changed(pair, f"where the widths make it {expected}")
        elif not pair.differs or _same_when_rounded(pair):
            continue
        elif (literal := scaled.get((pair.node, pair.path))) is not None and literal.value:
            if not isinstance(pair.new, int | float) or pair.new * literal.value <= 0:
                raise _changed(pair, "which no factor does")
            scales[literal] = ratio(literal.value, pair.new)
        elif not isinstance(pair.old, Opaque) or not isinstance(pair.old.content, torch.device):
            raise _changed(pair, "and no rule says what that means")
    return scales


def _same_when_rounded(pair: Pair) -> bool:
    """Whether two numbers are one in the precision that they are computed with: float32, or float64 for a double."""
    if not isinstance(pair.old, float) or not isinstance(pair.new, float):
        return False
    double = any(value.dtype in ("float64", "complex128") for value in pair.node.outputs)
    return not double and np.float32(pair.old) == np.float32(pair.new)


def _size_nodes(facts: Facts) -> set[Node]:
    """Nodes that compute nothing but sizes: those of the tensors made from them have been compared."""
    follows = {(follow.node, follow.path) for follow in facts.follows}
    sizes: set[Node] = set()
    users = facts.graph.users()
    for node in reversed(facts.graph.nodes):
        read = {(user, value) for value in node.outputs for user in users.get(value, ())}
        if not any(value.is_tensor for value in node.outputs) and all(
            user in sizes or all((user, path) in follows for path in _paths(user, value)) for user, value in read
        ):
            sizes.add(node)
    return sizes


def _paths(node: Node, value: Value) -> Iterator[Path]:
    """Where a node reads a value, in its operands and in lists of them."""
    for name, operand in node.operands.items():
        items = enumerate(operand) if isinstance(operand, list | tuple) else ()
        yield from ((name, i) for i, item in items if item is value)
        if operand is value:
            yield (name,)


def _changed(pair: Pair, what: str) -> GraphcloneError:
    where = f"{pair.node.name} ({pair.node.op})"
    return GraphcloneError(
        f"{where}: {pair.path[0]} is {pair.old} in the narrow model, {pair.new} in the wide one, {what}"
    )


def _scaled_literals(facts: Facts) -> dict[tuple[Any, Path], Literal]:
    terms = (item for balances in facts.balances.values() for balance in balances for _, item in balance.terms)
    return {(item.node, item.path): item for item in terms if isinstance(item, Literal)}
