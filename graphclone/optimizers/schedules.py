"""Learning-rate schedules over an optimizer whose groups have been split, each with a rate of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphclone.errors import GraphcloneError
from graphclone.optimizers.states import Grown

_PROPORTIONAL = {
    *("LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR"),
    *("PolynomialLR", "CosineAnnealingLR", "SequentialLR", "ChainedScheduler"),
}
"""Schedules that multiply the rate which each group began with."""

_RATES = ("base_lrs", "_last_lr")
_PER_GROUP = (*_RATES, "lr_lambdas")


def check_schedule(schedule: Any) -> None:
    """Refuse a schedule that does not multiply the rate of each group.

    Raises:
        GraphcloneError: naming it.
    """
    for part in _parts(schedule):
        name = type(part).__name__
        if name not in _PROPORTIONAL or vars(part).get("eta_min"):
            known = ", ".join(sorted(_PROPORTIONAL))
            raise GraphcloneError(
                f"{name}: does not multiply the rate of each group; take one of {known}, to a rate of 0"
            )


def regroup(schedule: Any, grown: Grown) -> None:
    """Let a schedule go on over the groups of a grown optimizer, which holds the rates as they are now."""
    for part in _parts(schedule):
        for key in _PER_GROUP:
            if key in vars(part):
                old = getattr(part, key)
                values = [old[origin] for origin in grown.origins]
                scaled = (
                    [value * rate for value, rate in zip(values, grown.rates, strict=True)] if key in _RATES else values
                )
                setattr(part, key, scaled)


def _parts(schedule: Any) -> Iterator[Any]:
    """A schedule out of a wrapper such as Accelerate's, and those that it is made of."""
    own = getattr(schedule, "scheduler", schedule)
    yield own
    for part in getattr(own, "_schedulers", ()):
        yield from _parts(part)
