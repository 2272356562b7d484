"""The configuration of a study: the RUN.toml of the command line, checked field by field."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from graphclone.errors import GraphcloneError
from graphclone.study.recipes import RANDOM, RECIPES, RECOMMENDED, Recipe

T = TypeVar("T")

WIDTH, DEPTH = "width", "depth"
"""What of a model grows."""


@dataclass(frozen=True)
class Data:
    """The data that a model learns from.

    Attributes:
        source: the name of a corpus, a folder of text files, or a token file; see ``graphclone.study.corpus``.
        context: tokens of a sequence.
        validation: sequences of every evaluation, at most.
    """

    source: str = "stdlib"
    context: int = 128
    validation: int = 128


@dataclass(frozen=True)
class Training:
    """The training of a study: AdamW, a linear warm-up, then a cosine; gradients are clipped.

    Attributes:
        steps: optimizer steps.
        batch: sequences of a step, over all processes.
        learning_rate: at its peak.
        final: what the cosine ends at, as a share of the peak.
        warmup: steps of the warm-up.
        weight_decay: of matrices; biases and norms have none.
        clip: the largest norm of a gradient.
        evaluate: steps from one evaluation to the next; a killed run goes on from the last.
        shard: whether each process keeps a part of the model only, instead of all of it.
    """

    steps: int = 2000
    batch: int = 16
    learning_rate: float = 2e-3
    final: float = 0.1
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    evaluate: int = 50
    shard: bool = False


@dataclass(frozen=True)
class Downstream:
    """Tasks made of the validation text, on which every model is scored when it is trained; see ``study.tasks``.

    Attributes:
        items: of every task; 0 for no scores.
    """

    items: int = 0


@dataclass(frozen=True)
class Model:
    """A model to start from.

    Attributes:
        name: what reports call it.
        source: a name in models/, the folder or hub id of a Hugging Face checkpoint, or ``package.module:function``,
            a function that takes ``widen``, a factor, and returns the module, or ``(module, args)``.
        fields: of the configuration of a model of models/, or further arguments of the function.
        dims: the names of those that grow, as ``graphclone inspect`` gives them; all that can if empty. A function
            decides that by itself.
        grows: ``width``, or ``depth``: then a factor is that of the number of blocks, and a function takes ``deepen``
            in place of ``widen``.
    """

    name: str
    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    dims: tuple[str, ...] = ()
    grows: str = WIDTH

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            GraphcloneError: naming the model.
        """
        if self.grows not in (WIDTH, DEPTH):
            raise GraphcloneError(f"[[model]] {self.name}: grows = {self.grows!r}: must be {WIDTH!r} or {DEPTH!r}")
        if self.grows == DEPTH and self.dims:
            raise GraphcloneError(f"[[model]] {self.name}: dims are widths, and it grows in depth; leave them out")


@dataclass(frozen=True)
class Base:
    """The training of the base model before it is cloned, where that differs from the wide ones.

    Attributes:
        name: what reports call it.
        steps: 0 takes the model as it is, which makes sense for a checkpoint.
        learning_rate: at its peak; None for that of the study.
        final: what the cosine ends at, as a share of the peak; 1 keeps the rate up, and None is that of the study.
        measured_from: the name of the base whose last loss gaps are measured from, where it is not this one's: that of
            a base whose rate is kept up says little, as the first steps at a lower rate would lower it.
    """

    name: str
    steps: int
    learning_rate: float | None = None
    final: float | None = None
    measured_from: str | None = None


