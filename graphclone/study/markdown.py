"""Tables of a study's reports, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

from graphclone.study.records import Run


def files(runs: Sequence[Run], names: Sequence[str]) -> str:
    """The folders of some runs, as one pattern that no other run of the study matches, or one by one."""
    run_names = [run.name for run in runs]
    prefix = _common(run_names)
    suffix = _common([name[len(prefix) :][::-1] for name in run_names])[::-1]
    pattern = f"{prefix}*{suffix}"
    if len(run_names) > 1 and sum(fnmatchcase(name, pattern) for name in names) == len(run_names):
        return f"`runs/{pattern}`"
    return " ".join(f"`runs/{name}`" for name in run_names)


def _common(names: Sequence[str]) -> str:
    """The longest beginning that all names have."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in alike)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """A table whose source is readable, too. Columns are flush right, except those named in ``left``."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[at]) for line in lines)) for at in range(len(headings))]
    rule = ["-" * width if at in left else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    aligned = [
        [cell.ljust(widths[at]) if at in left else cell.rjust(widths[at]) for at, cell in enumerate(line)]
        for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def with_error(value: float, error: float | None) -> str:
    """A number with its standard error, if that is known."""
    return f"{value:.3f}" if error is None else f"{value:.3f} ± {error:.3f}"
