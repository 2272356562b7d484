"""Numbers from the curves of a study: what its runs were, when one catches up with another, and what it saved.

A run is a folder with ``run.json``, what the run is, and ``metrics.jsonl``, one JSON object per evaluation. Losses
are validation losses in nats per token.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from graphclone.errors import GraphcloneError
from graphclone.study.recipes import RANDOM, RECIPES

Curve = Sequence[tuple[int, float]]
"""Steps, ascending, and the loss at each."""

WINDOW = 5
"""Evaluations under the running median."""

MARGIN = 0.01
"""Nats per token by which the random wide model must end below the base before a speedup means anything."""


@dataclass(frozen=True)
class Evaluation:
    """One line of ``metrics.jsonl``; what was not measured is None.

    Attributes:
        step: optimizer steps done.
        tokens: trained on so far.
        loss: validation loss, in nats per token; infinite where it is not a number.
        train_loss: in nats per token.
        learning_rate: of the next step.
        accuracy: share of next tokens that are right, in [0, 1].
        brackets: accuracy on closing brackets, in [0, 1].
        indentation: accuracy on indentation, in [0, 1].
        identifiers: accuracy on identifiers, in [0, 1].
        row_cosine: mean cosine of the copies of rows; see ``graphclone.study.symmetry``.
        column_cosine: mean cosine of the copies of columns.
        swap_cosine: mean cosine of weights and their copies exchanged.
        effective_rank: mean effective rank of weights, relative to the greatest possible.
    """

    step: int
    tokens: int
    loss: float
    train_loss: float | None = None
    learning_rate: float | None = None
    accuracy: float | None = None
    brackets: float | None = None
    indentation: float | None = None
    identifiers: float | None = None
    row_cosine: float | None = None
    column_cosine: float | None = None
    swap_cosine: float | None = None
    effective_rank: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.loss):  # NaN compares with nothing; a run that diverged is worse than any other
            object.__setattr__(self, "loss", math.inf)


@dataclass(frozen=True)
class Run:
    """One training run: its ``run.json`` and its evaluations.

    Attributes:
        name: of the run, and of its folder.
        kind: ``base``, ``wide``, or ``control`` for a base that was trained on.
        model: label of the architecture.
        factor: how much wider than the base; 1 for a base.
        seed: of weights, noise and data order.
        parameters: how many it trains.
        steps: planned optimizer steps.
        batch: sequences per step.
        context: tokens per sequence.
        learning_rate: the highest of the schedule.
        warmup: steps.
        corpus: digest of the tokens.
        command: that made it.
        recipe: how a wide model got its first weights; None for a base.
        base: name of the run a clone was made from.
        other_bases: names of runs that it was made from besides; each had as much training.
        base_label: of how that base was trained; None where the run depends on no base.
        measured_from: label of the base whose last loss gaps are measured from, where it is not that one's.
        budget: its steps, where a study gives its recipe several; see ``graphclone.study.curves``.
        rate: factor of its recipe's learning rate, where a study tries several.
        scores: accuracy and its standard error, if known, by downstream task; see ``graphclone.study.tasks``.
        evaluations: ascending by step.
    """

    name: str
    kind: str
    model: str
    factor: int
    seed: int
    parameters: int
    steps: int
    batch: int
    context: int
    learning_rate: float
    warmup: int
    corpus: str
    command: str
    recipe: str | None = None
    base: str | None = None
    other_bases: Sequence[str] = ()
    base_label: str | None = None
    measured_from: str | None = None
    budget: int | None = None
    rate: float = 1.0
    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    evaluations: tuple[Evaluation, ...] = field(default=(), repr=False)

    @property
    def finished(self) -> bool:
        """Whether the last planned step was evaluated."""
        return bool(self.evaluations) and self.evaluations[-1].step == self.steps

    @cached_property
    def curve(self) -> Curve:
        """Losses as they were measured."""
        return [(evaluation.step, evaluation.loss) for evaluation in self.evaluations]

    @cached_property
    def smooth(self) -> Curve:
        """Losses without spikes; see ``smoothed``."""
        return smoothed(self.curve)

    def compute(self, step: float) -> float:
        """Floating point operations of training up to a step, 6 per parameter and token (Kaplan et al. 2020)."""
        return 6.0 * self.parameters * step * self.batch * self.context


# --- Reading ---


def read_runs(folder: Path) -> list[Run]:
    """Every run of a study, by name; those that are under way, too.

    Raises:
        GraphcloneError: the folder holds no runs, or a file of one is damaged.
    """
    paths = sorted((folder / "runs").glob("*/run.json"))
    if not paths:
        raise GraphcloneError(f"{folder}: no runs/*/run.json in it; give the output folder of a study")
    return sorted((read_run(path.parent) for path in paths), key=lambda run: run.name)


def read_run(folder: Path) -> Run:
    """One run. Its last line may be torn while the run is under way, and does not count then.

    Raises:
        GraphcloneError: a file of it is damaged.
    """
    path = folder / "run.json"
    entries = _entry(Run, _parsed(_text(path), str(path)), str(path))
    run = Run(**entries)
    return Run(**entries, evaluations=_evaluations(folder / "metrics.jsonl", run.steps))


def _evaluations(path: Path, steps: int) -> tuple[Evaluation, ...]:
    lines = _text(path).split("\n") if path.exists() else [""]
    last = lines.pop()  # what follows the last newline: nothing, if the last line was written to its end
    evaluations: list[Evaluation] = []
    for number, line in enumerate(lines, 1):
        _append(evaluations, line, f"{path}, line {number}")
    done = bool(evaluations) and evaluations[-1].step == steps
    if last and (done or _whole(last)):
        _append(evaluations, last, f"{path}, line {len(lines) + 1}")
    return tuple(evaluations)


def _whole(line: str) -> bool:
    """Whether a line was written to its end. The newline may be missing."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _append(evaluations: list[Evaluation], line: str, where: str) -> None:
    evaluation = Evaluation(**_entry(Evaluation, _parsed(line, where), where))
    if evaluations and evaluation.step <= evaluations[-1].step:
        raise GraphcloneError(f"{where}: step {evaluation.step} follows step {evaluations[-1].step}; steps must ascend")
    evaluations.append(evaluation)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphcloneError(f"{path}: cannot be read ({error}); remove the run's folder to do it again") from error


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise GraphcloneError(f"{where}: damaged, no JSON ({error}); remove the run's folder to do it again") from error
    if not isinstance(parsed, dict):
        raise GraphcloneError(f"{where}: expected a JSON object; remove the run's folder to do it again")
    return parsed


