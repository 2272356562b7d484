"""The comparison of every value in float64, and other weights to do it with."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch

from graphclone.graph.ir import Initializer
from graphclone.runtime.interpreter import lifted
from graphclone.verification.checks import EXACT, Check
from graphclone.verification.lockstep import Lockstep

_PERTURBATION = 0.1
"""Spread of the noise on other weights, relative to the weights' own; zeros get some too."""


def exact_check(locksteps: Sequence[Lockstep]) -> Check:
    """The check that several runs in float64 amount to."""
    output, worst = max(run.output for run in locksteps), max(run.worst for run in locksteps)
    first, values = locksteps[-1].first, locksteps[0].values
    figures = {"output": output, "worst": worst, "values": values, "runs": len(locksteps)}
    unmeasured = [name for name in locksteps[0].unmeasured if all(name in run.unmeasured for run in locksteps)]
    if unmeasured and first is None:
        reason = f"{unmeasured[0]}: the source has no finite element there, in float64"
        return Check(EXACT, None, f"not checked: {reason}", {**figures, "reason": reason})
    measured = f"outputs to {output:.1e}, all {values} values to {worst:.1e}, relative, in float64"
    summary = str(first) if first else f"{measured}; {len(locksteps)} runs"
    return Check(EXACT, first is None, summary, figures, first=first, values=_worst(locksteps))


def _worst(locksteps: Sequence[Lockstep]) -> tuple[tuple[str, float], ...]:
    """The greatest error of every value over all runs."""
    worst: dict[str, float] = {}
    for name, error in (row for run in locksteps for row in run.errors):
        worst[name] = max(worst.get(name, 0.0), math.inf if math.isnan(error) else error)
    return tuple(worst.items())


def perturbed(initializer: Initializer) -> torch.Tensor:
    """Another value for a parameter, in float64: weights that are zero or one hide what is wrong with them."""
    tensor = lifted(initializer.read())
    if initializer.kind != "parameter" or tensor.dtype != torch.float64:
        return tensor
    generator = torch.Generator().manual_seed(zlib.crc32(initializer.name.encode()))
    noise = torch.randn(tensor.shape, generator=generator).to(tensor)
    spread = tensor.square().mean().sqrt().clamp(min=_PERTURBATION)
    return tensor + _PERTURBATION * spread * noise
