"""Find the configuration of a wider model: which of its numbers to change, by trying, with no table of architectures.

Each whole number of a configuration is probed: with it changed, and nothing else, which axes of which parameters
change? An axis that only one number moves determines that number. Where several move one axis, and where a number
moves none (how many heads there are, say), candidates are enumerated, those that change least first, until the model
built from one has the parameters that are wanted and runs the same code.

Numbers that a class wants to agree (a width and the heads it is made of) are probed one by one all the same, with its
checks left out; those that are solved for must pass them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, combinations, islice, product
from math import prod
from typing import Any, TypeVar

from graphclone.errors import GraphcloneError

Config = dict[str, Any]
"""A configuration as JSON has it, with nested ones as dicts."""

Field = tuple[str | int, ...]
"""Where a number is: keys of nested dicts, and an index where it is in a list."""

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every parameter."""

Wanted = Mapping[str, tuple[int | None, ...]]
"""The shape that every parameter is to have, and None for an axis that may have any size."""

_PROBES = (Fraction(2), Fraction(3), Fraction(1, 2))
"""What a number is multiplied by to see what it moves, each where those before it make another model or none.

At the end it is set to 1. As many heads as are asked for need not share a width, but half of them do, and one does.
"""

_UNSET_PROBE = 7919
"""What a field without a value is set to: a prime that no width is."""

_MAX_BUILDS = 256
_MAX_FITS = 32


class Unfit(GraphcloneError):
    """No configuration has the wanted parameters.

    Attributes:
        axes: those that cannot have their size whatever the others have, as far as that is known.
        unsaid: whether that is because no number of the configuration moves them.
    """

    def __init__(self, message: str, axes: Sequence[tuple[str, int]] = (), *, unsaid: bool = False) -> None:
        super().__init__(message)
        self.axes = axes
        self.unsaid = unsaid


@dataclass(frozen=True)
class ModelProbe:
    """The questions that the solver may ask of the code that a configuration is for.

    Attributes:
        shapes: the shapes of the model that a configuration makes, be it one whose numbers do not agree; raises
            anything where it makes none.
        unlike: why the model runs otherwise than wanted, or is refused; None where it fits.
        moves: whether a configuration gives anything in a run another shape than another one does; None if unknown.
        ratios: by what axes of a size grow.
    """

    shapes: Callable[[Config], Shapes]
    unlike: Callable[[Config], str | None]
    moves: Callable[[Config, Config], bool | None]
    ratios: Callable[[int], set[Fraction]]


@dataclass(frozen=True, eq=False)
class Lever:
    """Fields that are changed together, and the axes they move.

    Attributes:
        fields: more than one where none can be changed without the others.
        values: they have.
        probe: the factor that was tried, which is not 1.
        effects: the size that every axis has with it, where that is another.
    """

    fields: tuple[Field, ...]
    values: tuple[int, ...]
    probe: Fraction
    effects: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def allows(self, ratio: Fraction) -> bool:
        """Whether the fields stay whole numbers when they are moved by a ratio."""
        return all((value * ratio).denominator == 1 for value in self.values)

    def times(self, ratio: Fraction | int) -> list[tuple[Field, int]]:
        """The fields with what they have once they are moved by a ratio."""
        return [(where, int(value * ratio)) for where, value in zip(self.fields, self.values, strict=True)]

    def predicted(self, axis: tuple[str, int], size: int, ratio: Fraction) -> Fraction:
        """The new size of an axis if the lever alone is moved by a ratio."""
        probed = self.effects.get(axis, size)
        power = next((p for p in (1, 2, 3) if probed == size * self.probe**p), None)
        if power is not None:
            return size * ratio**power
        return size + (ratio - 1) * Fraction(probed - size, self.probe - 1)


_Option = tuple[Lever, Fraction]


