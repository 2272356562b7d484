"""Curves of losses: their spikes taken out, and the step at which one gets below a level."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

Curve = Sequence[tuple[int, float]]
"""Steps, ascending, and the loss at each."""

WINDOW = 5
"""Evaluations under the running median."""


def smoothed(curve: Curve, window: int = WINDOW) -> Curve:
    """The centred running median, over a window that shrinks towards both ends and stays centred.

    A median, because it leaves every falling curve exactly as it is, where a mean would lift a convex one and move
    its crossings, and because a spike of up to two evaluations leaves no trace. The window stays centred, so that
    neither end is biased: the first and the last value are as measured.

    Args:
        curve: steps and losses.
        window: evaluations, odd.
    """
    losses = [loss for _, loss in curve]
    last, radius = len(losses) - 1, window // 2
    reach = [min(radius, at, last - at) for at in range(len(losses))]
    return [
        (step, statistics.median(losses[at - near : at + near + 1]))
        for at, ((step, _), near) in enumerate(zip(curve, reach, strict=True))
    ]


def crossing(curve: Curve, level: float) -> float | None:
    """The step from which on a curve is at or below a level for good, between evaluations by linear interpolation.

    That is its last crossing, not its first: a clone may begin below the level, forget while the learning rate warms
    up, and come back, and to call its first step the one where it got there would flatter it.

    Returns:
        None where the curve ends above the level, or is empty.
    """
    if not curve or not curve[-1][1] <= level:
        return None
    at = len(curve) - 1
    while at and curve[at - 1][1] <= level:
        at -= 1
    step, loss = curve[at]
    if not at:
        return float(step)
    before, above = curve[at - 1]
    if math.isinf(above):
        return float(step)
    return before + (step - before) * (above - level) / (above - loss)
