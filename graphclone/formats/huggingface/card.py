"""The model card of a clone: where it comes from, how it was made, what grew, and what was verified."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphclone.clones.summary import clone_rows, new_blocks, parameters
from graphclone.version import __version__

if TYPE_CHECKING:
    from graphclone.formats.huggingface.plan import Plan
    from graphclone.verification.checks import Report

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_LASTING = (
    "license", "license_name", "license_link", "language", "pipeline_tag", "library_name", "datasets",
)  # fmt: skip
"""Fields of a source's card that hold for its clone as well."""


def text(plan: Plan, *, command: str, notes: Sequence[str], report: Report | None) -> str:
    """The card, in the form that the hub reads."""
    return "\n".join(_lines(plan, command, notes, report)) + "\n"


def _lines(plan: Plan, command: str, notes: Sequence[str], report: Report | None) -> Iterator[str]:
    source, request = plan.checkpoint.name, plan.widened.state.request
    before, after = parameters(plan.widened)
    yield from ("---", *_front_matter(plan), "---", "")
    grown = [row for row in clone_rows(plan.widened) if row["new_size"] != row["size"]]
    how = " and ".join(word for word, holds in (("wider", grown), ("deeper", new_blocks(plan.widened))) if holds)
    yield f"# {_title(plan)}, {how or 'as it was'}"
    yield ""
    yield f"Made from `{source}` by [HyperCloning](https://arxiv.org/abs/2409.12903) with graphclone {__version__}:"
    yield "the model is bigger, and computes what its source computes."
    yield from ("", f"    {command}", "")
    yield f"- source: `{source}`"
    yield f"- strategy: {request.strategy.name}{_decibels(plan)}, seed {request.seed}"
    yield f"- parameters: {before:,} -> {after:,}"
    yield from (f"- {name}: {old} -> {new}" for name, (old, new) in plan.changes.items())
    yield from (f"- new block: {name}" for name in new_blocks(plan.widened))
    yield from ("", "| dim | size | new size | dims |", "|---|---|---|---|") if grown else ()
    for row in grown:
        yield f"| {row['name']} | {row['size']} | {row['new_size']} | {row['count']} |"
    yield from ("", "## Verification", "")
    yield from (f"    {line}" for line in str(report or "not verified").splitlines())
    if notes:
        yield from ("", "## Notes", "")
        yield from (f"- {note}" for note in notes)


def _decibels(plan: Plan) -> str:
    snr_db = plan.widened.state.request.strategy.snr_db
    return f" at {snr_db:g} dB" if snr_db is not None else ""


def _title(plan: Plan) -> str:
    """The source's own name, whatever way led to it."""
    return _hub_id(plan).rpartition("/")[2] or plan.checkpoint.folder.resolve().name


def _hub_id(plan: Plan) -> str:
    """The hub id of the source, as the user or a path in the cache of the hub has it; empty if there is none."""
    name, folder = plan.checkpoint.name, plan.checkpoint.folder.resolve()
    cached = next((part for part in folder.parts if re.fullmatch(r"models--[\w.-]+--[\w.-]+", part)), "")
    if cached:
        return "/".join(cached.split("--", 2)[1:])
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else ""


def _front_matter(plan: Plan) -> Iterator[str]:
    """What the hub shows of a model: the source's fields that hold for the clone, and where that comes from."""
    from huggingface_hub import CardData

    source = _metadata(plan.checkpoint.folder / "README.md")
    lasting = {key: source[key] for key in _LASTING if source.get(key)}
    last = str(plan.checkpoint.raw.get("_name_or_path") or "")
    origin = last if _HUB_ID.fullmatch(last) and not Path(last).exists() else None
    base = _hub_id(plan) or source.get("base_model") or origin
    came_from = {"base_model": base, "base_model_relation": "finetune"} if base else {}
    fields = {**came_from, "library_name": "transformers", **lasting, "tags": ["graphclone", "hypercloning"]}
    yield CardData(**fields).to_yaml()


def _metadata(card: Path) -> dict[str, Any]:
    """The fields of a card; none where there is no card, or they cannot be read."""
    from huggingface_hub.repocard import metadata_load

    try:
        return metadata_load(card) or {}
    except Exception:  # no such file, no YAML, no map
        return {}
