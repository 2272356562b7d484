"""A node as its rule sees it: operands by name, axes, and the statements a rule can make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from graphclone.algebra.axes import Axes, Axis, Why
from graphclone.analysis.facts import Balance, Contraction, Facts, Follow, IntegerSum, Literal, Refusal, Scaled
from graphclone.graph.ir import Node, Operand, Path, Value, values_in
from graphclone.rules.binding import Binding, Cannot, Hint
from graphclone.rules.patterns import Pattern, PatternError, Term, parse

__all__ = ["Cannot", "Rule", "Site", "exact", "refused", "spelled", "stated"]

Rule = Callable[["Site"], None]
"""Says what a node means for axes and scales. What it leaves unsaid about scales is taken as non-linear."""


class Site:
    """One node, its operands and results, and where a rule's statements go.

    Reading an operand marks it as understood. A number that no rule read is a number nobody understood, and
    pins the node.
    """

    def __init__(self, node: Node, facts: Facts, names: Mapping[str, str] | None = None) -> None:
        self.node = node
        self.facts = facts
        self.names = names or {}
        self.read: set[str] = set()
        self.unscaled: set[Value] = set()

    def renamed(self, names: Mapping[str, str]) -> Site:
        """The same site for a rule that calls the operands by other names: the rule's name to the node's."""
        site = Site(self.node, self.facts, {**self.names, **names})
        site.read, site.unscaled = self.read, self.unscaled
        return site

    # Operands

    def _name(self, name: str) -> str:
        """What the node calls an operand, which is thereby understood."""
        name = self.names.get(name, name)
        self.read.add(name)
        return name

    def has(self, name: str) -> bool:
        """Whether the node gives the operand."""
        return self.node.operands.get(self.names.get(name, name)) is not None

    def __getitem__(self, name: str) -> Operand:
        own = self._name(name)
        if own not in self.node.operands:
            raise Cannot(f"it has no {own}")
        return self.node.operands[own]

    def get(self, name: str, default: Any = None) -> Operand:
        """The operand, or a default where the node does not give it."""
        operand = self.node.operands.get(self._name(name))
        return default if operand is None else operand

    def operand(self, path: Path) -> Operand:
        """The operand at a path."""
        return self.node.operand((self._name(str(path[0])), *path[1:]))

    def tensor(self, name: str) -> Value:
        """The operand, which must be a tensor."""
        operand = self[name]
        if not isinstance(operand, Value) or not operand.is_tensor:
            raise Cannot(f"its {name} is no tensor")
        return operand

    def ignores(self, *names: str) -> None:
        """Options that say nothing about axes or scales."""
        for name in names:
            self._name(name)

    def maybe_tensor(self, name: str) -> Value | None:
        """The operand if it is a tensor."""
        operand = self.get(name)
        return operand if isinstance(operand, Value) and operand.is_tensor else None

    def number(self, name: str, default: float | None = None) -> float:
        """The operand, which must be a literal number."""
        operand = self.get(name, default)
        if isinstance(operand, bool) or not isinstance(operand, int | float):
            raise Cannot(f"its {name} is not a literal number")
        return operand

    def integer(self, name: str, default: int | None = None) -> int:
        """The operand, which must be a literal integer."""
        return int(self.number(name, default))

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """The operand as the index of an axis, counted from the front."""
        if rank == 0:
            raise Cannot("a tensor without axes")
        return self.integer(name, default) % rank

    def axis_list(self, name: str, rank: int) -> list[int]:
        """The operand as axes, counted from the front; all of them where it is missing or empty."""
        operand = self.get(name)
        operand = [operand] if isinstance(operand, int) else operand
        return [axis % rank for axis in operand] if operand and rank else list(range(rank))

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

    def axes(self, value: Value) -> tuple[Axis, ...]:
        """The axes of a tensor."""
        return self.facts.of[value]

    def why(self, text: str = "") -> Why:
        """A reason that names this node."""
        return Why(self.node.name, text or self.node.op)

    def equal(self, a: Axis, b: Axis) -> None:
        """Two axes have the same layout."""
        self.system.unify(a, b, self.why())

    def equal_all(self, a: Sequence[Axis], b: Sequence[Axis]) -> None:
        """Two lists of axes have the same layouts, one by one."""
        if len(a) != len(b):
            raise Cannot(f"{len(a)} axes where {len(b)} were expected")
        for x, y in zip(a, b, strict=True):
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

    def label(self, axis: Axis, name: str) -> None:
        """Suggest a name for a dim."""
        self.facts.labels.append((axis, name))

    def follow(self, path: Path, *axes: Axis, sign: int = 1) -> None:
        """The size at a path counts the widened size of these axes. A computed size is multiplied."""
        path = (self._name(str(path[0])), *path[1:])
        self.facts.follows.append(Follow(self.node, path, axes, sign))

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
        self.scale(out, {value: 1})

    def moves(self, out: Value, value: Value) -> None:
        """A result holds the elements of a value, moved or repeated, and so has its scale."""
        self._moved(out, value)
        self.scale(out, {value: 1})

    def _moved(self, out: Value, value: Value) -> None:
        self.picks(out, value)
        self.facts.moved.add(out)

    # Patterns

    def states(self, pattern: str, *operands: str | Scaled | None, why: str = "", **hints: Hint) -> Binding:
        """State a pattern, a line such as ``... i, o i + o? -> ... o``; see ``graphclone.rules.patterns``.

        Args:
            pattern: what the operator does.
            operands: what its terms stand for, in order: names of operands, or values; None for one that is missing.
            why: a reason for what keeps its size, or is averaged over; the op itself if there is none.
            hints: what the rule says of names. A number is the size of an axis, or the length of a run; a negative one
                counts from the end of the first tensor that has the run. The name of an operand says that it is the
                size of an axis, which it follows.

        Returns:
            the axes that the names in the pattern stand for.

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
        """State the scale of a sum of products."""
        for i, positions in enumerate(form.products):
            factors = [value for place in positions if (value := values[place]) is not None]
            sides = binding.sides(positions)
            contraction = self.contracted(*sides) if sides else None
            if i == 0:
                self.scale(self.out, Counter(factors), contraction=contraction)
            elif any(isinstance(factor, Literal) and not factor.value for factor in factors):
                self.unscaled |= {factor for factor in factors if isinstance(factor, Value)}  # nothing is left of them
            elif factors:
                powers = {factor: -count for factor, count in Counter(factors).items()}
                self.require({self.out: 1, **powers}, contraction)

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

    def contract(self, a: Value, a_axes: Sequence[int], b: Value, b_axes: Sequence[int]) -> Contraction:
        """Two operands are multiplied and summed over axes they share."""
        for i, j in zip(a_axes, b_axes, strict=True):
            self.equal(self.axes(a)[i], self.axes(b)[j])
        return self.contracted((a, a_axes), (b, b_axes))

    def contracted(self, *operands: tuple[Value, Sequence[int]]) -> Contraction:
        """Operands are summed over these axes; any of them may absorb the multiplicity."""
        first, indices = operands[0]
        axes = tuple(self.axes(first)[i] for i in indices)
        if not self.out.is_float:
            self.pin(axes, "summed over integers, which cannot be divided by the number of copies")
        contraction = Contraction(self.node, tuple((v, tuple(i)) for v, i in operands), axes)
        self.facts.contractions.append(contraction)
        return contraction

    def integer_sum(self, axes: Iterable[Axis], places: int = 1, out: Value | None = None) -> Contraction:
        """Products of integers of eight bits are summed over axes, which no operand can absorb.

        Args:
            axes: that may grow.
            places: how many summands there are for every index of the axes.
            out: the sum, whose scale then is the number of copies; None where the operator divides it by scales.
        """
        total = IntegerSum(self.node, tuple(axes), places, out)
        contraction = Contraction(self.node, (), total.axes)
        self.facts.sums.append(total)
        self.facts.contractions.append(contraction)
        if out is not None:
            self.scale(out, {}, contraction=contraction)
        return contraction

    # Scales

    def scale(
        self,
        out: Value,
        terms: Mapping[Scaled, int | Fraction],
        *,
        logs: Mapping[Axis, int | Fraction] | None = None,
        unbiased: Mapping[Axis, int | Fraction] | None = None,
        contraction: Contraction | None = None,
    ) -> None:
        """The scale of a result, as a product of powers; see ``Balance``."""
        self._balance(out, terms, logs, unbiased, contraction)

    def require(
        self,
        terms: Mapping[Scaled, int | Fraction],
        contraction: Contraction | None = None,
        *,
        mendable: bool = True,
    ) -> None:
        """A product of powers of scales, and of the copies a contraction sums over, is 1."""
        self._balance(None, terms, None, None, contraction, mendable=mendable)

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

    def unbalanced(self) -> Iterator[Value]:
        """Operands that no scale equation of the node mentions, though it has some: they are taken as non-linear."""
        balances = self.facts.balances.get(self.node, [])
        mentioned = {item for balance in balances for _, item in balance.terms} | self.unscaled
        for value in dict.fromkeys(self.tensors) if balances else ():
            if value.is_float and value not in mentioned:
                yield value

    def literal(self, name: str, value: float) -> Literal:
        """The number at an operand, as something that may be scaled."""
        return Literal(self.node, (self._name(name),), value)

    def _balance(
        self,
        out: Value | None,
        terms: Mapping[Scaled, int | Fraction],
        logs: Mapping[Axis, int | Fraction] | None,
        unbiased: Mapping[Axis, int | Fraction] | None,
        contraction: Contraction | None,
        *,
        mendable: bool = True,
    ) -> None:
        parts = (_fractions(terms), _fractions(logs or {}), _fractions(unbiased or {}))
        balance = Balance(self.node, out, *parts, contraction, mendable)
        self.facts.balances.setdefault(self.node, []).append(balance)

    # The audit

    def unread(self) -> Iterator[str]:
        """Operands that could matter and that the rule did not look at."""
        for name, operand in self.node.operands.items():
            if name not in self.read and (_says_something(operand) or any(True for _ in values_in(operand))):
                yield name


