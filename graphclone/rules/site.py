"""A node as its rule sees it: operands by name, axes, and the statements a rule can make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial, update_wrapper
from typing import Any, SupportsIndex, TypeVar, overload

from graphclone.algebra.axes import Axes, Axis, Why
from graphclone.algebra.growth import Fill
from graphclone.analysis.facts import (
    Balance,
    Contraction,
    Facts,
    Follow,
    Gathering,
    IntegerSum,
    Literal,
    Refusal,
    Scaled,
    Summand,
)
from graphclone.graph.ir import Node, Operand, Path, Value, values_in
from graphclone.graph.operands import Reader
from graphclone.rules.binding import Binding, Cannot, Hint
from graphclone.rules.patterns import Pattern, PatternError, Term, parse

__all__ = ["Cannot", "Rule", "Site", "Stated", "paired", "refused", "says", "spelled", "stated"]

_A = TypeVar("_A")
_B = TypeVar("_B")

Rule = Callable[["Site"], None]
"""Says what a node means for axes and scales. What it leaves unsaid about scales is taken as non-linear."""


class AxisTuple(tuple[Axis, ...]):
    """The axes of a tensor. A rule that reads one which it lacks refuses the node thereby."""

    __slots__ = ()

    @overload
    def __getitem__(self, index: SupportsIndex) -> Axis: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Axis, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Axis | tuple[Axis, ...]:
        try:
            return super().__getitem__(index)
        except IndexError:
            raise Cannot(f"an axis {index} of a tensor that has {len(self)}") from None


class Site(Reader):
    """One node, its operands and results, and where a rule's statements go.

    To read an operand marks it as understood. A number that no rule reads was understood by nobody, and pins the node.

    Examples:
        >>> def scaled_sum(s: Site) -> None:  # alpha x + y
        ...     s.states("#, ... + ... -> ...", "alpha", "x", "y")
    """

    def __init__(self, node: Node, facts: Facts, names: Mapping[str, str] | None = None) -> None:
        super().__init__(node)
        self.facts = facts
        self.names = names or {}
        self.defaults: Mapping[str, Operand] = {}
        self.read: set[str] = set()
        self.unscaled: set[Value] = set()

    def renamed(self, names: Mapping[str, str], defaults: Mapping[str, Operand] | None = None) -> Site:
        """The same site for a rule that calls the operands by other names.

        Args:
            names: the rule's name to the node's.
            defaults: by the rule's names, what the node means where it does not give them.
        """
        site = Site(self.node, self.facts, {**self.names, **names})
        own = {site.own_name(name): default for name, default in (defaults or {}).items()}
        site.defaults = {**self.defaults, **own}
        site.read, site.unscaled = self.read, self.unscaled
        return site

    # Operands

    def own_name(self, name: str) -> str:
        return self.names.get(name, name)

    def refusal(self, name: str, fault: str) -> Cannot:
        return Cannot(self.complaint(name, fault))

    def get(self, name: str) -> Operand:
        """The operand, whatever it is, which is thereby understood; None where the node does not give it."""
        self.ignores(name)
        operand = super().get(name)
        return self.defaults.get(self.own_name(name)) if operand is None else operand

    def ignores(self, *names: str) -> None:
        """Options that say nothing about axes or scales."""
        self.read.update(map(self.own_name, names))

    def _place(self, path: Path) -> Path:
        """What the node calls a path; its operand is thereby understood."""
        name, *items = path
        self.ignores(str(name))
        return (self.own_name(str(name)), *items)

    @property
    def tensors(self) -> list[Value]:
        """Every tensor among the operands."""
        return [value for value in self.node.inputs if value.is_tensor]

    # Axes

    @property
    def system(self) -> Axes:
        return self.facts.axes

    @property
    def out(self) -> Value:
        """The first result."""
        return self.node.outputs[0]

    def results(self) -> dict[int, Value]:
        """The results by their position among all that an operator of ONNX has; the first must be read."""
        places = [place for place, is_read in enumerate(self.node.target.outputs) if is_read]
        if places[:1] != [0]:
            raise Cannot("only its state is read")
        return dict(paired(places, self.node.outputs, "results"))

    def axes(self, value: Value, rank: int | None = None) -> AxisTuple:
        """The axes of a tensor, which must be so many, if that is said."""
        if not value.is_tensor:
            raise Cannot("a number where it reads a tensor")
        if rank not in (None, value.rank):
            raise Cannot(f"{value.rank} axes where {rank} were expected")
        return AxisTuple(self.facts.of[value])

    def pairs(self, a: Value, b: Value) -> list[tuple[Axis, Axis]]:
        """The axes of two tensors of one rank, side by side."""
        return paired(self.axes(a), self.axes(b))

    def why(self, text: str = "") -> Why:
        """A reason that names this node."""
        return Why(self.node.name, text or self.node.op)

    def equal(self, a: Axis, b: Axis) -> None:
        """Two axes have the same layout."""
        self.system.unify(a, b, self.why())

    def equal_all(self, a: Sequence[Axis], b: Sequence[Axis]) -> None:
        """Two lists of axes have the same layouts, one by one."""
        for x, y in paired(a, b):
            self.equal(x, y)

    def pin(self, axes: Iterable[Axis] | Axis, text: str) -> None:
        """Axes keep their size."""
        for axis in [axes] if isinstance(axes, Axis) else axes:
            self.system.pin(axis, self.why(text))

    def pin_all(self, text: str) -> None:
        """Every axis that the node touches keeps its size."""
        for value in (*self.tensors, *self.node.outputs):
            if value.is_tensor:
                self.pin(self.axes(value), text)

    def refuse(self, text: str) -> None:
        """Pin everything, and list the node among those in the way."""
        self.pin_all(text)
        self.facts.refusals.append(Refusal(self.node, self.why(text)))

    def uniform(self, axis: Axis, text: str) -> None:
        """All source indices of the axis must be repeated equally often."""
        self.system.uniform(axis, self.why(text))

    def gathers(self, axes: Sequence[Axis], value: Value, *fills: Fill, centred: bool = False) -> None:
        """Allow pads along axes that are averaged or summed over, if they hold one of the fills.

        Args:
            axes: of the value.
            value: that is averaged or summed.
            fills: of its pads.
            centred: whether the mean over all axes is taken off first, which the mean over one of several is not.
        """
        several = [axis for axis in axes if axis.size > 1]
        if centred and len(several) > 1:
            return
        for axis in several:
            index = self._index(axis, value)
            choices = tuple((value, index, fill) for fill in fills)
            self.facts.gatherings.append(Gathering(self.node, axis, choices, alone=centred))

    def _index(self, axis: Axis, value: Value) -> int:
        """Which axis of a value it is, or is equal to."""
        own = self.axes(value)
        same = [i for i, other in enumerate(own) if other is axis]
        equal = [i for i, other in enumerate(own) if self.system.find(other) is self.system.find(axis)]
        if not equal:
            raise Cannot("its operand does not have the axes that it averages over")
        return (same or equal)[0]

    def sums(self, out: Value, *summands: Summand) -> None:
        """A result is a sum of products, elementwise along every axis that it keeps."""
        self.facts.summands[out] = summands

    def label(self, axis: Axis, name: str) -> None:
        """Suggest a name for a dim."""
        self.facts.labels.append((axis, name))

    def follow(self, path: Path, *axes: Axis, sign: int = 1) -> None:
        """The size at a path counts the widened size of these axes. A computed size is multiplied."""
        self.facts.follows.append(Follow(self.node, self._place(path), axes, sign))

    def shows(self, out: Value, value: Value, axes: Sequence[int | None]) -> None:
        """A result is a view of a value with its axes in another order."""
        self.facts.views[out] = (value, tuple(axes))
        self._moved(out, value)

    def picks(self, out: Value, *values: Value) -> None:
        """Every element of a result is, bit for bit, an element of one of these values, or a literal."""
        self.facts.picked[out] = values

    def takes(self, out: Value, value: Value) -> None:
        """A result holds some elements of a value, and so has its scale."""
        self.picks(out, value)
        self.sums(out, Summand((value,)))
        self.scale(out, {value: 1})

    def moves(self, out: Value, value: Value) -> None:
        """A result holds the elements of a value, moved or repeated, and so has its scale."""
        self._moved(out, value)
        self.scale(out, {value: 1})

    def _moved(self, out: Value, value: Value) -> None:
        self.picks(out, value)
        self.sums(out, Summand((value,)))
        self.facts.moved.add(out)

    # Patterns

    def states(
        self,
        pattern: str,
        *operands: str | Scaled | None,
        why: str = "",
        **hints: Hint,
    ) -> Binding:
        """State a pattern, such as ``... i, o i + o? -> ... o``, and return the axes that its names stand for.

        Args:
            pattern: what the operator does.
            operands: what its terms stand for, in order: names of operands, or values; None for one that is missing.
            why: a reason for what keeps its size, or is averaged over; the op itself if there is none.
            hints: what the rule says of names. A number is the size of an axis, or the length of a run; a negative one
                counts from the end of the first tensor that has the run. The name of an operand says that it is the
                size of an axis, which it follows.

        Raises:
            PatternError: the pattern is malformed, or the operands are not as many as its terms.
            Cannot: the tensors do not have the axes of their terms.
        """
        form = parse(pattern)
        if len(operands) != len(form.operands):
            raise PatternError(f"{len(operands)} operands for {len(form.operands)} terms", pattern)
        values = [self._meant(term, operand) for term, operand in zip(form.operands, operands, strict=True)]
        results = self.node.outputs[: len(form.results)]
        if not all(term.optional for term in form.results[len(results) :]):
            raise Cannot("it has fewer results")
        tensors = [value if isinstance(value, Value) else None for value in (*values, *results)]
        binding = Binding(self, form, tensors, why or self.node.op)
        binding.state(hints)
        self._multiply(form, binding, values)
        return binding

    def _meant(self, term: Term, operand: str | Scaled | None) -> Scaled | None:
        """What a term stands for."""
        if not isinstance(operand, str):
            return operand
        if term.is_number:
            return self.literal(operand, self.number(operand, 1))
        return self.maybe_tensor(operand) if term.optional else self.tensor(operand)

    def _multiply(self, form: Pattern, binding: Binding, values: Sequence[Scaled | None]) -> None:
        """State the scale of a sum of products, and that it is one."""
        summands = []
        for i, positions in enumerate(form.products):
            factors = [value for place in positions if (value := values[place]) is not None]
            sides = binding.sides(positions)
            contraction = self.contracted(*sides, others=binding.partial_sides(positions)) if sides else None
            tensors = tuple(factor for factor in factors if isinstance(factor, Value))
            if i == 0:
                self.scale(self.out, Counter(factors), contraction=contraction)
                summands.append(Summand(tensors))
            elif any(isinstance(factor, Literal) and not factor.value for factor in factors):
                self.unscaled |= {factor for factor in factors if isinstance(factor, Value)}  # nothing is left of them
            elif factors:
                powers = {factor: -count for factor, count in Counter(factors).items()}
                self.require({self.out: 1, **powers}, contraction)
                summands.append(Summand(tensors))
        if len(form.operands) > 1 and sum(map(len, form.products)) > 1:  # one operand may be a maximum, say
            self.sums(self.out, *summands)

    def divides_by_mean(self, axes: Sequence[Axis]) -> None:
        """The first product of the result, stated before, is divided by the root of a mean over these axes."""
        first, *others = self.facts.balances[self.node]
        averages = tuple((Fraction(-1, 2), axis, None) for axis in axes)
        self.facts.balances[self.node] = [replace(first, averages=averages), *others]
        product, *rest = self.facts.summands[self.out]
        self.sums(self.out, product._replace(centred=True), *rest)

    def broadcast(self, *values: Value, out: Value | Sequence[Axis] | None = None) -> None:
        """Tensors and the result are aligned from the right."""
        out = self.out if out is None else out
        target = self.axes(out) if isinstance(out, Value) else out
        for value in values:
            self.align(self.axes(value), target)

    def align(self, axes: Sequence[Axis], target: Sequence[Axis]) -> None:
        """Axes are equal to others from the right; one of size 1 is broadcast and says nothing."""
        for a, b in zip(reversed(axes), reversed(target), strict=False):
            if a.size == b.size:
                self.equal(a, b)
            else:
                self.pin(a, "broadcast")

    def contracted(
        self, *operands: tuple[Value, Sequence[int]], others: Iterable[tuple[Value, int]] = ()
    ) -> Contraction:
        """Operands are summed over these axes; any of them may absorb the multiplicity. Others have some of them."""
        first, indices = operands[0]
        axes = tuple(self.axes(first)[i] for i in indices)
        if not self.out.is_float:
            self.pin(axes, "summed over integers, which cannot be divided by the number of copies")
        contraction = Contraction(self.node, tuple((v, tuple(i)) for v, i in operands), axes, tuple(others))
        self.facts.contractions.append(contraction)
        return contraction

    def integer_sum(
        self, axes: Iterable[Axis], places: int = 1, out: Value | None = None, added: Value | None = None
    ) -> Contraction:
        """Products of integers of eight bits are summed over axes, which no operand can absorb.

        Args:
            axes: that may grow.
            places: how many summands there are for every index of the axes.
            out: the sum, whose scale then is the number of copies; None where the operator divides it by scales.
            added: integers that are added to the sum; their scale is the number of copies, too.
        """
        total = IntegerSum(self.node, tuple(axes), places, out, added)
        contraction = Contraction(self.node, (), total.axes)
        self.facts.sums.append(total)
        self.facts.contractions.append(contraction)
        if out is not None:
            self.scale(out, {}, contraction=contraction)
        if added is not None:
            self.require({added: -1}, contraction, mendable=False)
        return contraction

    # Scales

    def scale(
        self,
        out: Value,
        terms: Mapping[Scaled, int | Fraction],
        *,
        logs: Mapping[Axis, int | Fraction] | None = None,
        unbiased: Mapping[Axis, int | Fraction] | None = None,
        averages: Mapping[Axis, int | Fraction] | None = None,
        averaged: Value | None = None,
        contraction: Contraction | None = None,
    ) -> None:
        """The scale of a result, as a product of powers; see ``Balance``."""
        means = tuple((c, axis, averaged) for c, axis in _fractions(averages))
        parts = _fractions(terms), _fractions(logs), _fractions(unbiased)
        self._balance(Balance(self.node, out, *parts, means, contraction))

    def require(
        self,
        terms: Mapping[Scaled, int | Fraction],
        contraction: Contraction | None = None,
        *,
        logs: Mapping[Axis, int | Fraction] | None = None,
        averages: Mapping[Axis, int | Fraction] | None = None,
        mendable: bool = True,
    ) -> None:
        """A product of powers of scales, of what means shrink by, and of copies that are summed over, is 1."""
        means = tuple((c, axis, None) for c, axis in _fractions(averages))
        self._balance(Balance(self.node, None, _fractions(terms), _fractions(logs), (), means, contraction, mendable))

    def same_scale(self, *values: Scaled) -> None:
        """All have one scale; the first result among them takes it."""
        others = [value for value in dict.fromkeys(values) if value is not self.out]
        if len(others) < len(set(values)):
            self.scale(self.out, {others[0]: 1} if others else {})
        for value in others[1:]:
            self.require({others[0]: 1, value: -1})

    def any_scale(self) -> None:
        """No scale matters to the results."""
        self.facts.balances.setdefault(self.node, [])

    def irrelevant(self, value: Value) -> None:
        """The scale of an operand says nothing, as only its shape or its type is looked at."""
        self.unscaled.add(value)
        self.facts.outlines.add((self.node, value))

    def unbalanced(self) -> Iterator[Value]:
        """Operands that no scale equation of the node mentions, though it has some: they are taken as non-linear."""
        balances = self.facts.balances.get(self.node, [])
        mentioned = {item for balance in balances for _, item in balance.terms} | self.unscaled
        for value in dict.fromkeys(self.tensors) if balances else ():
            if value.is_float and value not in mentioned:
                yield value

    def literal(self, name: str, value: float, *items: int) -> Literal:
        """The number at an operand, or at an item of it, as something that may be scaled."""
        return Literal(self.node, self._place((name, *items)), value)

    def _balance(self, balance: Balance) -> None:
        self.facts.balances.setdefault(self.node, []).append(balance)

    def unread(self) -> Iterator[str]:
        """Operands that could matter and that the rule did not look at."""
        for name, operand in self.node.operands.items():
            if name not in self.read and (_says_something(operand) or any(True for _ in values_in(operand))):
                yield name


def paired(a: Sequence[_A], b: Sequence[_B], things: str = "axes") -> list[tuple[_A, _B]]:
    """Two lists side by side. ``Cannot`` is raised where their lengths differ."""
    if len(a) != len(b):
        raise Cannot(f"{len(a)} {things} where {len(b)} were expected")
    return list(zip(a, b, strict=True))


class Stated:
    """A rule made of a pattern, which can be shown, and of a body that states it."""

    def __init__(self, pattern: str, body: Callable[[Site, str], None]) -> None:
        parse(pattern)
        self.pattern = pattern
        self.body = body
        update_wrapper(self, body)

    def __call__(self, site: Site) -> None:
        self.body(site, self.pattern)


def says(pattern: str) -> Callable[[Callable[[Site, str], None]], Stated]:
    """Make a rule of a function that states this pattern, and more besides.

    Examples:
        >>> says("... -> ...")(lambda s, pattern: s.states(pattern, "x")).pattern
        '... -> ...'
    """
    return partial(Stated, pattern)


def stated(pattern: str, *operands: str, why: str = "", **hints: Hint) -> Stated:
    """A rule that is one pattern; see ``Site.states``.

    Examples:
        >>> stated("... i, o i + o? -> ... o", "input", "weight", "bias").pattern
        '... i, o i + o? -> ... o'
    """

    def rule(s: Site, pattern: str) -> None:
        s.states(pattern, *operands, why=why, **hints)

    return Stated(pattern, rule)


def spelled(rule: Rule, defaults: Mapping[str, Operand] | None = None, /, **names: str) -> Rule:
    """A rule for a node that calls the operands by other names, or has other defaults; see ``Site.renamed``."""
    if isinstance(rule, Stated):
        return Stated(rule.pattern, lambda site, _: rule(site.renamed(names, defaults)))
    return lambda site: rule(site.renamed(names, defaults))


def refused(why: str) -> Rule:
    """A rule for what cannot be stated."""

    def rule(s: Site) -> None:  # noqa: ARG001
        raise Cannot(why)

    return rule


def _fractions(terms: Mapping[Any, int | Fraction] | None) -> tuple[tuple[Fraction, Any], ...]:
    return tuple((Fraction(coefficient), key) for key, coefficient in (terms or {}).items() if coefficient)


def _says_something(operand: Operand) -> bool:
    """Whether a literal could matter to axes: any number, name or flag that is set."""
    if isinstance(operand, list | tuple):
        return any(_says_something(item) for item in operand)
    return isinstance(operand, int | float | complex | str) and operand is not False
