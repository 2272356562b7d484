"""The model card of a clone: where it comes from, how it was made, what grew, and what was verified."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphclone import __version__
from graphclone.report import clone_rows, parameters

if TYPE_CHECKING:
    from graphclone.checkpoint_plan import Plan
    from graphclone.checks import Report


def text(plan: Plan, *, command: str, notes: Sequence[str], report: Report | None) -> str:
    """The card, in the form that the hub reads."""
    return "\n".join(_lines(plan, command, notes, report)) + "\n"


def _lines(plan: Plan, command: str, notes: Sequence[str], report: Report | None) -> Iterator[str]:
    source, request = plan.checkpoint.name, plan.clone.state.request
    before, after = parameters(plan.clone)
    yield from ("---", *_front_matter(plan), "---", "")
    yield f"# {Path(source).name}, wider"
    yield ""
    yield f"Made from `{source}` by [HyperCloning](https://arxiv.org/abs/2409.12903) with graphclone {__version__}:"
    yield "every weight is wider, and the model computes what its source computes."
    yield from ("", f"    {command}", "")
    yield f"- source: `{source}`"
    yield f"- strategy: {request.strategy.name}{_decibels(plan)}, seed {request.seed}"
    yield f"- parameters: {before:,} -> {after:,}"
    yield from (f"- {name}: {old} -> {new}" for name, (old, new) in plan.changes.items())
    yield from ("", "| dim | size | new size | dims |", "|---|---|---|---|")
    for row in clone_rows(plan.clone):
        if row["new_size"] != row["size"]:
            yield f"| {row['name']} | {row['size']} | {row['new_size']} | {row['count']} |"
    yield from ("", "## Verification", "")
    yield from (f"    {line}" for line in str(report or "not verified").splitlines())
    if notes:
        yield from ("", "## Notes", "")
        yield from (f"- {note}" for note in notes)


def _decibels(plan: Plan) -> str:
    snr_db = plan.clone.state.request.strategy.snr_db
    return f" at {snr_db:g} dB" if snr_db is not None else ""


def _front_matter(plan: Plan) -> Iterator[str]:
    if re.fullmatch(r"[\w.-]+/[\w.-]+", plan.checkpoint.name) and not Path(plan.checkpoint.name).exists():
        yield f"base_model: {plan.checkpoint.name}"
    card = plan.checkpoint.folder / "README.md"
    lines = card.read_text(errors="replace").splitlines() if card.is_file() else []
    end = lines.index("---", 1) if lines[:1] == ["---"] and "---" in lines[1:] else 0
    yield from (line for line in lines[1:end] if re.match(r"license(_name|_link)?:\s*\S", line))
    yield from ("tags:", "- graphclone", "- hypercloning")
