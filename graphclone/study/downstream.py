"""Scores on downstream tasks, by lm-evaluation-harness (``lm_eval``): of a study's models, or of any checkpoint."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphclone.errors import GraphcloneError, first_line
from graphclone.extras import required
from graphclone.study.markdown import with_error
from graphclone.study.models import logits

_BATCH = 64

_ERRORS = 1
"""What the harness must be told to give standard errors at all; those of means are computed, not drawn."""

_STDERR = 2
"""The descriptor that a process hands on to those that it starts."""

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_METRIC, _ERROR = "acc,none", "acc_stderr,none"


@dataclass(frozen=True)
class Score:
    """The score of a model on one task.

    Attributes:
        accuracy: in [0, 1].
        error: the standard error of it; None if the task has a single item, which shows no spread.
    """

    accuracy: float
    error: float | None

    def __str__(self) -> str:
        return with_error(self.accuracy, self.error)


def score_module(module: torch.nn.Module, folder: Path, names: Sequence[str], context: int) -> dict[str, Score]:
    """Scores of a module that was trained on bytes.

    Args:
        module: gives logits for tokens, which are bytes.
        folder: of the tasks; see ``graphclone.study.tasks``.
        names: of the tasks.
        context: tokens that it can see.

    Raises:
        GraphcloneError: lm_eval is not installed, or a task cannot be read.
    """
    training = module.training
    try:
        return _scores(_of_bytes(module.eval(), context), folder, names)
    finally:
        module.train(training)


def score_checkpoint(checkpoint: str, folder: Path, names: Sequence[str]) -> dict[str, Score]:
    """Scores of a Hugging Face checkpoint with a tokenizer, on tasks of one's own.

    Args:
        checkpoint: its folder.
        folder: of the tasks, a YAML file each as lm-evaluation-harness reads it.
        names: of the tasks.

    Raises:
        GraphcloneError: lm_eval is not installed, or the checkpoint or a task cannot be read.
    """
    harness = _harness("lm_eval.models.huggingface")
    try:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with _quiet():
            model = harness.HFLM(pretrained=checkpoint, batch_size=_BATCH, device=device)
    except Exception as error:  # whatever a class of transformers raises about a checkpoint of the user's
        raise GraphcloneError(f"{checkpoint}: cannot be loaded for scoring: {first_line(error)}") from error
    return _scores(model, folder, names)


def task_names(folder: Path) -> list[str]:
    """The tasks whose files lie in a folder.

    Raises:
        GraphcloneError: there are none.
    """
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    if not names:
        raise GraphcloneError(f"{folder}: holds no task; a task is a .yaml file as lm-evaluation-harness reads it")
    return names


def _harness(module: str) -> Any:
    required("lm_eval", "eval", "a score")
    return importlib.import_module(module)


def _scores(model: Any, folder: Path, names: Sequence[str]) -> dict[str, Score]:
    harness, tasks = _harness("lm_eval"), _harness("lm_eval.tasks")
    with _quiet():
        try:
            manager = tasks.TaskManager(include_path=str(folder), include_defaults=False)
            found: Mapping[str, Any] = harness.simple_evaluate(
                model, tasks=list(names), task_manager=manager, log_samples=False, bootstrap_iters=_ERRORS
            )
        except Exception as error:  # of a task that somebody else wrote
            raise GraphcloneError(f"{folder}: tasks cannot be scored: {first_line(error)}") from error
    results = {name: found["results"][name] for name in names}
    missing = [name for name, result in results.items() if _METRIC not in result]
    if missing:
        raise GraphcloneError(f"{folder}: task {missing[0]} has no accuracy; give it the metric 'acc'")
    return {name: Score(float(result[_METRIC]), _known(result[_ERROR])) for name, result in results.items()}


def _known(error: float | str) -> float | None:
    """A standard error; the harness says N/A of a single item."""
    return None if isinstance(error, str) else float(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is asked of any hub, and nothing is said but what is wrong."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), _silent_children():
            yield
    finally:
        logging.disable(disabled)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _silent_children() -> Iterator[None]:
    """What processes of others write to the standard error is lost: the harness asks git for the folder's commit."""
    kept = os.dup(_STDERR)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)


def _of_bytes(module: torch.nn.Module, context: int) -> Any:
    """What the harness asks for likelihoods; a class of its own, as its base is imported only when it is needed."""
    base = _harness("lm_eval.api.model").TemplateLM

    class OfBytes(base):  # type: ignore[misc, valid-type]
        @property
        def eot_token_id(self) -> int:
            return 0  # what parts two documents of a corpus

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:  # noqa: ARG002
            return list(string.encode("latin-1"))

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:  # noqa: ARG002
            pairs = [(before, after) for _, before, after in requests]
            answers: list[tuple[float, bool]] = []
            for first in range(0, len(pairs), _BATCH):
                answers += likelihoods(module, pairs[first : first + _BATCH], context)
            return answers

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError("tasks of choices ask for no rolling likelihood")

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError("tasks of choices ask for no generated text")

    return OfBytes()


@torch.no_grad()
def likelihoods(
    module: torch.nn.Module, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], context: int
) -> list[tuple[float, bool]]:
    """Log likelihood of each continuation after its context, in nats, and whether it is the likeliest throughout.

    Args:
        module: gives logits for tokens.
        pairs: the tokens of a context and of its continuation; neither is empty.
        context: tokens that the module can see; longer pairs lose their beginning.
    """
    device = next(module.parameters()).device
    rows = [[*before, *after][-context - 1 :] for before, after in pairs]
    longest = max(map(len, rows))
    padded = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    table = logits(module, padded[:, :-1]).float().log_softmax(-1)
    answers = []
    for at, (row, (_, after)) in enumerate(zip(rows, pairs, strict=True)):
        places = slice(len(row) - len(after) - 1, len(row) - 1)
        own, wanted = table[at, places], padded[at, len(row) - len(after) : len(row)]
        total = own.gather(-1, wanted[:, None]).sum()
        answers.append((float(total), bool((own.argmax(-1) == wanted).all())))
    return answers
