"""Train one model on Accelerate: a learning-rate schedule, evaluations, and a state to go on from."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from graphclone.errors import GraphcloneError
from graphclone.optimizers.warming import warm_moments
from graphclone.progress import Progress, silent
from graphclone.study.models import logits, losses
from graphclone.study.scores import Counts, scores
from graphclone.study.sharding import prepare_sharded

if TYPE_CHECKING:
    from graphclone.study.config import Training
    from graphclone.study.corpus import Corpus

METRICS = "metrics.jsonl"
_STATE = "state-"
_BETAS = (0.9, 0.95)

Measure = Callable[[Mapping[str, torch.Tensor]], dict[str, float | None]]
"""More numbers from the weights, by name."""


@dataclass(frozen=True)
class Lesson:
    """The course of one model's training.

    Attributes:
        corpus: what is learned.
        context: tokens of a sequence.
        validation: sequences of an evaluation, at most.
        training: how.
        seed: of the order of the data, and of dropout.
        dropout: probability on the input of every linear layer in the first steps.
        dropout_steps: how many.
        warm: batches that the optimizer sees at rate 0 before the first step.
    """

    corpus: Corpus
    context: int
    validation: int
    training: Training
    seed: int
    dropout: float = 0.0
    dropout_steps: int = 0
    warm: int = 0


def train(
    module: torch.nn.Module,
    lesson: Lesson,
    folder: Path,
    measure: Measure,
    progress: Progress = silent,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, torch.Tensor]:
    """Train a module, going on from the last state in the folder if there is one; its weights, on the main process.

    Every evaluation adds a line to ``metrics.jsonl`` and leaves a state, so that a run that is stopped at any moment
    goes on with the same curve. Of several processes each trains on its share of every batch.

    Args:
        module: in training mode, called with tokens.
        lesson: what and how.
        folder: of the run.
        measure: more numbers to write down with each evaluation.
        progress: told the step and the loss.
        optimizer: over the module's parameters, if it is one that has a state; its rates are those of the lesson.

    Raises:
        GraphcloneError: the batch cannot be shared evenly, or the loss is no longer a number.
    """
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    training = lesson.training
    precision = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(mixed_precision=precision, log_with="tensorboard", project_dir=str(folder))
    if training.batch % accelerator.num_processes:
        raise GraphcloneError(
            f"a batch of {training.batch} cannot be shared by {accelerator.num_processes} processes; "
            "make it a multiple of them"
        )
    set_seed(lesson.seed, device_specific=True)
    dropped = _Dropout(module)
    prepare = partial(prepare_sharded, accelerator) if training.shard else accelerator.prepare
    prepared, wrapped = prepare(module, optimizer or adamw(module, training))
    run = _TrainingRun(accelerator, prepared, wrapped, lesson, folder, measure)
    accelerator.init_trackers("tensorboard")
    resumed = run.resumed()
    if resumed is None and lesson.warm:
        warm_moments(wrapped, (run.loss(training.steps + batch) for batch in range(lesson.warm)))
    for step in range(resumed or 0, training.steps):
        if step % training.evaluate == 0 and step != resumed:
            run.evaluate(step)
        dropped.probability = lesson.dropout if step < lesson.dropout_steps else 0.0
        run.learn(step)
        progress(run.summary, step + 1, training.steps)
    if resumed != training.steps:
        run.evaluate(training.steps)
    for tracker in accelerator.trackers:  # end_training() would also part the processes, which have more runs to do
        tracker.finish()
    weights: dict[str, torch.Tensor] = accelerator.get_state_dict(prepared)
    accelerator.free_memory()
    return weights


def rate(step: int, training: Training) -> float:
    """The learning rate of a step: a linear warm-up, then half a cosine down to ``final`` of the peak."""
    if step < training.warmup:
        return training.learning_rate * (step + 1) / training.warmup
    done = (step - training.warmup) / max(training.steps - training.warmup, 1)
    return training.learning_rate * (training.final + (1 - training.final) * 0.5 * (1 + math.cos(math.pi * done)))


def adamw(module: torch.nn.Module, training: Training) -> torch.optim.Optimizer:
    """AdamW that spares biases and norms from decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], training.learning_rate, _BETAS, fused=True)