def solve(config: Config, target_shapes: Wanted, model: ModelProbe) -> Config:
    """The configuration of a model with the wanted parameters that runs as wanted.

    Args:
        config: of the source.
        target_shapes: those of its parameters in the wider model; those left out may have any.
        model: the code.

    Raises:
        Unfit: there is none; naming the tensor that does not fit.
    """
    try:
        return _FieldSolver(config, target_shapes, model).solve()
    except Unfit as unfit:
        if (explicit := _explicit(config, model)) is None:
            raise
        try:
            return _FieldSolver(explicit, target_shapes, model).solve()
        except Unfit:
            raise unfit from None


class _FieldSolver:
    def __init__(self, config: Config, target_shapes: Wanted, model: ModelProbe) -> None:
        self.config = config
        self.target_shapes = target_shapes
        self.model = model
        self.stuck: list[tuple[Field, int]] = []
        base = model.shapes(config)
        self.names = set(base)
        wanted = {(name, i): size for name, sizes in target_shapes.items() for i, size in enumerate(sizes)}
        self.target = {axis: size for axis, size in wanted.items() if size is not None}
        self.loose = wanted.keys() - self.target.keys()
        sizes = {(name, i): size for name in target_shapes for i, size in enumerate(base[name])}
        self.axes = {axis: size for axis, size in sizes.items() if axis not in self.loose}
        self.ratios = {
            Fraction(self.target[axis], size)
            for axis, size in self.axes.items()
            if size and self.target[axis] != size and self.target[axis] % size == 0
        }

    def solve(self) -> Config:
        if self.axes == self.target:
            return copy.deepcopy(self.config)
        levers = list(self.levers())
        moving = [lever for lever in levers if lever.effects]
        if self.unmoved(moving):
            levers += self.unequal()
            moving = [lever for lever in levers if lever.effects]
        if unmoved := self.unmoved(moving):
            raise Unfit(f"{self.tensor(unmoved[0])}, which no number of the configuration says", unmoved, unsaid=True)
        choices = self.choices(moving)
        problem: str | None = None
        for chosen in islice(self.assignments(moving, choices), _MAX_BUILDS):
            candidate = changed(self.config, chosen)
            misfit = self.misfit(candidate)
            if misfit is None or self.built(candidate) is None:  # a number that no shape shows may be what it lacks
                fields, problem = self.running(candidate, [lever for lever in levers if not lever.effects])
                if fields is not None:
                    return fields
            problem = problem or misfit
        raise Unfit(problem or "no combination of its numbers makes the wanted shapes")

    # Probing

    def levers(self) -> Iterator[Lever]:
        """Every field that can be moved alone, and pairs of equal ones that can only be moved together."""
        for where, value in numbers(self.config):
            if (lever := self.probe((where,), (value,))) is not None:
                yield lever
            else:
                self.stuck.append((where, value))
        yield from self.together((a, b) for a, b in combinations(self.stuck, 2) if a[1] == b[1])

    def unequal(self) -> Iterator[Lever]:
        """Fields that cannot be moved alone, each with one of another value: a width and its heads, say."""
        others = list(numbers(self.config))
        yield from self.together((a, b) for a in self.stuck for b in others if a[1] != b[1])

    def together(self, pairs: Iterable[tuple[tuple[Field, int], tuple[Field, int]]]) -> Iterator[Lever]:
        for (a, value), (b, other) in pairs:
            if (lever := self.probe((a, b), (value, other))) is not None:
                yield lever

    def probe(self, fields: tuple[Field, ...], values: tuple[int, ...]) -> Lever | None:
        """The axes that move with fields, or None where the model is refused or has other parameters."""
        for factor in dict.fromkeys((*_PROBES, Fraction(1, max(values[0], 2)))):
            lever = Lever(fields, values, factor)
            if not lever.allows(factor):
                continue
            shapes = self.built(changed(self.config, lever.times(factor)))
            if shapes is not None and set(shapes) == self.names:
                sizes = {(name, i): size for name in self.target_shapes for i, size in enumerate(shapes[name])}
                moved = (axis for axis, size in sizes.items() if self.axes.get(axis) != size)
                return replace(lever, effects={axis: sizes[axis] for axis in moved if axis not in self.loose})
        return None

    def built(self, config: Config) -> Shapes | None:
        try:
            return self.model.shapes(config)
        except Exception:  # a configuration may be refused in any way
            return None

    # Shapes

    def choices(self, moving: Sequence[Lever]) -> list[list[Fraction]]:
        """The ratios of each lever that every axis allows which it moves alone."""
        alone: dict[tuple[str, int], list[Lever]] = {}
        for lever in moving:
            for axis in lever.effects:
                alone.setdefault(axis, []).append(lever)
        ratios_by_lever = []
        for lever in moving:
            own = [axis for axis in lever.effects if len(alone[axis]) == 1]
            wanted = {Fraction(self.target[axis], self.axes[axis]) for axis in own if self.axes[axis]}
            of_size = chain.from_iterable(map(self.model.ratios, lever.values))
            ratios = sorted({Fraction(1), *self.ratios, *wanted, *of_size})
            whole = filter(lever.allows, ratios)
            fits = [r for r in whole if all(lever.predicted(a, self.axes[a], r) == self.target[a] for a in own)]
            if not fits:
                growing = [a for a in own if self.target[a] != self.axes[a]]
                reason = f"{self.tensor(growing[0])}, but its {named(lever.fields[0])} cannot give it that"
                raise Unfit(reason, growing)
            ratios_by_lever.append(fits)
        return ratios_by_lever

    def unmoved(self, moving: Sequence[Lever]) -> list[tuple[str, int]]:
        """The axes that should grow and that no number of the configuration moves."""
        axes = {axis for lever in moving for axis in lever.effects}
        return [a for a, size in self.axes.items() if self.target[a] != size and a not in axes]

    def assignments(
        self, moving: Sequence[Lever], choices: Sequence[Sequence[Fraction]]
    ) -> Iterator[list[tuple[Field, int]]]:
        """Combinations of ratios whose product is right wherever levers multiply, fewest changes first."""
        combos = sorted(product(*choices), key=lambda ratios: (sum(r != 1 for r in ratios), ratios))
        for ratios in combos:
            if self.multiplies(moving, ratios):
                pairs = zip(moving, ratios, strict=True)
                yield [change for lever, ratio in pairs if ratio != 1 for change in lever.times(ratio)]

    def multiplies(self, moving: Sequence[Lever], ratios: Sequence[Fraction]) -> bool:
        for axis, size in self.axes.items():
            involved = [(lever, r) for lever, r in zip(moving, ratios, strict=True) if axis in lever.effects]
            if any(lever.effects[axis] % size for lever, _ in involved):
                continue  # it is a sum; building it will tell
            factors = [lever.predicted(axis, size, r) / size for lever, r in involved]
            if involved and size * prod(factors) != self.target[axis]:
                return False
        return True

    def misfit(self, candidate: Config) -> str | None:
        """The first tensor of a candidate that has another shape than wanted."""
        shapes = self.built(candidate)
        if shapes is None or set(shapes) != self.names:
            return "the class refuses every configuration with the wanted shapes"
        for (name, i), size in self.target.items():
            if len(shapes[name]) != len(self.target_shapes[name]) or shapes[name][i] != size:
                return f"{self.tensor((name, i))}, but a configuration that fits the others makes it {shapes[name][i]}"
        return None

    def tensor(self, axis: tuple[str, int]) -> str:
        return f"axis {axis[1]} of {axis[0]} would be {self.target[axis]} instead of {self.axes[axis]}"

    # Running

    def running(self, candidate: Config, silent: Sequence[Lever]) -> tuple[Config | None, str]:
        """The candidate with those numbers changed that no shape shows, so that it runs as wanted."""
        options = [
            (lever, r) for lever in silent for r in sorted(self.model.ratios(lever.values[0]) - {1}) if lever.allows(r)
        ]
        movement = {(lever, r): self.model.moves(candidate, changed(candidate, lever.times(r))) for lever, r in options}
        # What is seen to move something is there to be moved; what is not known to is left alone if it can be.
        moving, unknown = ([o for o in options if movement[o] is answer] for answer in (True, None))
        sets = ((*a, *b) for b in subsets(unknown) for a in reversed([*subsets(moving)]))
        problem = ""
        for chosen in islice(sets, _MAX_FITS):
            if len({lever.fields for lever, _ in chosen}) < len(chosen):
                continue
            variant = changed(candidate, [change for lever, ratio in chosen for change in lever.times(ratio)])
            if self.misfit(variant) is not None:
                continue
            if (reason := self.model.unlike(variant)) is None:
                return variant, ""
            problem = problem or reason
        return None, problem


