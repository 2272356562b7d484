"""The runs of a study, and what each does: base models first, then the wide models that start from them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_model, save_file

from graphclone.errors import GraphcloneError
from graphclone.optimizers.slowing import slow
from graphclone.progress import Progress, silent
from graphclone.runtime.files import written
from graphclone.study.config import WIDTH, Base, Cell, Model, Study, Training
from graphclone.study.corpus import Corpus, prepare
from graphclone.study.models import Averaged, Family
from graphclone.study.recipes import CONTINUED, FRESH, GROWN, RANDOM, RECOMMENDED, WARM, Recipe
from graphclone.study.sharding import OPTIMIZER, keep_optimizer, load_optimizer, untied
from graphclone.study.symmetry import measure, recipes_of
from graphclone.study.training import Lesson, adamw, forget_states, last_state, train

if TYPE_CHECKING:
    from graphclone.algebra.recipes import Widening
    from graphclone.clones.clone import Clone

RUN, WEIGHTS = "run.json", "weights.safetensors"

_WARM_BATCHES = 30
"""What the moments of an optimizer are measured on."""

_WIDE_DATA = 1_000_000
"""Added to the seed of the data that wide models see, so that a clone does not begin with what its base began with."""


@dataclass(frozen=True)
class Job:
    """One model to be trained.

    Attributes:
        model: what it is.
        base: how a base model is trained, or the one that is cloned; None for a wide model with random weights.
        factor: 1 for a base.
        recipe: None for a base.
        seed: of weights, order of the data, and noise.
        training: how it is trained.
        needs: the jobs that train what it starts from; the first trains what is cloned.
        budget: its steps, where they are not the study's.
        rate: factor of its recipe's learning rate.
    """

    model: Model
    base: Base | None
    factor: int
    recipe: Recipe | None
    seed: int
    training: Training
    needs: tuple[Job, ...] = ()
    budget: int | None = None
    rate: float = 1.0

    @property
    def name(self) -> str:
        """The name of the run and of its folder."""
        parts = [self.model.name, f"{self.factor}x"]
        parts += [self.base.name] if self.base else []
        parts += [self.recipe.name] if self.recipe else ["base"]
        parts += [f"b{self.budget}"] if self.budget is not None else []
        parts += [f"r{self.rate:g}"] if self.rate != 1 else []
        return "-".join((*parts, f"s{self.seed}"))


def jobs(study: Study, recipe: str = RECOMMENDED) -> list[Job]:
    """Every run of a study once, in the order of its grids; each base before what is cloned from it.

    Args:
        study: the grids.
        recipe: what is compared with random weights where a grid names no recipes.
    """
    by_name: dict[str, Job] = {}
    for cell in study.cells(recipe):
        first, *others = [
            Job(cell.model, cell.base, 1, None, cell.seed + number, _of_base(study.training, cell.base))
            for number in range(max(1, cell.recipe.bases))
        ]
        by_name |= {job.name: job for job in (first, *others, _of_cell(study.training, cell, (first, *others)))}
    return list(by_name.values())


def _of_cell(training: Training, cell: Cell, bases: tuple[Job, ...]) -> Job:
    """The job of one place of a grid."""
    recipe = cell.recipe
    own = replace(
        training,
        steps=training.steps if cell.budget is None else cell.budget,
        learning_rate=training.learning_rate * recipe.learning_rate * cell.rate,
        warmup=training.warmup if recipe.warmup is None else recipe.warmup,
        weight_decay=training.weight_decay if recipe.weight_decay is None else recipe.weight_decay,
    )
    job = Job(cell.model, cell.base, cell.factor, recipe, cell.seed, own, bases, cell.budget, cell.rate)
    if recipe.strategy == RANDOM:
        return replace(job, base=None, needs=())
    return replace(job, factor=1) if recipe.strategy == CONTINUED else job


def _of_base(training: Training, base: Base) -> Training:
    rate = training.learning_rate if base.learning_rate is None else base.learning_rate
    final = training.final if base.final is None else base.final
    return replace(training, steps=base.steps, learning_rate=rate, final=final)


# Doing it


@dataclass(frozen=True)
class Place:
    """The folder of a study.

    Attributes:
        folder: of all its runs.
        study: what it is.
        command: that does it again, for the record.
    """

    folder: Path
    study: Study
    command: str

    def of(self, job: Job) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / job.name

    def corpus(self) -> Corpus:
        """The tokens, prepared on the first call."""
        return prepare(self.study.data.source, self.folder / "corpus")

    def finished(self, job: Job) -> bool:
        """Whether there is nothing left to do for a run.

        Raises:
            GraphcloneError: what is there was made by another study.
        """
        path = self.of(job) / RUN
        if not path.exists():
            return False
        record, expected = _record(path), self.described(job)
        if changed := [key for key in expected if record.get(key) != expected[key]]:
            key = changed[0]
            raise GraphcloneError(
                f"{path}: was run with {key} = {record.get(key)!r}, but now it is {expected[key]!r}; "
                "give another folder with -o, or remove this run"
            )
        return bool(record.get("finished"))

    def described(self, job: Job) -> dict[str, Any]:
        """The settings that must be the same for a run to go on."""
        data = self.study.data
        return {**_described(job), "context": data.context, "validation": data.validation}

    def trained(self, job: Job, *, optimizer: bool) -> bool:
        """Whether the weights of a base are there to be cloned, and the state of its optimizer, if that is wanted."""
        return all((self.of(job) / name).exists() for name in (WEIGHTS, *([OPTIMIZER] if optimizer else [])))


def do(job: Job, place: Place, progress: Progress = silent) -> None:
    """Train one model, or go on with it; its base must be there.

    Raises:
        GraphcloneError: the model cannot be built, widened or trained; or another process is at it.
    """
    from accelerate import PartialState

    folder, study = place.of(job), place.study
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        progress("preparing", 0, 0)
        with PartialState().main_process_first():  # the others find the corpus and the configuration ready
            corpus = place.corpus()
            family = Family(job.model, corpus.vocabulary, study.data.context, place.folder / "models")
            module, widenings, optimizer = _start(job, family, place, corpus)
        recipe = job.recipe or Recipe("base")
        record = {
            **place.described(job),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "corpus": corpus.digest,
            "command": place.command,
            "processes": PartialState().num_processes,
        }
        _write_json(folder / RUN, record)
        lesson = Lesson(
            corpus,
            study.data.context,
            study.data.validation,
            job.training,
            job.seed + (_WIDE_DATA if job.recipe else 0),
            recipe.dropout,
            recipe.dropout_steps,
            _WARM_BATCHES if recipe.optimizer == WARM else 0,
        )
        weights = train(
            module, lesson, folder, lambda all_: measure(untied(module, all_).items(), widenings), progress, optimizer
        )
        _finish(job, folder, untied(module, weights), {**record, **_scored(module, corpus, place)})


def _scored(module: torch.nn.Module, corpus: Corpus, place: Place) -> dict[str, Any]:
    """What a trained model scores on the tasks of a study, for its record.

    Raises:
        GraphcloneError: the corpus is no text; or lm_eval is missing.
    """
    from graphclone.study.downstream import score_module
    from graphclone.study.tasks import write_tasks

    count, context = place.study.downstream.items, place.study.data.context
    if not count:
        return {}
    if not corpus.text:
        raise GraphcloneError("[downstream]: tasks are made of text, and this corpus holds tokens; leave it out")
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        names = write_tasks(corpus.validation.tobytes(), Path(folder), context=context, count=count)
        found = score_module(module, Path(folder), names, context) if names else {}
    return {"scores": {name: [score.accuracy, score.error] for name, score in found.items()}}


def _start(
    job: Job, family: Family, place: Place, corpus: Corpus
) -> tuple[torch.nn.Module, dict[str, Widening], torch.optim.Optimizer | None]:
    """The model before its first step, how its weights were widened if it is a clone, and an optimizer that goes on."""
    if job.recipe is None or not job.needs:
        return family.build(job.factor, job.seed), {}, None
    bases = [family.build(1, base.seed) for base in job.needs]
    for module, base in zip(bases, job.needs, strict=True):
        load_model(module, place.of(base) / WEIGHTS)
    if not job.recipe.clones:
        return bases[0] if len(bases) == 1 else Averaged(bases), {}, None

    def batch(number: int) -> torch.Tensor:
        """Of those that training does not come to."""
        step = job.training.steps + number
        return corpus.batch(step, job.training.batch, place.study.data.context, job.seed + _WIDE_DATA)

    wide, clone = family.clone(bases, job.factor, job.recipe, job.seed, batch)
    optimizer = _grown(clone, bases[0], wide, job.needs[0], place) if job.recipe.optimizer == GROWN else None
    if job.recipe.copies < 1:
        if job.training.shard:
            raise GraphcloneError(f"recipe {job.recipe.name}: copies takes whole models; leave out shard")
        optimizer = optimizer or adamw(wide, job.training)
        slow(clone.parameters, optimizer, wide, job.recipe.copies)
    return wide, recipes_of(clone), optimizer


def _grown(
    clone: Clone, small: torch.nn.Module, wide: torch.nn.Module, base: Job, place: Place
) -> torch.optim.Optimizer:
    """The optimizer of a base, grown, in the groups that every run has.

    Raises:
        GraphcloneError: the base was taken as it is, or its gradients say nothing about the clone's.
    """
    if not base.training.steps:
        raise GraphcloneError(f"{base.name}: was not trained here, so it has no optimizer to be grown")
    from graphclone.api import grow_optimizer

    optimizer = adamw(small, base.training)
    load_optimizer(small, optimizer, place.of(base))
    return grow_optimizer(clone, optimizer, wide, rule="same")


def _finish(job: Job, folder: Path, weights: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        if job.recipe is None:
            with written(folder / WEIGHTS) as partial:
                save_file(weights, partial)
            if (state := last_state(folder)) is not None:
                keep_optimizer(state, folder)
        _write_json(folder / RUN, {**record, "finished": True})
        forget_states(folder)
    PartialState().wait_for_everyone()


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GraphcloneError(f"{path}: cannot be read ({error}); remove the run's folder to do it again") from error
    if not isinstance(record, dict):
        raise GraphcloneError(f"{path}: is no record of a run; remove the run's folder to do it again")
    return {"shard": False, **record}  # older records do not say so


def _described(job: Job) -> dict[str, Any]:
    return {
        "name": job.name,
        "kind": _kind(job),
        "model": job.model.name,
        "source": job.model.source,
        "fields": dict(job.model.fields),
        "recipe": job.recipe.name if job.recipe else None,
        "strategy": job.recipe.strategy if job.recipe else None,
        "snr_db": job.recipe.snr_db if job.recipe else None,
        "dropout": job.recipe.dropout if job.recipe else 0.0,
        "dropout_steps": job.recipe.dropout_steps if job.recipe else 0,
        "factor": job.factor,
        "base": job.needs[0].name if job.needs else None,
        "base_label": job.base.name if job.base else None,
        "seed": job.seed,
        **({"dims": list(job.model.dims)} if job.model.dims else {}),
        **({"grows": job.model.grows} if job.model.grows != WIDTH else {}),
        **({"other_bases": [other.name for other in job.needs[1:]]} if job.needs[1:] else {}),
        **({"copies": job.recipe.copies} if job.recipe and job.recipe.copies < 1 else {}),
        **({"optimizer": job.recipe.optimizer} if job.recipe and job.recipe.optimizer != FRESH else {}),
        **({"measured_from": job.base.measured_from} if job.base and job.base.measured_from else {}),
        **({"budget": job.budget} if job.budget is not None else {}),
        **({"rate": job.rate} if job.rate != 1 else {}),
        **{key: getattr(job.training, key) for key in Training.__dataclass_fields__},
    }


def _kind(job: Job) -> str:
    if job.recipe is None:
        return "base"
    return "control" if job.recipe.strategy == CONTINUED else "wide"


def _write_json(path: Path, record: dict[str, Any]) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        with written(path) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A run that nobody else is at; the processes of one launch share it."""
    from accelerate import PartialState

    if not PartialState().is_main_process:
        yield
        return
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise GraphcloneError(f"{folder}: another process is at this run; wait for it") from None
    try:
        yield
    finally:
        lock.release()