@dataclass(frozen=True)
class Comparison:
    """A grid of runs; a study is the union of its comparisons.

    Attributes:
        recipes: by name; ``random`` is always run, as all others are measured against it.
        models: by name; all if empty.
        bases: by name; all if empty.
        factors: by how much the models grow.
        seeds: of weights, data order and noise.
        budgets: steps of the wide models, each a run with a whole schedule of its own; those of the study if empty.
        rates: factors of each recipe's learning rate.
    """

    recipes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    factors: tuple[int, ...] = (2,)
    seeds: tuple[int, ...] = (0,)
    budgets: tuple[int, ...] = ()
    rates: tuple[float, ...] = (1.0,)

    def check(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            GraphcloneError: naming the first of them.
        """
        for factor in self.factors:
            _check_least("[[compare]] factors", factor, 2)
        for budget in self.budgets:
            _check_least("[[compare]] budgets", budget, 1)
        for rate in self.rates:
            if not rate > 0:
                raise GraphcloneError(f"[[compare]] rates = {rate}: must be above 0")


@dataclass(frozen=True)
class Cell:
    """One place of a grid: a wide model to be trained.

    Attributes:
        model: that is widened.
        base: how it is trained before.
        factor: by how much it grows.
        recipe: how the wide model starts.
        seed: of weights, data order and noise.
        budget: steps; None for those of the study.
        rate: factor of the recipe's learning rate.
    """

    model: Model
    base: Base
    factor: int
    recipe: Recipe
    seed: int
    budget: int | None = None
    rate: float = 1.0


@dataclass(frozen=True)
class Study:
    """Everything a RUN.toml says.

    Attributes:
        model: at least one.
        base: at least one.
        compare: at least one grid.
        data: what is learned.
        training: of the wide models, and of the base models where they do not differ.
        recipe: recipes of one's own.
        downstream: tasks to score models on.
    """

    model: tuple[Model, ...]
    base: tuple[Base, ...]
    compare: tuple[Comparison, ...] = (Comparison(),)
    data: Data = Data()
    training: Training = Training()
    recipe: tuple[Recipe, ...] = ()
    downstream: Downstream = Downstream()

    def __post_init__(self) -> None:
        for what in ("model", "base", "compare"):
            if not getattr(self, what):
                raise GraphcloneError(f"no [[{what}]]: a study needs at least one")
        for what, items in (("model", self.model), ("base", self.base), ("recipe", self.recipe)):
            _check_unique(what, [item.name for item in items])
        for model in self.model:
            model.check()
        for comparison in self.compare:
            _check_known("models", comparison.models, self.models)
            _check_known("bases", comparison.bases, self.bases)
            _check_known("recipes", comparison.recipes, self.recipes)
            comparison.check()
        for name in ("steps", "batch", "evaluate"):
            _check_least(f"[training] {name}", getattr(self.training, name), 1)
        for name in ("context", "validation"):
            _check_least(f"[data] {name}", getattr(self.data, name), 1)
        _check_least("[downstream] items", self.downstream.items, 0)
        for base in self.base:
            _check_least(f"[[base]] {base.name}: steps", base.steps, 0)
            _check_known(f"[[base]] {base.name}: measured_from", (base.measured_from or base.name,), self.bases)

    @cached_property
    def models(self) -> dict[str, Model]:
        """The models by name."""
        return {model.name: model for model in self.model}

    @cached_property
    def bases(self) -> dict[str, Base]:
        """The bases by name."""
        return {base.name: base for base in self.base}

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes of graphclone and the study's own, by name."""
        return {**RECIPES, **{recipe.name: recipe for recipe in self.recipe}}

    def cells(self, recipe: str = RECOMMENDED) -> Iterator[Cell]:
        """Every wide model of the study, in the order of its grids; some more than once.

        Random weights at the study's own steps and rate are part of every grid, as all others are measured against
        them.

        Args:
            recipe: what is compared with random weights where a comparison names no recipes.
        """
        _check_known("recipe", (recipe,), self.recipes)
        for grid in self.compare:
            models, bases = grid.models or tuple(self.models), grid.bases or tuple(self.bases)
            for model, factor, seed, base in product(models, grid.factors, grid.seeds, bases):
                place = (self.models[model], self.bases[base], factor)
                yield Cell(*place, self.recipes[RANDOM], seed)
                for name, budget, rate in product(grid.recipes or (recipe,), grid.budgets or (None,), grid.rates):
                    yield Cell(*place, self.recipes[name], seed, budget, rate)


def _check_known(where: str, names: tuple[str, ...], choices: Mapping[str, Any]) -> None:
    for name in names:
        if name not in choices:
            raise GraphcloneError(f"{where}: there is no {name!r}; choose from {', '.join(choices)}")


def _check_unique(what: str, names: list[str]) -> None:
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise GraphcloneError(
                f"[[{what}]] name = {name!r}: letters, digits, '_', '.' and '-' only: it names a folder"
            )
        if names.count(name) > 1:
            raise GraphcloneError(f"[[{what}]]: two are called {name!r}")


def _check_least(where: str, value: int, least: int) -> None:
    if value < least:
        raise GraphcloneError(f"{where} = {value}: must be at least {least}")


# Reading


def shipped() -> dict[str, Path]:
    """The studies that come with graphclone, by name."""
    folder = Path(str(resources.files("graphclone.study") / "sets"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read(text: str) -> Study:
    """The study of a RUN.toml, or one that comes with graphclone, by its name.

    Raises:
        GraphcloneError: there is none, or it says something that means nothing; naming the place.
    """
    path = shipped().get(text, Path(text))
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = ", ".join(shipped())
        raise GraphcloneError(f"{text}: no such file; give a RUN.toml, or one of {names}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GraphcloneError(f"{path}: cannot be read: {error}") from error
    try:
        return _made(Study, table, "the study")
    except GraphcloneError as error:
        raise GraphcloneError(f"{path}: {error}") from error


def _made(cls: type[T], table: Any, where: str) -> T:
    """A dataclass from a table of TOML, and dataclasses from the tables within it.

    Raises:
        GraphcloneError: a key is unknown or missing, or a value of another type.
    """
    if not isinstance(table, dict):
        raise GraphcloneError(f"{where}: must be a table")
    hints = get_type_hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := [key for key in table if key not in fields]:
        raise GraphcloneError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(fields)}")
    for name, item in fields.items():
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in table:
            raise GraphcloneError(f"{where}: {name} is missing")
    return cls(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return _made(hint, value, where)
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise GraphcloneError(f"{where}: must be a list")
        return tuple(_value(get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if isinstance(hint, UnionType):
        hint = next(option for option in get_args(hint) if option is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    plain = get_origin(hint) or hint
    expected = dict if plain is Mapping else plain
    if type(value) is not expected:
        raise GraphcloneError(f"{where} = {value!r}: must be {'a table' if expected is dict else expected.__name__}")
    return value
