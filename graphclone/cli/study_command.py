"""Studies, from the command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from graphclone import report as pages
from graphclone import terminal
from graphclone.cli.arguments import StudyArguments
from graphclone.runtime.ranks import rank_of_environment
from graphclone.study.config import read
from graphclone.study.execute import StudyProgress, run_study
from graphclone.study.page import page_of_study
from graphclone.study.recipes import RECOMMENDED
from graphclone.study.records import read_runs


def study(arguments: StudyArguments) -> int:
    """Train everything, and show the report."""
    definition = read(arguments.study)
    recipe = arguments.recipe or RECOMMENDED
    folder = Path(arguments.output or f"study-{Path(arguments.study).stem}")
    if arguments.html is not None:
        pages.check_target(Path(arguments.html))
    words = ["graphclone", "study", arguments.study]  # the record lies in the folder, wherever that is moved
    words += ["--recipe", recipe] if arguments.recipe else []
    first = rank_of_environment() == 0  # what several processes have done is shown by one of them
    with _bars() if first and sys.stderr.isatty() else nullcontext() as tell:
        path = run_study(
            definition, folder, recipe=recipe, at_once=arguments.jobs, command=shlex.join(words), progress=tell
        )
    if not first:
        return 0
    if arguments.html is not None:
        pages.write_study(f"Study {Path(arguments.study).stem}", page_of_study(read_runs(folder)), Path(arguments.html))
    if arguments.json:
        terminal.show_json({"folder": str(folder), "report": str(path)})
    else:
        terminal.show_text(path.read_text(encoding="utf-8"))
        terminal.show_text(f"written to {path}")
    return 0


@contextmanager
def _bars() -> Iterator[StudyProgress]:
    """A bar for every run in progress, with its loss and the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    tasks = {}
    with Bars(*columns, console=Console(file=sys.stderr), transient=True) as bars:

        def tell(run: str, what: str, done: int, total: int) -> None:
            if run not in tasks:
                tasks[run] = bars.add_task(run, total=None)
            bars.update(tasks[run], description=f"{run}: {what}", completed=done, total=total or None)
            if what == "done":
                bars.remove_task(tasks.pop(run))

        yield tell