_Item = TypeVar("_Item")


def subsets(items: Sequence[_Item]) -> Iterator[tuple[_Item, ...]]:
    """All subsets, small ones first."""
    return chain.from_iterable(combinations(items, count) for count in range(len(items) + 1))


def _explicit(config: Config, model: ModelProbe) -> Config | None:
    """The configuration with a value for every field that has none and stands for a width; None if there is none."""
    base = model.shapes(config)
    changes = []
    for where in unset(config):
        try:
            probed = model.shapes(changed(config, [(where, _UNSET_PROBE)]))
        except Exception:  # such a field may not be a number at all
            continue
        axes = [(n, i) for n in probed if n in base for i, size in enumerate(probed[n]) if size == _UNSET_PROBE]
        if set(probed) == set(base) and axes:
            name, i = axes[0]
            changes.append((where, base[name][i]))
    explicit = changed(config, changes)
    return explicit if changes and model.shapes(explicit) == base else None


# Configurations


def numbers(config: Config, least: int = 2) -> Iterator[tuple[Field, int]]:
    """Every whole number in a configuration, in nested ones and in lists; those below 2 are rather switches."""
    for where, value in _entries(config, ()):
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            yield where, value


def bases(config: Config, prefix: Field = ()) -> Iterator[tuple[Field, float]]:
    """Every number above 1 that need not be whole, in dicts of any kind."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from bases(value, (*prefix, key))
        elif isinstance(value, float) and value > 1:
            yield (*prefix, key), value


def unset(config: Config, prefix: Field = ()) -> Iterator[Field]:
    """Every field that has no value."""
    yield from (where for where, value in _entries(config, prefix) if value is None)


def _entries(config: Config, prefix: Field) -> Iterator[tuple[Field, Any]]:
    for key, value in config.items():
        if key.startswith("_"):  # not for the model, but about the configuration
            continue
        if isinstance(value, dict) and "model_type" in value:  # other dicts are no configurations
            yield from _entries(value, (*prefix, key))
        elif isinstance(value, list):
            yield from (((*prefix, key, i), item) for i, item in enumerate(value))
        elif not isinstance(value, dict):
            yield (*prefix, key), value


def changed(config: Config, changes: Sequence[tuple[Field, Any]]) -> Config:
    """A copy of a configuration with some fields changed."""
    result = copy.deepcopy(config)
    for where, value in changes:
        holder: Any = result
        for key in where[:-1]:
            holder = holder[key]
        holder[where[-1]] = value
    return result


def differences(old: Config, new: Config) -> dict[Field, tuple[Any, Any]]:
    """The fields whose value differs, with both values; lists of another length as a whole."""
    return dict(_differences(old, new, ()))


def _differences(old: Any, new: Any, where: Field) -> Iterator[tuple[Field, tuple[Any, Any]]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in new.items():
            if not str(key).startswith("_"):
                yield from _differences(old.get(key), value, (*where, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, (*where, i))
    elif old != new:
        yield where, (old, new)


def named(where: Field) -> str:
    """A field as people write it."""
    return ".".join(str(key) for key in where)
