"""Tables for people: what ``inspect``, ``clone``, ``passes`` and ``rules`` print."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from graphclone.clone import Clone
    from graphclone.inspection import Inspection, MissingRule, Row
    from graphclone.pipeline import Timing

_PIPE_WIDTH = 160
"""Columns where nothing says how wide the reader's screen is."""


def console() -> Console:
    """The standard output, as wide as the terminal or wide enough for files and pipes."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def show_json(value: object) -> None:
    """A value for machines."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def show_text(text: str) -> None:
    """Text as it is, never wrapped."""
    sys.stdout.write(text.rstrip("\n") + "\n")


def _table(*headings: str, title: str | None = None) -> Table:
    return Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """A moving bar with the time, on the standard error, while something takes long; only on a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        bar.add_task(text, total=None)
        yield


def show_inspection(inspection: Inspection, *, everything: bool = False) -> None:
    """The dims of a model, its parameters, notes, and what is in the way."""
    out = console()
    parameters = _short(inspection.parameters)
    out.print(f"{inspection.model}: {inspection.nodes} operations, {parameters} parameters")
    rows = [row for row in inspection.dims if everything or row.matters]
    out.print(_dims_table(rows, inspection.parameters))
    if hidden := len(inspection.dims) - len(rows):
        out.print(f"{hidden} more cannot grow (rows looked up by number, windows and such): --all shows them")
    factor = inspection.doubled / max(inspection.parameters, 1)
    out.print(f"--widen 2 makes it {_short(inspection.doubled)} parameters ({factor:.2f} times)")
    for note in inspection.notes:
        out.print(f"note: {note}")
    _show_refusals(out, inspection)


def _dims_table(rows: Iterable[Row], parameters: int) -> Table:
    table = _table("dim")
    for heading in ("size", "dims"):
        table.add_column(heading, justify="right")
    table.add_column("grows")
    table.add_column("parameters if doubled", justify="right")
    table.add_column("why not")
    for row in rows:
        table.add_row(
            row.name, str(row.size), str(row.count), _grows(row), _cost(row, parameters), _why_not(row)
        )
    return table


def _grows(row: Row) -> str:
    if row.pinned is not None:
        return "no"
    return "by default" if row.default else "by name"


def _cost(row: Row, parameters: int) -> str:
    if row.parameters is None:
        return ""
    return f"{_short(row.parameters)} (+{100 * (row.parameters - parameters) / max(parameters, 1):.0f}%)"


def _why_not(row: Row) -> str:
    if not row.freed_by:
        return row.pinned or ""
    return f"{row.pinned}; --widen-io {','.join(row.freed_by)} frees it"


def _show_refusals(out: Console, inspection: Inspection) -> None:
    if not inspection.refusals:
        return
    table = _table("node", "op", "in", "what is not understood", title="in the way")
    for refusal in inspection.refusals:
        table.add_row(refusal.node, refusal.op, refusal.scope, refusal.reason)
    out.print(table)


def clone_rows(clone: Clone) -> list[dict[str, Any]]:
    """The dims of a clone, one row per group, or several where its dims grew differently."""
    rows = []
    for group in clone.dims:
        sizes = Counter(clone.state.growth_of(dim.axis).new_size for dim in group.dims)
        rows += [
            {
                "name": group.name,
                "size": group.size,
                "new_size": new_size,
                "count": count,
                "pinned": str(group.pin) if group.pin is not None else None,
            }
            for new_size, count in sizes.items()
        ]
    return rows


def show_clone(clone: Clone, parameters: tuple[int, int]) -> None:
    """The dims that grew, and the parameters before and after."""
    out = console()
    table = _table("dim", "size")
    table.add_column("dims", justify="right")
    for row in clone_rows(clone):
        if row["new_size"] != row["size"]:
            table.add_row(row["name"], f"{row['size']} -> {row['new_size']}", str(row["count"]))
    out.print(table)
    before, after = parameters
    out.print(f"parameters: {before:,} -> {after:,} ({after / max(before, 1):.2f} times)")


def show_timings(timings: Sequence[Timing]) -> None:
    """How long every pass took."""
    table = _table("pass")
    table.add_column("ms", justify="right")
    table.add_column("changed")
    for timing in timings:
        table.add_row(timing.name, f"{1000 * timing.seconds:.1f}", "yes" if timing.changed else "no")
    console().print(table)


def show_passes(rows: Iterable[dict[str, Any]]) -> None:
    """Every pass with its options and what it does."""
    table = _table("pass", "options", "requires", "ensures", "what it does")
    for row in rows:
        options = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        table.add_row(
            row["name"], options, ", ".join(row["requires"]), ", ".join(row["ensures"]), row["summary"]
        )
    console().print(table)


def show_rules(families: dict[str, list[str]]) -> None:
    """The ops that have rules, by family."""
    table = _table("family")
    table.add_column("ops", justify="right")
    table.add_column("which")
    for family, ops in families.items():
        names = dict.fromkeys(op.removeprefix("aten.").rpartition(".")[0] or op for op in ops)
        table.add_row(family, str(len(ops)), " ".join(names))
    console().print(table)


def show_missing(model: str, missing: Sequence[MissingRule]) -> None:
    """The ops of a model that have no rule."""
    out = console()
    if not missing:
        out.print(f"{model}: every op has a rule")
        return
    table = _table("op")
    table.add_column("nodes", justify="right")
    table.add_column("first")
    table.add_column("in")
    for row in missing:
        table.add_row(row.op, str(row.count), row.node, row.scope)
    out.print(table)


def _short(number: int) -> str:
    """1,234 as it is, and 1.23M."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.2f}{name}"
    return f"{number:,}"
