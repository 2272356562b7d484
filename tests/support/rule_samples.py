"""Calls of ops made by hand: those torch has no samples for, and the corners its samples leave out.

Sizes differ within a call wherever the op allows it, so that an axis taken for another does not fit.
"""

from __future__ import annotations

from functools import cache

import torch

from tests.support import rule_samples_axes, rule_samples_math
from tests.support.rule_property import Sample


@cache
def samples() -> dict[str, list[Sample]]:
    """Every call, by op."""
    torch.default_generator.manual_seed(0)
    found: dict[str, list[Sample]] = {}
    for family in (*rule_samples_math.FAMILIES, *rule_samples_axes.FAMILIES):
        for sample in family():
            found.setdefault(sample.op, []).append(sample)
    return found
