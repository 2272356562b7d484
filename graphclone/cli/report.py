"""Tables for people: what ``inspect``, ``clone``, ``passes`` and ``rules`` print."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from graphclone.progress import Progress

if TYPE_CHECKING:
    from argparse import Namespace

    from graphclone.clones.clone import Clone
    from graphclone.inspection import Explanation, Inspection, MissingRule, Row
    from graphclone.pipeline.runner import Timing
    from graphclone.verification.checks import Report

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


def table(*headings: str, title: str | None = None) -> Table:
    """A table without vertical lines."""
    return Table(*headings, title=title, title_justify="left", box=box.SIMPLE_HEAD)


@contextmanager
def progress(text: str) -> Iterator[Progress]:
    """A bar with the time, on the standard error, while something takes long; only on a terminal.

    It moves to and fro until it is told how far things are.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    screen = Console(file=sys.stderr)  # this one, whatever is redirected meanwhile
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Bars(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda what, done, total: bar.update(task, description=f"{text}: {what}", completed=done, total=total)


def show_inspection(inspection: Inspection, *, everything: bool = False) -> None:
    """The dims of a model, its parameters, notes, and what is in the way."""
    out = console()
    total = _short(inspection.parameters)
    out.print(f"{inspection.model}: {inspection.nodes} operations, {total} parameters")
    rows = [row for row in inspection.dims if everything or row.matters]
    out.print(_dims_table(rows, inspection.parameters))
    if hidden := len(inspection.dims) - len(rows):
        out.print(f"{hidden} more cannot grow (rows looked up by number, windows and such): --all shows them")
    factor = inspection.doubled / max(inspection.parameters, 1)
    out.print(f"--widen 2 makes it {_short(inspection.doubled)} parameters ({factor:.2f} times)")
    show_notes(inspection.notes)
    _show_refusals(out, inspection)


def show_notes(notes: Iterable[str]) -> None:
    """What the user should know of how a model was traced."""
    for note in notes:
        show_text(f"note: {note}")


def _dims_table(rows: Iterable[Row], total: int) -> Table:
    shown = table("dim")
    for heading in ("size", "dims"):
        shown.add_column(heading, justify="right")
    shown.add_column("grows")
    shown.add_column("parameters if doubled", justify="right")
    shown.add_column("why not")
    for row in rows:
        shown.add_row(row.name, str(row.size), str(row.count), _grows(row), _cost(row, total), _why_not(row))
    return shown


def _grows(row: Row) -> str:
    if row.pinned is not None:
        return "no"
    return "by default" if row.default else "by name"


def _cost(row: Row, total: int) -> str:
    if row.parameters is None:
        return ""
    return f"{_short(row.parameters)} (+{100 * (row.parameters - total) / max(total, 1):.0f}%)"


def _why_not(row: Row) -> str:
    if not row.freed_by:
        return row.pinned or ""
    return f"{row.pinned}; --widen-io {','.join(row.freed_by)} frees it"


def _show_refusals(out: Console, inspection: Inspection) -> None:
    if not inspection.refusals:
        return
    shown = table("node", "op", "in", "what is not understood", title="in the way")
    for refusal in inspection.refusals:
        shown.add_row(refusal.node, refusal.op, refusal.scope, refusal.reason)
    out.print(shown)


def explained(explanation: Explanation) -> str:
    """What a dim touches and what pins it, in a few lines."""
    lines = [f"{explanation.name} ({explanation.size}) is an axis of"]
    lines += [f"  {name}" for name in explanation.parameters]
    if explanation.pinned is None:
        return "\n".join([*lines, "it can grow"])
    way = [f"  {step}" for step in explanation.path]
    return "\n".join([*lines, f"it cannot grow: {explanation.pinned}, by way of", *way])


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


def clone_record(
    clone: Clone, output: str, notes: Sequence[str], graphs: Mapping[str, str], verification: Report | None
) -> dict[str, Any]:
    """What ``clone --json`` says of a clone and where it was written."""
    before, after = parameters(clone)
    return {
        "output": output,
        "strategy": clone.state.request.strategy.name,
        "seed": clone.state.request.seed,
        "parameters": {"source": before, "clone": after},
        "dims": clone_rows(clone),
        "timings": [dataclasses.asdict(timing) for timing in clone.timings],
        "notes": list(notes),
        "graphs": dict(graphs),
        "verification": verification.to_dict() if verification is not None else None,
    }


def outcome(arguments: Namespace, verification: Report | None, size: int) -> str:
    """How a clone was verified and where it was written, or how large it would be."""
    if arguments.dry_run:
        return f"{arguments.output} would be {size / 1e9:.3g} GB; nothing was written"
    return f"{verification if verification is not None else 'not verified'}\nwritten to {arguments.output}"


def parameters(clone: Clone) -> tuple[int, int]:
    """How many numbers the parameters of source and clone hold."""
    source, wide = (
        sum(prod(i.value.shape or ()) for i in graph.initializers if i.kind == "parameter")
        for graph in (clone.state.source, clone.graph)
    )
    return source, wide


def show_clone(clone: Clone) -> None:
    """The dims that grew, and the parameters before and after."""
    out = console()
    shown = table("dim", "size")
    shown.add_column("dims", justify="right")
    for row in clone_rows(clone):
        if row["new_size"] != row["size"]:
            shown.add_row(row["name"], f"{row['size']} -> {row['new_size']}", str(row["count"]))
    out.print(shown)
    before, after = parameters(clone)
    out.print(f"parameters: {before:,} -> {after:,} ({after / max(before, 1):.2f} times)")


def show_timings(timings: Sequence[Timing]) -> None:
    """How long every pass took."""
    shown = table("pass")
    shown.add_column("ms", justify="right")
    shown.add_column("changed")
    for timing in timings:
        shown.add_row(timing.name, f"{1000 * timing.seconds:.1f}", "yes" if timing.changed else "no")
    console().print(shown)


def show_passes(rows: Iterable[dict[str, Any]]) -> None:
    """Every pass with its options and what it does."""
    shown = table("pass", "options", "requires", "ensures", "what it does")
    for row in rows:
        options = ", ".join(f"{name}={value}" for name, value in row["options"].items())
        shown.add_row(row["name"], options, ", ".join(row["requires"]), ", ".join(row["ensures"]), row["summary"])
    console().print(shown)


def show_rules(families: dict[str, list[str]]) -> None:
    """The ops that have rules, by family."""
    shown = table("family")
    shown.add_column("ops", justify="right")
    shown.add_column("which")
    for family, ops in families.items():
        names = dict.fromkeys(op.removeprefix("aten.").rpartition(".")[0] or op for op in ops)
        shown.add_row(family, str(len(ops)), " ".join(names))
    console().print(shown)


def show_missing(model: str, missing: Sequence[MissingRule]) -> None:
    """The ops of a model that have no rule."""
    out = console()
    if not missing:
        out.print(f"{model}: every op has a rule")
        return
    shown = table("op")
    shown.add_column("nodes", justify="right")
    shown.add_column("first")
    shown.add_column("in")
    for row in missing:
        shown.add_row(row.op, str(row.count), row.node, row.scope)
    out.print(shown)


def _short(number: int) -> str:
    """1,234 as it is, and 1.23M."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.2f}{name}"
    return f"{number:,}"
