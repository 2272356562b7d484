"""A verification is a list of steps. Each step makes one check. Every format has its own steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from graphclone.graph.ir import Value
from graphclone.progress import Progress, silent
from graphclone.runtime.precision import all_digits
from graphclone.runtime.sessions import Provider
from graphclone.verification.checks import Check, Report


@dataclass(frozen=True)
class Options:
    """The options of a verification: the arguments of ``Clone.verify``, which says what they mean."""

    provider: Provider
    onnx: bool | Path
    exact: bool
    sets: int
    seed: int
    tensors: Mapping[Value, torch.Tensor] | None
    progress: Progress | None


@dataclass(frozen=True)
class Step:
    """One way of looking at source and clone.

    Attributes:
        name: for whoever waits for it.
        check: makes the check; None where there is nothing to look at.
        final: whether what is wrong here ends the verification.
    """

    name: str
    check: Callable[[], Check | None]
    final: bool = True


@all_digits()
def run_steps(
    model: str, steps: Sequence[Step], inputs: Callable[[], Sequence[str]], progress: Progress | None = None
) -> Report:
    """Make the checks in order; a clone in which something is wrong is not looked at much further.

    Args:
        model: what is verified.
        steps: the checks.
        inputs: says, once they are made, what they were made on.
        progress: told which step is next.
    """
    advance = progress or silent
    checks: list[Check] = []
    for number, step in enumerate(steps):
        advance(step.name, number, len(steps))
        check = step.check()
        if check is not None:
            checks.append(check)
        if step.final and any(check.ok is False for check in checks):
            break
    advance("done", len(steps), len(steps))
    return Report(model, tuple(checks), tuple(inputs()))
