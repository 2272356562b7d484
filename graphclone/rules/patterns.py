"""Patterns: what an operator does to axes, in one line, as in einops.

``... i, o i + o? -> ... o`` is a linear layer. The input has the axes ``... i``, and the weight has ``o i``. A bias
``o`` is added; it may be missing. ``Site.states`` says which operands the terms stand for. The line states this:

- Axes of one name are equal. An axis of size 1 is broadcast, so it says nothing.
- A result is a sum (``+``) of products (``,``) of operands, and its scale follows from theirs. An axis that stands in a
  product and not in the result is summed over.
- Operands behind ``|`` are those in which the result is not linear. A pattern that begins with ``|`` says nothing about
  scales.

| in a pattern | what it means |
| --- | --- |
| ``o`` | an axis |
| ``...`` | any number of axes, which are aligned from the right |
| ``x..`` | a run of axes, as long in every term |
| ``(h d)`` | one axis that is the product of others, row-major |
| ``(q + k + v)`` | one axis that is others side by side; ``(h d + h d)`` is a concat of products |
| ``2`` | an axis of that size, which it keeps |
| ``!t`` | an axis that keeps its size |
| ``~n`` | an axis over which something is averaged: all its indices must be repeated equally often |
| ``#`` | a number in place of a tensor, which may be rescaled; 1 where it is missing |
| ``o?`` | an operand or a result that may be missing |
| ``[b h m]`` | an operand that may lack the first of these axes, which are broadcast then |

Examples:
    >>> parse("... i, o i + o? -> ... o").names
    ['...', 'i', 'o']
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, NamedTuple, TypeGuard


class PatternError(Exception):
    """A pattern that is malformed or does not fit how it is used: a mistake of the rule's author."""

    def __init__(self, why: str, pattern: str) -> None:
        super().__init__(f"pattern {pattern!r}: {why}")
        self.why = why


class Name(NamedTuple):
    """An axis, or one of a run at a place counted from its end; at the place None, the whole run."""

    text: str
    place: int | None = 0


class Number(NamedTuple):
    """An axis of a fixed size."""

    size: int


class Compound(NamedTuple):
    """An axis that is the product of others, the outermost first, or others side by side."""

    kind: Literal["product", "concat"]
    parts: tuple[Atom, ...]


Atom = Name | Number | Compound
ELLIPSIS = Name("...", None)


@dataclass(frozen=True)
class Term:
    """A term of a pattern: what it says of one operand or result.

    Attributes:
        axes: in order; of a number there are none.
        is_number: whether it stands for a number.
        optional: whether it may be missing.
        short: whether its first axes may be missing.
    """

    axes: tuple[Atom, ...] = ()
    is_number: bool = False
    optional: bool = False
    short: bool = False

    def count(self, runs: Mapping[str, int]) -> int:
        """The number of axes, without runs of unknown length."""
        return sum(runs.get(axis.text, 0) if is_run(axis) else 1 for axis in self.axes)

    def spread(self, rank: int, runs: Mapping[str, int]) -> tuple[Atom, ...] | None:
        """The meaning of each axis of a tensor, given the lengths of runs; None if the number of axes does not fit."""
        rest = rank - self.count(runs)
        if (rest < 0 and not self.short) or (rest > 0 and ELLIPSIS not in self.axes):
            return None
        return tuple(_spread(self.axes, {**runs, ELLIPSIS.text: rest}))[max(-rest, 0) :]


@dataclass(frozen=True)
class Pattern:
    """A pattern in its parts.

    Attributes:
        text: as it was written.
        operands: in order.
        products: the positions of the factors of every summand.
        results: of the node, in order.
        runs: names of runs.
        pinned: names of axes that keep their size.
        even: names of axes that are averaged over.
    """

    text: str
    operands: tuple[Term, ...]
    products: tuple[tuple[int, ...], ...]
    results: tuple[Term, ...]
    runs: frozenset[str]
    pinned: frozenset[str]
    even: frozenset[str]

    @cached_property
    def names(self) -> list[str]:
        """All names, in order."""
        return _texts([*self.operands, *self.results])

    def summed(self, product: Sequence[int]) -> list[str]:
        """The names that a product sums over."""
        others = {*_texts(self.results), *self.pinned, *self.even}
        return [name for name in _texts([self.operands[i] for i in product]) if name not in others]


def is_run(atom: Atom) -> TypeGuard[Name]:
    """Whether it is a run of axes."""
    return isinstance(atom, Name) and atom.place is None


def measured(terms: Collection[tuple[Term, int]], runs: Mapping[str, int]) -> dict[str, int]:
    """The length of each run, given terms with the ranks of their tensors, and the lengths of some runs."""
    lengths = dict(runs)
    for _ in terms:
        for term, rank in terms:
            unknown = [axis for axis in term.axes if is_run(axis) and axis.text not in lengths]
            if len(unknown) == 1 and unknown[0] != ELLIPSIS and not term.short:
                lengths[unknown[0].text] = max(rank - term.count(lengths), 0)
    return lengths


def changed(changes: Sequence[bool]) -> tuple[str, str]:
    """Axes before and after some of them change, and so keep their sizes: ``x0 !x1`` and ``x0 !y1``."""
    before = [f"!x{i}" if change else f"x{i}" for i, change in enumerate(changes)]
    return " ".join(before), " ".join(axis.replace("!x", "!y") for axis in before)


