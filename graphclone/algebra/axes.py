"""The axis algebra: layouts of axes as unification variables, solved by common refinement.

Every axis of every tensor is a variable. It is a dim (indivisible so far), a product (row-major factors, outermost
first) or a concat (segments side by side). Op rules state that two axes are equal; ``Axes.unify`` solves that as
Hindley-Milner typing does, refining a dim into a product or a concat where the other side demands it. What cannot
be solved is pinned: it keeps its size, and the reason is kept. Pinning is always sound, so the result is always
right; only its growth suffers.

Three laws do the work (``*`` is a product, ``+`` a concat, sizes in brackets):

- products: walk both from the left and split off the greatest common divisor; where nothing divides, growing the
  leading factor of both sides by the same tile still agrees (4n * 12 = 6n * 8), so those two are *tied*;
- concats: cut both at the union of their cuts;
- concat against product: with R the size of what stands behind the first factor, a cut at qR + r cuts the first factor
  at q, and behind q + 1 if r > 0: then copy q of what stands behind it is in pieces, and so every copy is cut at r.
  Between two cuts of the first factor lie m copies, a product of m and what stands behind; m = 1 is that alone
  (112 + 24 = 4 * 34: 4 = 3 + 1, 34 = 10 + 24, 112 = 3 * 34 + 10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from itertools import accumulate, count, pairwise
from math import gcd, prod
from typing import NamedTuple

from graphclone.algebra import growth


class Kind(Enum):
    """The kinds of things that an axis can be made of."""

    DIM = "dim"
    PRODUCT = "product"
    CONCAT = "concat"


class Cause(Enum):
    """The kinds of things that can cause a reason."""

    RULE = "what an operator means, or that nobody knows it"
    BOUNDARY = "an input or an output, which keeps its shape unless the user lets it grow"
    NUMBERS = "an input of integers, such as tokens, whose shape is no width"
    UNREAD = "that nothing reads the initializer, so that nothing says how it should grow"


class Why(NamedTuple):
    """A reason.

    Attributes:
        node: that caused it.
        text: what it said, in words for people; nothing else is to be read from them.
        kind: of its cause.
    """

    node: str
    text: str
    kind: Cause = Cause.RULE

    def __str__(self) -> str:
        return f"{self.text} ({self.node})" if self.node else self.text


class Axis:
    """A layout variable. Read it through ``Axes``: it may have been linked to another since."""

    __slots__ = ("kind", "link", "parts", "pin", "serial", "size")

    def __init__(self, serial: int, size: int) -> None:
        self.serial = serial
        self.size = size
        self.kind = Kind.DIM
        self.parts: tuple[Axis, ...] = ()
        self.link: Axis | None = None
        self.pin: Why | None = None

    def __repr__(self) -> str:
        return f"Axis({self.serial}, {self.size})"


class Edge(NamedTuple):
    """One step of inference: two axes became equal, or one a part of the other."""

    a: Axis
    b: Axis
    why: Why


class Axes:
    """A system of axes: makes them, states equations between them, and remembers why.

    Attributes:
        edges: every merge and refinement in order, for explanations.
        ties: pairs of dims that must grow by the same tile factor.
        uniforms: axes whose source indices must all be repeated equally often.
    """

    def __init__(self) -> None:
        self._serial = count()
        self.edges: list[Edge] = []
        self.ties: list[Edge] = []
        self.uniforms: list[tuple[Axis, Why]] = []

    # Making axes

    def dim(self, size: int, pin: Why | None = None) -> Axis:
        """A new dim, free unless a reason to pin it is given."""
        axis = Axis(next(self._serial), size)
        axis.pin = pin
        return axis

    def product(self, factors: Iterable[Axis]) -> Axis:
        """The axis with the given factors, outermost first. A factor of size 1 says nothing and is dropped."""
        return self._compound(Kind.PRODUCT, [factor for factor in factors if factor.size != 1], 1)

    def concat(self, segments: Iterable[Axis]) -> Axis:
        """The axis with the given segments side by side."""
        return self._compound(Kind.CONCAT, [segment for segment in segments if segment.size != 0], 0)

    def _compound(self, kind: Kind, parts: list[Axis], empty: int) -> Axis:
        if not parts:
            return self.dim(empty)
        if len(parts) == 1:
            return parts[0]
        size = prod(part.size for part in parts) if kind is Kind.PRODUCT else sum(part.size for part in parts)
        axis = self.dim(size)
        axis.kind, axis.parts = kind, tuple(parts)
        return axis

    # Reading axes

    def find(self, axis: Axis) -> Axis:
        """The axis that now stands for this one."""
        root = axis
        while root.link is not None:
            root = root.link
        while axis is not root:
            axis.link, axis = root, axis.link or root
        return root

    def factors(self, axis: Axis) -> tuple[Axis, ...]:
        """The factors of an axis, outermost first; itself alone where it is no product."""
        return self._flat(axis, Kind.PRODUCT)

    def segments(self, axis: Axis) -> tuple[Axis, ...]:
        """The segments of an axis; itself alone where it is no concat."""
        return self._flat(axis, Kind.CONCAT)

    def _flat(self, axis: Axis, kind: Kind) -> tuple[Axis, ...]:
        axis = self.find(axis)
        if axis.kind is not kind:
            return (axis,)
        if any(part.link is not None or part.kind is kind for part in axis.parts):
            axis.parts = tuple(leaf for part in axis.parts for leaf in self._flat(part, kind))
        return axis.parts

    def leaves(self, axis: Axis) -> list[Axis]:
        """The dims an axis is made of, in order, repeated where it repeats them."""
        axis = self.find(axis)
        if axis.kind is Kind.DIM:
            return [axis]
        return [leaf for part in self._flat(axis, axis.kind) for leaf in self.leaves(part)]

    def is_rigid(self, axis: Axis) -> bool:
        """Whether no part of the axis may grow."""
        return all(leaf.pin is not None or leaf.size <= 1 for leaf in self.leaves(axis))

    def is_whole(self, axis: Axis) -> bool:
        """Whether every part of the axis may grow."""
        return all(leaf.pin is None and leaf.size > 1 for leaf in self.leaves(axis))

    def layout(self, axis: Axis, growth_of: Callable[[Axis], growth.Growth]) -> growth.Layout:
        """The widened layout of an axis, given the growth of its dims, which may have other sizes than in the trace."""
        axis = self.find(axis)
        if axis.kind is Kind.DIM:
            return growth.Leaf(growth_of(axis))
        parts = tuple(self.layout(part, growth_of) for part in self._flat(axis, axis.kind))
        layout = growth.Product(parts) if axis.kind is Kind.PRODUCT else growth.Concat(parts)
        return layout if layout.grows else growth.rigid(layout.size)

    # Stating facts

    def pin(self, axis: Axis, why: Why) -> None:
        """Every dim of the axis keeps its size."""
        axis = self.find(axis)
        for leaf in self.leaves(axis):
            if leaf.pin is None:
                leaf.pin = why
        if axis.kind is not Kind.DIM:
            # Nothing in it can grow any more, so its structure says nothing; a rigid dim is quicker to unify with.
            self.edges.extend(Edge(axis, part, why) for part in axis.parts)
            axis.kind, axis.parts, axis.pin = Kind.DIM, (), why

    def uniform(self, axis: Axis, why: Why) -> None:
        """All source indices of the axis must be repeated equally often."""
        self.uniforms.append((axis, why))

    def unify(self, a: Axis, b: Axis, why: Why) -> None:
        """State that two axes are equal: have the same source index at every widened position."""
        stated = Edge(a, b, why)
        a, b = self.find(a), self.find(b)
        if a is b:
            return
        self.edges.append(stated)
        if a.size != b.size:
            clash = Why(why.node, f"{why.text}: axes of {a.size} and {b.size} cannot be equal")
            self.pin(a, clash)
            self.pin(b, clash)
        elif a.size > 1:
            self._unify(a, b, why)

    def _unify(self, a: Axis, b: Axis, why: Why) -> None:
        if b.kind is Kind.DIM and a.kind is not Kind.DIM:
            a, b = b, a
        if a.kind is Kind.DIM:
            rigid, other = (a, b) if a.pin is not None else (b, a)
            if rigid.pin is not None:
                self._pin_structured(other, rigid.pin)
                a, b = other, rigid
            self._link(a, b)
        elif a.kind is b.kind is Kind.PRODUCT:
            if self._unify_products(self.factors(a), self.factors(b), why):
                self._link(a, b)
        elif a.kind is b.kind:
            self._unify_concats(self.segments(a), self.segments(b), why)
            self._link(a, b)
        else:
            concat, product = (a, b) if a.kind is Kind.CONCAT else (b, a)
            self._align(self.segments(concat), self.factors(product), why)
            self._link(concat, product)

    def _pin_structured(self, axis: Axis, why: Why) -> None:
        if axis.kind is not Kind.DIM:
            self.pin(axis, why)

    def _link(self, a: Axis, b: Axis) -> None:
        """Let b stand for a, whose parts have been unified with b's."""
        a, b = self.find(a), self.find(b)
        if a is not b:
            a.link = b

    def _refine(self, dim: Axis, kind: Kind, parts: tuple[Axis, Axis], why: Why) -> None:
        dim.kind, dim.parts = kind, parts
        self.edges.extend(Edge(dim, part, why) for part in parts)

    def _divide(self, axis: Axis, kind: Kind, sizes: tuple[int, int], why: Why) -> tuple[Axis, Axis]:
        """Two new axes of the given sizes that make up this one as a product or a concat."""
        axis = self.find(axis)
        parts = (self.dim(sizes[0]), self.dim(sizes[1]))
        if axis.kind is Kind.DIM and axis.pin is not None:
            parts[0].pin = parts[1].pin = axis.pin
            self.edges.extend(Edge(axis, part, why) for part in parts)
        elif axis.kind is Kind.DIM:
            self._refine(axis, kind, parts, why)
        else:
            self.unify(axis, self._compound(kind, list(parts), 0), why)
        return parts

    def _unify_products(self, a: Sequence[Axis], b: Sequence[Axis], why: Why) -> bool:
        """Walk two factorings of one size from the left. False where they are only tied, not equal."""
        left, right = list(a), list(b)
        while left and right:
            x, y = left.pop(0), right.pop(0)
            if Kind.PRODUCT in (self.find(x).kind, self.find(y).kind):  # refined since the walk began
                left[:0], right[:0] = self.factors(x), self.factors(y)
                continue
            common = gcd(x.size, y.size)
            if common == 1:
                return self._tie([x, *left], [y, *right], why)
            if x.size != common:
                x, rest = self._divide(x, Kind.PRODUCT, (common, x.size // common), why)
                left.insert(0, rest)
            if y.size != common:
                y, rest = self._divide(y, Kind.PRODUCT, (common, y.size // common), why)
                right.insert(0, rest)
            self.unify(x, y, why)
        return True

    def _tie(self, a: Sequence[Axis], b: Sequence[Axis], why: Why) -> bool:
        """Two factorings with nothing in common: only their leading factors may grow, by the same tile."""
        cross = Why(why.node, f"{why.text}: {_sizes(a)} and {_sizes(b)} have no common factors")
        for axis in (*a[1:], *b[1:]):
            self.pin(axis, cross)
        x, y = self.find(a[0]), self.find(b[0])
        if x.kind is y.kind is Kind.DIM and x.pin is None and y.pin is None:
            self.ties.append(Edge(x, y, cross))
            return False
        self.pin(x, cross)
        self.pin(y, cross)
        return True

    def _unify_concats(self, a: Sequence[Axis], b: Sequence[Axis], why: Why) -> None:
        left, right = list(a), list(b)
        while left and right:
            x, y = left.pop(0), right.pop(0)
            if x.size > y.size:
                x, rest = self._divide(x, Kind.CONCAT, (y.size, x.size - y.size), why)
                left.insert(0, rest)
            elif y.size > x.size:
                y, rest = self._divide(y, Kind.CONCAT, (x.size, y.size - x.size), why)
                right.insert(0, rest)
            self.unify(x, y, why)

    def _align(self, segments: Sequence[Axis], factors: Sequence[Axis], why: Why) -> None:
        """Solve segments side by side = row-major factors."""
        first, *others = factors
        rest = self.product(others)
        edges = _edges_around(segments, rest.size)
        multiples = [self.dim((end - start) // rest.size) for start, end in pairwise(edges)]
        self.unify(first, self.concat(multiples), why)
        for run, multiple in zip(self._cut_at(segments, edges, why), multiples, strict=True):
            self.unify(self.concat(run), self.product([multiple, rest]), why)

    def _cut_at(self, segments: Sequence[Axis], edges: Sequence[int], why: Why) -> list[list[Axis]]:
        """The segments between edges, the first and the last of which are their ends; those across one are divided."""
        pending = list(segments)
        runs: list[list[Axis]] = []
        for start, end in pairwise(edges):
            run: list[Axis] = []
            while (left := end - start - sum(axis.size for axis in run)) > 0:
                segment = pending.pop(0)
                if segment.size > left:
                    segment, after = self._divide(segment, Kind.CONCAT, (left, segment.size - left), why)
                    pending.insert(0, after)
                run.append(segment)
            runs.append(run)
        return runs


def _edges_around(segments: Sequence[Axis], step: int) -> list[int]:
    """The multiples of a step next to the ends of segments, from below and from above, in order."""
    ends = [0, *accumulate(segment.size for segment in segments)]
    return sorted({edge for end in ends for edge in (end - end % step, end + -end % step)})


def _sizes(axes: Sequence[Axis]) -> str:
    return "[" + ", ".join(str(axis.size) for axis in axes) + "]"
