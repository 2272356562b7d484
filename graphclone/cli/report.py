"""Tables for people: what ``inspect``, ``clone``, ``passes`` and ``rules`` print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from graphclone.clones.sharing import STORAGE
from graphclone.clones.summary import clone_rows, new_blocks, parameters
from graphclone.errors import GraphcloneError
from graphclone.progress import in_bytes
from graphclone.terminal import console, show_text, table

if TYPE_CHECKING:
    from graphclone.cli.arguments import CloneArguments
    from graphclone.clones.sharing import Share
    from graphclone.clones.traced import Traced
    from graphclone.inspection import Explanation, Inspection, MissingRule, Row, StackRow
    from graphclone.pipeline.runner import Timing
    from graphclone.verification.checks import Report


def show_inspection(inspection: Inspection, *, everything: bool = False) -> None:
    """The dims of a model, its parameters, notes, and what is in the way."""
    out = console()
    total = _short(inspection.parameters)
    out.print(f"{inspection.model}: {inspection.nodes} operations, {total} parameters")
    rows = [row for row in inspection.dims if everything or row.matters]
    out.print(_dims_table(rows, inspection.parameters))
    _show_pins(out, rows)
    if hidden := len(inspection.dims) - len(rows):
        out.print(f"{hidden} more cannot grow (rows looked up by number, windows and such): --all shows them")
    factor = inspection.doubled / max(inspection.parameters, 1)
    out.print(f"--widen 2 makes it {_short(inspection.doubled)} parameters ({factor:.2f} times)")
    for stack in inspection.stacks:
        out.print(_depth(stack), highlight=False)
    show_notes(inspection.notes)
    _show_refusals(out, inspection)


def _depth(stack: StackRow) -> str:
    """Whether a stack of blocks can get deeper: by which option, or why not."""
    name = stack.name or "the model"
    kinds = f" of {stack.kinds} kinds" if stack.kinds > 1 else ""
    blocks = f"{stack.count} block{'s' if stack.count > 1 else ''}{kinds}"
    if stack.obstacle:
        return f"{name} keeps its {blocks}: {stack.obstacle}"
    deeper = stack.count + stack.kinds  # one more of each kind
    return f"{name} has {blocks} and can have more: --depth {f'{stack.name}={deeper}' if stack.name else deeper}"


def show_notes(notes: Iterable[str]) -> None:
    """Show the notes of a trace: what the user should know of how a model was traced."""
    for note in notes:
        show_text(f"note: {note}")


def _dims_table(rows: Iterable[Row], total: int) -> Table:
    grid = table("dim")
    for heading in ("size", "dims"):
        grid.add_column(heading, justify="right")
    grid.add_column("grows")
    grid.add_column("parameters\nif doubled", justify="right")
    for row in rows:
        grid.add_row(row.name, str(row.size), str(row.count), _grows(row), _cost(row, total))
    return grid


def _show_pins(out: Console, rows: Iterable[Row]) -> None:
    """Why dims cannot grow, each reason once. A column beside the others would be too narrow for that."""
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.pinned is not None:
            names.setdefault(_why_not(row), []).append(row.name)
    if names:
        out.print("cannot grow:")
    for reason, same in names.items():
        out.print(Padding.indent(f"{', '.join(same)}: {reason}", 2))


def _grows(row: Row) -> str:
    if row.pinned is not None:
        return "no"
    return "by default" if row.default else "by name"


def _cost(row: Row, total: int) -> str:
    if row.parameters is None:
        return ""
    return f"{_short(row.parameters)} (+{100 * (row.parameters - total) / max(total, 1):.0f}%)"


def _why_not(row: Row) -> str:
    """The reason why a dim is pinned, and the option that would free it."""
    if not row.freed_by:
        return row.pinned or ""
    return f"{row.pinned}; --widen-io {','.join(row.freed_by)} frees it"


def _show_refusals(out: Console, inspection: Inspection) -> None:
    if not inspection.refusals:
        return
    grid = table("node", "op", "in", "what is not understood", title="in the way")
    for refusal in inspection.refusals:
        grid.add_row(refusal.node, refusal.op, refusal.scope, refusal.reason)
    out.print(grid)


def explained(explanation: Explanation) -> str:
    """The explanation of a dim, in a few lines: what it touches and what pins it."""
    lines = [f"{explanation.name} ({explanation.size}) is an axis of"]
    lines += [f"  {name}" for name in explanation.parameters]
    if explanation.pinned is None:
        return "\n".join([*lines, "it can grow"])
    way = [f"  {step}" for step in explanation.path]
    return "\n".join([*lines, f"it cannot grow: {explanation.pinned}, by way of", *way])


def show_share(model: str, share: Share) -> None:
    """Show what the busiest of several processes reads, writes and holds, and how long that takes."""
    device, (storage, link, memory) = share.device, share.seconds
    over = f"over {share.ranks} processes, one {device.name} each"
    grid = table("", title=f"{model}, twice as wide, {over}\n(computed, not measured)")
    for heading in ("GB", "seconds"):
        grid.add_column(heading, justify="right")
    grid.add_column("at")
    size = f"{share.source / 1e9:,.1f} -> {share.clone / 1e9:,.1f}"
    grid.add_row("the whole model", size, "", "")
    grid.add_row("each reads", f"{share.read / 1e9:,.2f}", f"{storage:,.2f}", f"{STORAGE / 1e9:g} GB/s of storage")
    grid.add_row("sends to its device", f"{share.read / 1e9:,.2f}", f"{link:,.2f}", f"{device.link / 1e9:g} GB/s")
    grid.add_row(
        "writes, and holds", f"{share.written / 1e9:,.2f}", f"{memory:,.4f}", f"{device.bandwidth / 1e9:,g} GB/s"
    )
    fits = "fits" if share.fits else "does not fit"
    grid.add_row("holds in training", f"{share.training / 1e9:,.2f}", "", f"{fits} into {device.memory / 1e9:g} GB")
    console().print(grid)


@contextmanager
def after_writing(output: Path) -> Iterator[None]:
    """Say that the clone is written, and stays, where what comes after fails: the page of it, or what is printed.

    Raises:
        GraphcloneError: it fails.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, GraphcloneError) as error:
        reason = f"cannot print: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        raise GraphcloneError(f"{output} is written, but then: {reason}") from error