def reduced(reductions: Sequence[bool], mark: str = "", *, keep: bool = False) -> tuple[str, str]:
    """Axes before and after some are reduced over: ``x0 ~x1`` and ``x0``, or ``x0 1`` if the result keeps them."""
    before = [f"{mark if reduce else ''}x{i}" for i, reduce in enumerate(reductions)]
    after = ["1" if reduce else f"x{i}" for i, reduce in enumerate(reductions) if keep or not reduce]
    return " ".join(before), " ".join(after)


def _texts(terms: Sequence[Term]) -> list[str]:
    return list(dict.fromkeys(name.text for term in terms for name in names_in(term.axes)))


def names_in(atoms: Sequence[Atom]) -> Iterator[Name]:
    """The names in axes, however deep, in order."""
    for atom in atoms:
        if isinstance(atom, Name):
            yield atom
        elif isinstance(atom, Compound):
            yield from names_in(atom.parts)


def _spread(atoms: Sequence[Atom], runs: Mapping[str, int]) -> Iterator[Atom]:
    for atom in atoms:
        if is_run(atom):
            yield from (Name(atom.text, place) for place in reversed(range(runs.get(atom.text, 0))))
        else:
            yield Compound(atom.kind, tuple(_spread(atom.parts, runs))) if isinstance(atom, Compound) else atom


_TOKEN = re.compile(r"\s*(->|\.\.\.|[!~]?[A-Za-z]\w*(?:\.\.)?|\d+|[()\[\]+,|?#])")


@cache
def parse(text: str) -> Pattern:
    """A pattern.

    Raises:
        PatternError: it is malformed.
    """
    return _Parser(text).pattern()


class _Parser:
    """Reads a pattern token by token."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.axes: set[str] = set()
        self.runs: set[str] = set()
        self.pinned: set[str] = set()
        self.even: set[str] = set()
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                raise self.error(f"{text[position:].split(maxsplit=1)[0]!r} means nothing")
            self.tokens.append(match[1])
            position = match.end()
        self.tokens.reverse()  # the next one is at the end

    def error(self, why: str) -> PatternError:
        return PatternError(why, self.text)

    def took(self, *tokens: str) -> bool:
        """Whether the next token is one of these, which is taken then."""
        if self.tokens and self.tokens[-1] in tokens:
            self.tokens.pop()
            return True
        return False

    def pattern(self) -> Pattern:
        products = [] if self.tokens[-1:] in ([], ["|"]) else [self.terms()]
        while products and self.took("+"):
            products.append(self.terms())
        conditions = self.terms() if self.took("|") else []
        has_results = self.took("->")
        results = self.terms() if has_results else []
        if self.tokens:
            raise self.error(f"{self.tokens[-1]!r} is not expected there")
        if products and not has_results:
            raise self.error("a product without a result")
        if both := self.pinned & self.even:
            raise self.error(f"{', '.join(sorted(both))} cannot be both pinned and averaged over")
        if both := self.runs & self.axes:
            raise self.error(f"{', '.join(sorted(both))} is both an axis and a run")
        operands = [term for product in products for term in product] + conditions
        places = iter(range(len(operands)))
        positions = tuple(tuple(next(places) for _ in product) for product in products)
        marks = frozenset(self.runs), frozenset(self.pinned), frozenset(self.even)
        pattern = Pattern(self.text, tuple(operands), positions, tuple(results), *marks)
        for product, factors in zip(positions, products, strict=True):
            names = set(pattern.summed(product))
            if not any(names <= {axis.text for axis in term.axes if isinstance(axis, Name)} for term in factors):
                raise self.error("no operand has all the axes that it sums over")
        return pattern

    def terms(self) -> list[Term]:
        terms = [self.term()]
        while self.took(","):
            terms.append(self.term())
        return terms

    def term(self) -> Term:
        if self.took("#"):
            return Term(is_number=True)
        axes, short = [], self.took("[")
        while self.tokens and self.tokens[-1] not in ("+", ",", "|", "->", "?", ")", "[", "]"):
            axes.append(self.atom())
        if short and not self.took("]"):
            raise self.error("a bracket is not closed")
        plain = [axis for axis in axes if isinstance(axis, Name)]
        if len(set(plain)) != len(plain):
            raise self.error("it takes a diagonal")
        return Term(tuple(axes), optional=self.took("?"), short=short)

    def atom(self) -> Atom:
        token = self.tokens.pop()
        if token == "(":
            return self.compound()
        if token == "#":
            raise self.error("a number has no axes")
        if token.isdigit():
            return Number(int(token))
        text = token.strip("!~.") or ELLIPSIS.text
        if token[0] in "!~":
            (self.pinned if token[0] == "!" else self.even).add(text)
        several = token.endswith("..")
        (self.runs if several else self.axes).add(text)
        return Name(text, None if several else 0)

    def compound(self) -> Atom:
        """Products side by side, up to a bracket."""
        parts: list[list[Atom]] = [[]]
        while not self.took(")"):
            if not self.tokens or self.tokens[-1] in (",", "|", "->", "?", "[", "]", "..."):
                raise self.error("a bracket is not closed, or holds what is no axis")
            if self.took("+"):
                parts.append([])
            else:
                parts[-1].append(self.atom())
        if not all(parts):
            raise self.error("nothing stands in a bracket, or beside a +")
        products = tuple(
            part[0] if len(part) == 1 and not is_run(part[0]) else Compound("product", tuple(part)) for part in parts
        )
        return products[0] if len(products) == 1 else Compound("concat", products)