_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "Sequence[str]": (list,),
    "float | None": (int, float, type(None)),
    "Mapping[str, Sequence[float | None]]": (dict,),
}
"""What JSON may hold for a field, by the field's annotation."""


def _entry(cls: type[Any], entries: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The entries that a dataclass has fields for, checked; others are somebody else's."""
    values = {}
    for item in fields(cls):
        if item.name == "evaluations":  # which a file of its own has
            continue
        kinds = _KINDS[str(item.type)]
        if item.name not in entries:
            if item.default is MISSING and item.default_factory is MISSING:
                raise GraphcloneError(f"{where}: '{item.name}' is missing; remove the run's folder to do it again")
            continue
        value = entries[item.name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise GraphcloneError(f"{where}: '{item.name}' is {value!r}, expected {item.type}")
        values[item.name] = value
    return values


# --- Curves ---


def smoothed(curve: Curve, window: int = WINDOW) -> Curve:
    """The centred running median, over a window that shrinks towards both ends and stays centred.

    A median, because it leaves every falling curve exactly as it is, where a mean would lift a convex one and move
    its crossings, and because a spike of up to two evaluations leaves no trace. The window stays centred, so that
    neither end is biased: the first and the last value are as measured.

    Args:
        curve: steps and losses.
        window: evaluations, odd.
    """
    losses = [loss for _, loss in curve]
    last, radius = len(losses) - 1, window // 2
    reach = [min(radius, at, last - at) for at in range(len(losses))]
    return [
        (step, statistics.median(losses[at - near : at + near + 1]))
        for at, ((step, _), near) in enumerate(zip(curve, reach, strict=True))
    ]


def crossing(curve: Curve, level: float) -> float | None:
    """The step from which on a curve is at or below a level for good, between evaluations by linear interpolation.

    That is its last crossing, not its first: a clone may begin below the level, forget while the learning rate warms
    up, and come back, and to call its first step the one where it got there would flatter it.

    Returns:
        None where the curve ends above the level, or is empty.
    """
    if not curve or not curve[-1][1] <= level:
        return None
    at = len(curve) - 1
    while at and curve[at - 1][1] <= level:
        at -= 1
    step, loss = curve[at]
    if not at:
        return float(step)
    before, above = curve[at - 1]
    if math.isinf(above):
        return float(step)
    return before + (step - before) * (above - level) / (above - loss)


@dataclass(frozen=True)
class Speedup:
    """The speedup of a clone: how much sooner it is where the random wide model ends.

    Attributes:
        level: the loss at which the random wide model ends, in nats per token.
        random_steps: from which on the random wide model is at the level or below for good.
        clone_steps: from which on the clone is at the level or below for good; None where it ends above.
        ratio: of these steps; None where there are none, or the clone needs none.
        ratio_with_base: of the compute to get there, the base's whole training counted as the clone's; None where
            the clone never gets there, or the base is not known or not finished.
        begins_below: whether the clone is at the level or below before its first step.
        meaningful: whether the random wide model ends clearly below the base. Where it does not, what the base
            had learned is all that the level asks for, and how soon a clone has it says nothing about growing.
    """

    level: float
    random_steps: float
    clone_steps: float | None
    ratio: float | None
    ratio_with_base: float | None
    begins_below: bool
    meaningful: bool


def speedup(random: Run, clone: Run, base: Run | None) -> Speedup:
    """Compare a clone with the random wide model (HyperCloning, arXiv 2409.12903, section 4).

    Clearly below the base is ``MARGIN`` below, or twice the base's own noise if that is more. Without a base the
    loss that the clone begins with stands for it, for a clone begins as its base ended.

    Args:
        random: finished.
        clone: finished.
        base: that the clone was made from, finished; None if there is none.

    Raises:
        ValueError: a run has no evaluation.
    """
    if not random.evaluations or not clone.evaluations:
        raise ValueError("a run without evaluations cannot be compared")
    level = random.smooth[-1][1]
    random_steps = crossing(random.smooth, level) or 0.0
    clone_steps = crossing(clone.smooth, level)
    before = None if base is None else base.compute(base.steps) * (1 + len(clone.other_bases))
    spent = None if clone_steps is None or before is None else clone.compute(clone_steps) + before
    base_loss = base.smooth[-1][1] if base and base.evaluations else clone.smooth[0][1]
    return Speedup(
        level=level,
        random_steps=random_steps,
        clone_steps=clone_steps,
        ratio=random_steps / clone_steps if clone_steps else None,
        ratio_with_base=random.compute(random_steps) / spent if spent else None,
        begins_below=clone.smooth[0][1] <= level,
        meaningful=level < base_loss - max(MARGIN, 2 * noise(base) if base else 0.0),
    )


def noise(run: Run) -> float:
    """The deviation of the later half of a run's losses from its smoothed curve: root mean square, nats per token."""
    half = len(run.curve) // 2
    squares = [
        (loss - smooth) ** 2
        for (_, loss), (_, smooth) in zip(run.curve[half:], run.smooth[half:], strict=True)
        if math.isfinite(loss - smooth)
    ]
    return math.sqrt(statistics.fmean(squares)) if squares else 0.0


@dataclass(frozen=True)
class Dip:
    """The rise of a clone's loss before it falls.

    Attributes:
        rise: of the loss above what it begins with, in nats per token; 0 if it never rises.
        recovered: the step from which on it is back for good; 0 if it never rises, None if it does not come back.
    """

    rise: float
    recovered: float | None


def dip(run: Run) -> Dip:
    """The highest loss in the first half of a run above its first, and when that is made up for.

    From losses as measured: a rise that lasts for one evaluation is what is looked for, not noise to be smoothed.
    """
    if not run.evaluations:
        return Dip(0.0, None)
    start = run.curve[0][1]
    early = [loss for step, loss in run.curve if 2 * step <= run.steps]
    return Dip(max(0.0, max(early, default=start) - start), crossing(run.curve, start))


def final_loss(run: Run) -> float:
    """The loss at which a run ends, smoothed, in nats per token; infinite for one that diverged.

    Raises:
        ValueError: the run has no evaluation.
    """
    if not run.evaluations:
        raise ValueError(f"{run.name} has no evaluation")
    return run.smooth[-1][1]


@dataclass(frozen=True)
class Spread:
    """A mean over seeds.

    Attributes:
        mean: over all values.
        deviation: of the sample (n - 1); None for a single value.
        count: how many values.
        low: the least.
        high: the greatest.
    """

    mean: float
    deviation: float | None
    count: int
    low: float
    high: float

    def __str__(self) -> str:
        """The mean, and the deviation where there is one."""
        return f"{self.mean:.3f}" + (f" ± {self.deviation:.3f}" if self.deviation is not None else "")


def spread(values: Iterable[float | None]) -> Spread | None:
    """The mean of the values that are there, None where there are none."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    finite = len(numbers) > 1 and all(math.isfinite(value) for value in numbers)
    deviation = statistics.stdev(numbers) if finite else None
    return Spread(statistics.fmean(numbers), deviation, len(numbers), min(numbers), max(numbers))


# --- What is compared with what ---


@dataclass(frozen=True)
class RunGroup:
    """Wide runs of one model, one factor and one way to train the base; finished ones only.

    Attributes:
        model: label of the architecture.
        factor: how much wider.
        base_label: of how the base was trained; None where no run depends on a base.
        bases: the base runs, over seeds.
        recipes: the wide runs by recipe, each over seeds; see ``in_order``.
    """

    model: str
    factor: int
    base_label: str | None
    bases: tuple[Run, ...]
    recipes: Mapping[str, tuple[Run, ...]]

    @property
    def slug(self) -> str:
        """The stem of the names of files about the group."""
        parts = (self.model, f"{self.factor}x", self.base_label)
        return "-".join(part for part in parts if part is not None)

    def speedups(self, recipe: str) -> list[Speedup]:
        """The speedup of every clone by a recipe over the random run with its seed and corpus, where there is one."""
        partners = {(run.seed, run.corpus): run for run in self.recipes.get(RANDOM, ())}
        bases = {run.name: run for run in self.bases}
        return [
            speedup(partners[run.seed, run.corpus], run, bases.get(run.base or ""))
            for run in self.recipes[recipe]
            if recipe != RANDOM and (run.seed, run.corpus) in partners
        ]


def comparisons(runs: Iterable[Run]) -> list[RunGroup]:
    """Group the finished runs by model, factor and label of the base.

    A random run that depends on no base is part of every comparison of its model and factor. Runs with a budget or a
    rate of their own are compared elsewhere, in ``graphclone.study.curves``, and so are random runs that none but those
    are compared with.
    """
    runs = list(runs)
    finished = [run for run in runs if run.finished and run.kind != "control" and run.budget is None and run.rate == 1]
    wide = [run for run in finished if run.kind == "wide"]
    places = {(run.model, run.factor, run.base_label) for run in wide}
    compared = {(model, factor) for model, factor, label in places if label is not None}
    compared |= {(run.model, run.factor) for run in runs if run.kind == "wide" and run.budget is not None}
    shown = [place for place in places if place[2] is not None or place[:2] not in compared]
    return [_comparison(finished, *place) for place in sorted(shown, key=lambda place: (*place[:2], place[2] or ""))]


def _comparison(finished: Iterable[Run], model: str, factor: int, label: str | None) -> RunGroup:
    recipes: dict[str, list[Run]] = {}
    bases = []
    for run in finished:
        if run.model != model or run.base_label not in {None, label}:
            continue
        if run.kind == "base":
            bases.append(run)
        elif run.factor == factor:
            recipes.setdefault(run.recipe or "", []).append(run)
    return RunGroup(model, factor, label, tuple(bases), {name: tuple(recipes[name]) for name in in_order(recipes)})


def in_order(names: Iterable[str]) -> list[str]:
    """Names of recipes in the order of ``RECIPES``, which begins with random; a user's own come last."""
    places = {name: at for at, name in enumerate(RECIPES)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
