"""From what a user asks for to a request; what makes no sense, or does not go together, is refused first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from graphclone.algebra.depths import PLACES, STARTS, Depths, Start, Where
from graphclone.algebra.factors import Widen, fraction
from graphclone.algebra.strategies import StrategyLike
from graphclone.algebra.strategies import strategy as resolve_strategy
from graphclone.errors import GraphcloneError, Remedy
from graphclone.pipeline.state import Request


def requested(  # noqa: PLR0913 (all are keywords)
    *,
    widen: Widen | None = None,
    sizes: Mapping[str, int] | None = None,
    depth: Depths | None = None,
    new_blocks: Where = "spread",
    new_from: Start = "copy",
    like: str | Path | None = None,
    keep_vocab: bool = False,
    omit: Sequence[str] = (),
    widen_io: Sequence[str] = (),
    strategy: StrategyLike = "symmetric",
    snr_db: float | None = None,
    seed: int = 0,
    untie: bool = False,
) -> Request:
    """The request that a user makes, in the words of ``graphclone.clone``.

    Raises:
        GraphcloneError: a value is of the wrong kind, or two do not go together.
    """
    _check("sizes", sizes, _is_by_name(sizes) or sizes is None, "a dict of sizes by dim, such as {'hidden': 960}")
    is_depth = depth is None or _is_whole(depth) or _is_by_name(depth)
    _check("depth", depth, is_depth, "a whole number of blocks, or a dict of them by stack")
    _check("new_blocks", new_blocks, new_blocks in PLACES, " or ".join(map(repr, PLACES)))
    _check("new_from", new_from, new_from in STARTS, " or ".join(map(repr, STARTS)))
    _check("like", like, isinstance(like, str | Path | None), "a config.json, a folder with one, or a hub id")
    _check("snr_db", snr_db, isinstance(snr_db, Real | None), "a number of decibels")
    _check("seed", seed, _is_whole(seed), "a whole number")
    if isinstance(widen, Mapping):
        _check("widen", widen, _is_by_name(widen), "a factor, or a dict of factors by dim, such as {'hidden': 2}")
    for name, factor in widen.items() if isinstance(widen, Mapping) else [("widen", widen)]:
        if factor is not None:
            fraction(factor, name)
    if like is not None:
        others = (
            (widen is not None, Remedy("widen", value=None)),
            (bool(sizes), Remedy("sizes", value=None)),
            (depth is not None, Remedy("depth", value=None)),
        )
        for given, leave_out in others:
            if given:
                raise GraphcloneError("like already says every width and depth", leave_out)
    elif keep_vocab:
        reason = "keep_vocab goes with like, whose target may have another vocabulary"
        raise GraphcloneError(reason, Remedy("keep_vocab", value=None))
    return Request(
        widen,
        patterns("widen_io", widen_io),
        resolve_strategy(strategy, snr_db),
        seed,
        untie,
        sizes=sizes or {},
        depth=depth,
        new_blocks=new_blocks,
        new_from=new_from,
        like=None if like is None else str(like),
        keep_vocab=keep_vocab,
        omit=patterns("omit", omit),
    )


def patterns(name: str, value: Sequence[str]) -> tuple[str, ...]:
    """Patterns of names, which a single text is not.

    Raises:
        GraphcloneError: they are none.
    """
    is_list = isinstance(value, Sequence) and all(isinstance(item, str) for item in value)
    example = f", [{value!r}]" if isinstance(value, str) else ""
    _check(name, value, is_list and not example, f"a list of names{example}")
    return tuple(value)


def _check(name: str, value: object, fits: bool, what: str) -> None:
    if not fits:
        raise GraphcloneError(f"{name}={value!r}: give {what}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_by_name(value: object) -> bool:
    """Whether a value is a dict by the names of something."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
