"""Do all runs of a study, one after another or several at a time, going on where an earlier call stopped."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from graphclone.errors import GraphcloneError
from graphclone.extras import required
from graphclone.study.config import Study
from graphclone.study.recipes import GROWN, RECOMMENDED
from graphclone.study.runs import Job, Place, do
from graphclone.study.runs import jobs as all_jobs
from graphclone.study.tables import REPORT, write_report

StudyProgress = Callable[[str, str, int, int], None]
"""Told which run, what it does, how many steps are done, and how many there are; a run ends with all of them done."""


def run_study(
    study: Study,
    folder: str | Path,
    *,
    recipe: str = RECOMMENDED,
    at_once: int = 1,
    command: str = "graphclone.study.run_study",
    progress: StudyProgress | None = None,
) -> Path:
    """Train every model of a study that is not trained yet, and write the report.

    Base models are trained first; then, under one schedule, data order and seed, the wide model from random weights
    and from each clone (HyperCloning, arXiv 2409.12903, section 4). The processes that ``torchrun`` or
    ``accelerate launch`` started, on CPUs or GPUs, share every run.

    Args:
        study: what to run.
        folder: of the runs; what is finished there is kept, what was stopped goes on.
        recipe: what is compared with random weights where a comparison names no recipes.
        at_once: how many runs to do at a time, each in a process with its share of the threads.
        command: what the record says.
        progress: a callback that is told how many steps of each run are done.

    Returns:
        The path of the report, which the first process has written.

    Raises:
        GraphcloneError: a model cannot be built, widened or trained, or the folder is another study's.
    """
    required("accelerate", "study", "a study")
    from accelerate import PartialState

    processes = PartialState(cpu=not torch.accelerator.is_available())  # it finds those on CPUs only if told so
    if at_once > 1 and processes.num_processes > 1:
        raise GraphcloneError("several processes share every run; do one run at a time")
    if study.downstream.items and processes.num_processes > 1:
        raise GraphcloneError("[downstream]: models are scored in one process; run the study in one, or leave it out")
    place, jobs = Place(Path(folder), study, command), all_jobs(study, recipe)
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphcloneError(f"{folder}: cannot be written to: {error.strerror}") from error
    todo = _todo(jobs, place)
    tell = progress or _silent
    if at_once == 1:
        for job in todo:
            do(job, place, partial(tell, job.name))
            tell(job.name, "done", 1, 1)
    else:
        _pooled(todo, place, at_once, tell)
    if processes.is_main_process:
        write_report(place.folder)
    processes.wait_for_everyone()
    return place.folder / REPORT


def _todo(jobs: Sequence[Job], place: Place) -> list[Job]:
    """What is not finished, and the bases that it needs, if their weights were not kept with their records."""
    open_jobs = {job.name for job in jobs if not place.finished(job)}
    needs = [(job, base.name) for job in jobs if job.name in open_jobs for base in job.needs]
    bases = {base for _, base in needs}
    grown = {base for job, base in needs if job.recipe and job.recipe.optimizer == GROWN}
    return [
        job
        for job in jobs
        if job.name in open_jobs or (job.name in bases and not place.trained(job, optimizer=job.name in grown))
    ]


def _silent(run: str, what: str, done: int, total: int) -> None:
    """A progress that tells nobody."""


# Several at a time


def _pooled(todo: Sequence[Job], place: Place, at_once: int, tell: StudyProgress) -> None:
    """Every job as soon as its base is trained."""
    place.corpus()  # once, rather than in every process
    context = multiprocessing.get_context("spawn")
    threads = max(torch.get_num_threads() // at_once, 1)
    with _told(context, tell) as queue:
        pool = ProcessPoolExecutor(at_once, context, initializer=_begin, initargs=(queue, threads))
        try:
            _scheduled(pool, todo, place, at_once, tell)
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()  # a run that is stopped goes on from its last evaluation
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _scheduled(pool: ProcessPoolExecutor, todo: Sequence[Job], place: Place, at_once: int, tell: StudyProgress) -> None:
    """Keep so many going, each time with the first that need not wait."""
    waiting, running = list(todo), dict[Future[None], Job]()
    while waiting or running:
        unfinished = {job.name for job in (*waiting, *running.values())}
        ready = [job for job in waiting if unfinished.isdisjoint(base.name for base in job.needs)]
        for job in ready[: at_once - len(running)]:
            waiting.remove(job)
            running[pool.submit(_do, job, place)] = job
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            tell(running.pop(future).name, "done", 1, 1)


_queue: Any = None
"""The queue in which a process of the pool reports its progress."""


def _begin(queue: Any, threads: int) -> None:
    global _queue  # noqa: PLW0603 (an initializer has no other way to hand something to the calls that follow)
    _queue = queue
    torch.set_num_threads(threads)
    logging.disable(logging.WARNING)  # as the command line does, where it was not asked to --debug
    warnings.simplefilter("ignore")
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End with the process that began this one, even if it was killed: nobody would know of what goes on here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(job: Job, place: Place) -> None:
    do(job, place, lambda what, done, total: _queue.put((job.name, what, done, total)))


@contextmanager
def _told(context: Any, tell: StudyProgress) -> Iterator[Any]:
    """A queue whose messages are passed on while the block runs."""
    with context.Manager() as manager:
        queue = manager.Queue()
        thread = threading.Thread(target=_pass_on, args=(queue, tell), daemon=True)
        thread.start()
        try:
            yield queue
        finally:
            queue.put(None)
            thread.join()


def _pass_on(queue: Any, tell: StudyProgress) -> None:
    for message in iter(queue.get, None):
        tell(*message)
