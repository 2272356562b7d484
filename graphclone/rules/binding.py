"""The binding of a pattern's names at one node: to the axes of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Protocol

from graphclone.algebra.axes import Axes, Axis, Why
from graphclone.graph.ir import Path, Value
from graphclone.rules.patterns import Atom, Compound, Name, Number, Pattern, PatternError, Term, measured, names_in

Hint = int | str | Axis
"""What a rule says of a name: its size or length, the operand that holds its size, or its axis."""


class Cannot(Exception):
    """A rule meets something it cannot state: every axis of the node is pinned, with this reason."""


class Speaker(Protocol):
    """A reader of operands by name that states equations."""

    @property
    def system(self) -> Axes: ...
    def count(self, name: str) -> int: ...
    def axes(self, value: Value) -> tuple[Axis, ...]: ...
    def equal(self, a: Axis, b: Axis) -> None: ...
    def pin(self, axes: Iterable[Axis] | Axis, text: str) -> None: ...
    def uniform(self, axis: Axis, text: str) -> None: ...
    def follow(self, path: Path, *axes: Axis) -> None: ...


class Binding:
    """A pattern at a node, whose names are bound to axes as the pattern is stated.

    Args:
        site: where to state what follows.
        form: the pattern.
        tensors: what its terms stand for, in order; None for one that is missing or no tensor.
        why: a reason for what is pinned or averaged over.
    """

    def __init__(self, site: Speaker, form: Pattern, tensors: Sequence[Value | None], why: str) -> None:
        self.site, self.form, self.tensors, self.why = site, form, tensors, why
        self.terms = list(zip((*form.operands, *form.results), tensors, strict=False))
        self.bound: dict[Name, Axis] = {}
        self.spread: list[tuple[Atom, ...]] = []

    def __getitem__(self, name: str) -> Axis:
        """The one axis that a name stands for."""
        return self.bound[Name(name)]

    def named(self, name: str) -> tuple[Axis, ...]:
        """The axes that a name, of a run perhaps, stands for, in order."""
        places = sorted((key.place or 0 for key in self.bound if key.text == name), reverse=True)
        return tuple(self.bound[Name(name, place)] for place in places)

    def state(self, hints: Mapping[str, Hint]) -> None:
        """State all that the pattern says about axes.

        Args:
            hints: what the rule says of some of its names.

        Raises:
            PatternError: it has no such names, or they are too few to tell the sizes of all axes.
            Cannot: a tensor does not have the axes of its term.
        """
        lengths = {n: self._length(n, v) for n, v in hints.items() if isinstance(v, int) and n in self.form.runs}
        there = [(term, value.rank) for term, value in self.terms if value is not None]
        lengths = measured(there, lengths)
        self._bind_hints(hints)
        equations = [equation for term, value in self.terms for equation in self._laid_out(term, value, lengths)]
        for atom, axis in equations:
            if isinstance(atom, Name):
                self._bind(atom, axis)
        self._solve([(atom, axis) for atom, axis in equations if isinstance(atom, Compound)])
        for name in self.form.pinned:
            self.site.pin(self.named(name), self.why)
        for name in self.form.even:
            for axis in self.named(name):
                self.site.uniform(axis, self.why)

    # What is known

    def _length(self, name: str, length: int) -> int:
        """How long a run is; a negative number counts from the end of the first tensor that has it."""
        if length >= 0:
            return length
        run = Name(name, None)
        rank = next((tensor.rank for term, tensor in self.terms if tensor is not None and run in term.axes), 0)
        if rank == 0:
            raise Cannot("a tensor without axes")
        return length % rank

    def _bind_hints(self, hints: Mapping[str, Hint]) -> None:
        """Bind names to their axes, or to new ones of their sizes."""
        strangers = hints.keys() - set(self.form.names)
        if strangers:
            raise PatternError(f"no axis is called {', '.join(sorted(strangers))}", self.form.text)
        for name, value in hints.items():
            if isinstance(value, Axis):
                self.bound[Name(name)] = value
            elif name not in self.form.runs:
                size = self.site.count(value) if isinstance(value, str) else value
                axis = self.bound[Name(name)] = self.site.system.dim(size)
                if isinstance(value, str):
                    self.site.follow((value,), axis)

    # Equations

    def _laid_out(self, term: Term, value: Value | None, lengths: Mapping[str, int]) -> list[tuple[Atom, Axis]]:
        """What each axis of a tensor is."""
        atoms = term.spread(value.rank, lengths) if value is not None else ()
        if atoms is None:
            raise Cannot("an operand or a result with more or fewer axes")
        self.spread.append(atoms)
        equations = [] if value is None else list(zip(atoms, self.site.axes(value), strict=True))
        for atom, axis in equations:
            if isinstance(atom, Number):
                if axis.size != atom.size:
                    raise Cannot(f"an axis of {axis.size} where {atom.size} was expected")
                self.site.pin(axis, self.why)
        return equations

    def _bind(self, name: Name, axis: Axis) -> None:
        """An axis is what a name stands for; one of size 1 is broadcast, and says nothing."""
        if name.text in self.form.pinned:
            self.site.pin(axis, self.why)
            self.bound.setdefault(name, axis)
        elif name not in self.bound or self.bound[name].size == 1:
            self.bound[name] = axis
        elif axis.size != 1:
            self.site.equal(self.bound[name], axis)

    def _solve(self, equations: Sequence[tuple[Compound, Axis]]) -> None:
        """Equate axes with what they are made of, those first whose parts are known."""
        pending = sorted(equations, key=lambda equation: equation[1].size == 1)
        while pending:
            later = [(atom, axis) for atom, axis in pending if not self._fits(atom, axis.size)]
            for atom, axis in pending:
                if (atom, axis) not in later and axis.size != 1:  # one of size 1 is broadcast
                    self.site.equal(axis, self._made(atom))
            if len(later) == len(pending):
                raise PatternError("the sizes of the parts of an axis are not known", self.form.text)
            pending = later

    def _size(self, atom: Atom) -> int | None:
        """The size of an axis, if it is known."""
        if isinstance(atom, Name):
            return self.bound[atom].size if atom in self.bound else None
        if isinstance(atom, Number):
            return atom.size
        sizes = [size for part in atom.parts if (size := self._size(part)) is not None]
        if len(sizes) < len(atom.parts):
            return None
        return prod(sizes) if atom.kind == "product" else sum(sizes)

    def _fits(self, atom: Atom, size: int) -> bool:
        """Make up the size of an axis by new dims; False if not enough of its parts are known."""
        if isinstance(atom, Name):
            self.bound[atom] = self.site.system.dim(size)
            return True
        assert not isinstance(atom, Number)
        sizes = [length for part in atom.parts if (length := self._size(part)) is not None]
        missing = [part for part in atom.parts if self._size(part) is None]
        if not missing:
            return True
        if len(set(missing)) > 1 or (atom.kind == "product" and len(missing) > 1):
            return False
        if atom.kind == "product":
            part, rest = divmod(size, prod(sizes) or 1)
        else:
            part, rest = divmod(size - sum(sizes), len(missing))
        if rest or part < 0:
            raise Cannot(f"an axis of {size} that is not made of {sizes}")
        return self._fits(missing[0], part)

    def _made(self, atom: Atom) -> Axis:
        """The axis that an atom means, all of whose names are bound."""
        if isinstance(atom, Name):
            return self.bound[atom]
        if isinstance(atom, Number):
            return self.site.system.dim(atom.size, Why("", self.why))
        parts = [self._made(part) for part in atom.parts]
        return self.site.system.product(parts) if atom.kind == "product" else self.site.system.concat(parts)

    # Sums

    def sides(self, product: Sequence[int]) -> list[tuple[Value, list[int]]]:
        """The operands of a product that have all the axes it sums over, with the indices of those; none if no axes.

        Args:
            product: the positions of its operands.

        Raises:
            Cannot: an operand has one of them with size 1 only, so that its sum is counted by the others' size.
        """
        summed = self.form.summed(product)
        keys = [key for key in self.bound if key.text in summed]
        factors = [(value, self.spread[i]) for i in product if (value := self.tensors[i]) is not None]
        for value, atoms in factors:
            for atom, axis in zip(atoms, self.site.axes(value), strict=True):
                if isinstance(atom, Name) and atom in keys and axis.size != self.bound[atom].size:
                    raise Cannot("it broadcasts an axis that it sums over")
        sides = [(value, [atoms.index(key) for key in keys]) for value, atoms in factors if set(keys) <= set(atoms)]
        if keys and not sides:
            raise Cannot("no operand has all the axes that it sums over")
        return sides if keys else []

    def partial_sides(self, product: Sequence[int]) -> list[tuple[Value, int]]:
        """The operands of a product that have some of the axes it sums over, but not all, with the index of each."""
        summed = self.form.summed(product)
        keys = {key for key in self.bound if key.text in summed}
        factors = [(value, self.spread[i]) for i in product if (value := self.tensors[i]) is not None]
        partial = [(value, atoms) for value, atoms in factors if not keys <= set(atoms)]
        return [(value, i) for value, atoms in partial for i, atom in enumerate(atoms) if keys & set(names_in([atom]))]