def outcome(arguments: CloneArguments, verification: Report | None, size: int) -> str:
    """The closing lines: how a clone was verified and where it was written, or how large it would be."""
    if arguments.dry_run:
        return f"{arguments.output} would be {in_bytes(size)}; nothing was written"
    page = "" if arguments.html is None else f"; the page to {arguments.html}"
    return f"{verification if verification is not None else 'not verified'}\nwritten to {arguments.output}{page}"


def show_clone(clone: Traced) -> None:
    """The dims that grew, and the parameters before and after."""
    out = console()
    grid = table("dim", "size")
    grid.add_column("dims", justify="right")
    grid.add_column("by")
    for row in clone_rows(clone):
        if row["new_size"] != row["size"]:
            grid.add_row(row["name"], f"{row['size']} -> {row['new_size']}", str(row["count"]), row["growth"])
    if grid.row_count:
        out.print(grid)
    if added := new_blocks(clone):
        out.print(f"new blocks: {', '.join(added)}", highlight=False)
    before, after = parameters(clone)
    out.print(f"parameters: {before:,} -> {after:,} ({after / max(before, 1):.2f} times)")


def show_changes(changes: Mapping[str, tuple[Any, Any]]) -> None:
    """The fields of a configuration that change."""
    shown = (f"{name} {_listed(old)} -> {_listed(new)}" for name, (old, new) in changes.items())
    show_text(f"config.json: {', '.join(shown)}")


def _listed(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, list) else str(value)


def show_timings(timings: Sequence[Timing]) -> None:
    """Show how long every pass took."""
    grid = table("pass")
    grid.add_column("ms", justify="right")
    grid.add_column("changed")
    for timing in timings:
        grid.add_row(timing.name, f"{1000 * timing.seconds:.1f}", "yes" if timing.changed else "no")
    console().print(grid)


def show_passes(rows: Iterable[dict[str, Any]]) -> None:
    """Every pass with its options and what it does."""
    grid = table("pass", "what it does", "requires", "ensures")
    for row in rows:
        options = "".join(f"\n  {name}={value}" for name, value in row["options"].items())
        grid.add_row(row["name"] + options, row["summary"], "\n".join(row["requires"]), "\n".join(row["ensures"]))
    console().print(grid)


def show_rules(families: Mapping[str, Mapping[str, str | None]]) -> None:
    """The ops that have rules, by family, each with the pattern that its rule states, if it is one line."""
    for family, patterns in families.items():
        grid = table(title=f"{family}: {len(patterns)} ops")
        grid.add_column("ops", overflow="fold", max_width=_OPS_WIDTH)
        grid.add_column("pattern", overflow="fold")
        named: dict[str, list[str]] = {}
        for op, pattern in patterns.items():
            named.setdefault(pattern or "", []).append(_op_name(op))
        for pattern, names in sorted(named.items(), key=lambda row: not row[0]):
            grid.add_row(" ".join(dict.fromkeys(names)), pattern)
        console().print(grid)


_OPS_WIDTH = 34
"""Columns for the names of ops, which leave enough for most patterns where a terminal has 80."""


def _op_name(op: str) -> str:
    """What an op is called without its overload; those of torch without their namespace."""
    return op.split(".")[1] if op.startswith("aten.") else op


def show_missing(model: str, missing: Sequence[MissingRule]) -> None:
    """The ops of a model that have no rule."""
    out = console()
    if not missing:
        out.print(f"{model}: every op has a rule")
        return
    grid = table("op")
    grid.add_column("nodes", justify="right")
    grid.add_column("first")
    grid.add_column("in")
    for row in missing:
        grid.add_row(row.op, str(row.count), row.node, row.scope)
    out.print(grid)


def _short(number: int) -> str:
    """1,234 as it is, and 1.23M."""
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if number >= unit:
            return f"{number / unit:.2f}{name}"
    return f"{number:,}"
