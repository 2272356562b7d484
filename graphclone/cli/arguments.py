"""The arguments of each command; ``graphclone.cli.grammar`` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from graphclone.algebra.depths import Depths, Start, Where
from graphclone.algebra.factors import Widen

InputSizes = Sequence[tuple[str, tuple[int, ...]]]
"""Inputs by name, with the sizes that they have."""


@dataclass(frozen=True)
class Arguments:
    """The arguments that every command has.

    Attributes:
        json: print for machines.
        no_cache: neither read nor keep what runs find out on disk.
        debug: show the traceback of an error, and warnings.
    """

    json: bool
    no_cache: bool
    debug: bool


@dataclass(frozen=True)
class InspectArguments(Arguments):
    """The arguments of ``graphclone inspect``; see its help."""

    model: str
    all: bool
    why: str | None
    like: str | None
    keep_vocab: bool
    widen_io: tuple[str, ...]
    input: InputSizes
    inputs: str | None
    ranks: int | None
    devices: str | None
    html: str | None
    node_data: str | None
    trust_remote_code: bool


@dataclass(frozen=True)
class CloneArguments(Arguments):
    """The arguments of ``graphclone clone``; see its help."""

    model: str
    output: str
    widen: Widen | None
    size: Mapping[str, int]
    depth: Depths | None
    new_blocks: Where
    new_from: Start
    like: str | None
    keep_vocab: bool
    widen_io: tuple[str, ...]
    strategy: str
    snr_db: float | None
    seed: int
    untie: bool
    passes: str | None
    print_after: Sequence[str]
    timing: bool
    force: bool
    no_verify: bool
    verify: Literal["sample"] | None
    dry_run: bool
    provider: Literal["auto", "cpu", "cuda"]
    input: InputSizes
    inputs: str | None
    dtype: str | None
    max_shard_size: int | None
    optimizer: str | None
    omit: tuple[str, ...]
    resume: bool
    trust_remote_code: bool
    format: Literal["dcp"] | None
    weights: str | None
    html: str | None


@dataclass(frozen=True)
class VerifyArguments(Arguments):
    """The arguments of ``graphclone verify``; see its help."""

    source: str
    clone: str
    sample: bool
    provider: Literal["auto", "cpu", "cuda"]
    input: InputSizes
    inputs: str | None
    trust_remote_code: bool


@dataclass(frozen=True)
class StudyArguments(Arguments):
    """The arguments of ``graphclone study``; see its help."""

    study: str
    html: str | None
    output: str | None
    recipe: str | None
    jobs: int


@dataclass(frozen=True)
class ScoreArguments(Arguments):
    """The arguments of ``graphclone score``; see its help."""

    checkpoint: Sequence[str]
    tasks: str


@dataclass(frozen=True)
class PassesArguments(Arguments):
    """The arguments of ``graphclone passes``; see its help."""


@dataclass(frozen=True)
class RulesArguments(Arguments):
    """The arguments of ``graphclone rules``; see its help."""

    missing: str | None
    input: InputSizes
    inputs: str | None