def stated(pattern: str, *operands: str, why: str = "", **hints: Hint) -> Rule:
    """A rule that is one pattern; see ``Site.states``."""
    parse(pattern)

    def rule(s: Site) -> None:
        s.states(pattern, *operands, why=why, **hints)

    return rule


def spelled(rule: Rule, **names: str) -> Rule:
    """A rule for a node that calls the operands by other names: the rule's name to the node's."""
    return lambda site: rule(site.renamed(names))


def refused(why: str) -> Rule:
    """A rule for what cannot be stated."""

    def rule(s: Site) -> None:  # noqa: ARG001
        raise Cannot(why)

    return rule


def exact(number: Operand) -> Fraction | None:
    """A literal number as a fraction, if it is a simple one."""
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        return None
    fraction = Fraction(number).limit_denominator(1000)
    return fraction if float(fraction) == number else None


def _fractions(terms: Mapping[Any, int | Fraction]) -> tuple[tuple[Fraction, Any], ...]:
    return tuple((Fraction(coefficient), key) for key, coefficient in terms.items() if coefficient)


def _says_something(operand: Operand) -> bool:
    """Whether a literal could matter to axes: any number, name or flag that is set."""
    if isinstance(operand, list | tuple):
        return any(_says_something(item) for item in operand)
    return isinstance(operand, int | float | complex | str) and operand is not False