class _Dropout:
    """Dropout on the input of every linear layer, whatever the model's own code says; off until it is given a value."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.probability = 0.0
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.register_forward_pre_hook(self._drop)

    def _drop(self, layer: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not self.probability or not layer.training:
            return None
        return (F.dropout(args[0], self.probability), *args[1:])


@dataclass
class _TrainingRun:
    """One training in progress."""

    accelerator: Any
    module: torch.nn.Module
    optimizer: Any
    lesson: Lesson
    folder: Path
    measure: Measure
    summed: torch.Tensor | None = None
    count: int = 0
    summary: str = "training"

    def learn(self, step: int) -> None:
        """Take one optimizer step."""
        training = self.lesson.training
        for group in self.optimizer.param_groups:
            group["lr"] = rate(step, training)
        loss = self.loss(step)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.module.parameters(), training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss = loss.detach()
        self.summed = loss if self.summed is None else self.summed + loss
        self.count += 1
        if step % 10 == 0:  # each look makes a GPU wait
            self.summary = f"loss {float(loss):.3f}"

    def loss(self, step: int) -> torch.Tensor:
        """Of this process's share of a batch, in nats a token."""
        lesson = self.lesson
        tokens = lesson.corpus.batch(step, lesson.training.batch, lesson.context, lesson.seed)
        return losses(self.module, self._mine(tokens)).mean()

    def _mine(self, tokens: torch.Tensor) -> torch.Tensor:
        """This process's share of the sequences of a batch."""
        mine = tokens[self.accelerator.process_index :: self.accelerator.num_processes]
        return mine.to(self.accelerator.device)

    # Evaluation

    @torch.no_grad()
    def evaluate(self, step: int) -> None:
        """Add a line to the metrics and leave a state.

        Raises:
            GraphcloneError: the loss is no longer a number.
        """
        line = {"step": step, **self._line(step)}
        if not math.isfinite(line["loss"]):
            raise GraphcloneError(f"{self.folder.name}: the loss is {line['loss']} after {step} steps; lower the rate")
        weights = self.accelerator.get_state_dict(self.module)
        if self.accelerator.is_main_process:
            line |= self.measure(weights)
            with (self.folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: _short(value) for key, value in line.items()}) + "\n")
        self.accelerator.log({key: value for key, value in line.items() if value is not None}, step=step)
        if step:  # of an optimizer without a state, torch would save one that has taken a step
            self._save(step)

    def _line(self, step: int) -> dict[str, Any]:
        lesson, training = self.lesson, self.lesson.training
        self.module.eval()
        windows = self._mine(lesson.corpus.windows(lesson.validation, lesson.context))
        total, counts = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device), Counts()
        # of no sequences there is one split: a process without any still takes part in a sharded forward pass
        for tokens in windows.split(max(training.batch // self.accelerator.num_processes, 1)):
            predictions = logits(self.module, tokens[:, :-1]).float()
            total[0] += F.cross_entropy(predictions.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
            total[1] += tokens[:, 1:].numel()
            counts += scores(tokens, predictions.argmax(-1), lesson.corpus.text)
        self.module.train()
        total = self.accelerator.reduce(total)
        summed = self.accelerator.reduce(counts.as_tensor().to(self.accelerator.device))
        return {
            "tokens": step * training.batch * lesson.context,
            "loss": float(total[0] / total[1]),
            "train_loss": self._trained(),
            "learning_rate": rate(min(step, training.steps - 1), training),
            **Counts.from_tensor(summed.cpu()).rates(),
        }

    def _trained(self) -> float | None:
        """The mean loss of the steps since the last evaluation, over all processes."""
        if self.summed is None:
            return None
        mean = self.accelerator.reduce(self.summed / self.count, reduction="mean")
        self.summed, self.count = None, 0
        return float(mean)

    # States

    def _save(self, step: int) -> None:
        """Leave a state, which gets its name when it is whole, and forget the one before."""
        partial = self.folder / "state.partial"
        if self.accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            partial.rename(self.folder / f"{_STATE}{step}")
            for old, path in _states(self.folder).items():
                if old < step:
                    shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def resumed(self) -> int | None:
        """The step that was evaluated last, to go on from; the metrics of later ones are forgotten."""
        states = _states(self.folder)
        step = max(states, default=None)
        if step is not None:
            self.accelerator.load_state(str(states[step]))
        if self.accelerator.is_main_process:
            keep_until(self.folder / METRICS, step)
        self.accelerator.wait_for_everyone()
        return step


def _states(folder: Path) -> dict[int, Path]:
    """The whole states in a run's folder, by step."""
    candidates = ((path.name.removeprefix(_STATE), path) for path in folder.glob(f"{_STATE}*"))
    return {int(step): path for step, path in candidates if step.isdecimal()}


def last_state(folder: Path) -> Path | None:
    """The last whole state in a run's folder."""
    states = _states(folder)
    return states[max(states)] if states else None


def forget_states(folder: Path) -> None:
    """Remove what a finished run no longer needs."""
    for path in (*_states(folder).values(), folder / "state.partial"):
        shutil.rmtree(path, ignore_errors=True)


def keep_until(path: Path, step: int | None) -> None:
    """Keep the metrics up to a step, without those of a state that was never finished; None keeps nothing."""
    from graphclone.runtime.files import written

    if not path.exists():
        return
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if step is not None else ():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a run that was killed while it wrote
            break
        if line["step"] <= step:
            lines.append(text + "\n")
    with written(path) as partial:
        partial.write_text("".join(lines), encoding="utf-8")


def _short(value: Any) -> Any:
    """A number with as many digits as mean something."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
