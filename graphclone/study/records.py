"""What a study leaves of its runs, read back.

A run is a folder with ``run.json``, what the run is, and ``metrics.jsonl``, one JSON object per evaluation. Losses
are validation losses in nats per token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from graphclone.errors import GraphcloneError
from graphclone.study.smoothing import Curve, smoothed


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

    @property
    def bases(self) -> int:
        """How many runs it was made from."""
        return 0 if self.base is None else 1 + len(self.other_bases)

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
