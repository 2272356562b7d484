"""The results of a verification: one check per way of looking, and the report that holds them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch

from graphclone.errors import CannotJudgeError, NotEquivalentError
from graphclone.verification.distance import (
    OUTPUT_TOLERANCE,
    Deviation,
    difference,
    magnitude,
    mask_level,
    measured_elements,
)

FLOOR_FACTOR = 4.0
"""How many times the source's own rounding error the clone may have."""

FLOOR_ULPS = 8.0
"""What it may have beyond that, in units in the last place of the greatest element."""

EQUIVALENT = "equivalent"

EXACT = "exact"
"""The name of the check that compares every value in float64."""

ONNX_RUNTIME = "ONNX Runtime"
"""The name of the check that runs both in it."""

TRACE, STATIC, DEPTH = "trace", "static", "depth"
"""The names of the checks that look at the trace, at shapes, and at the source with its new blocks."""

_OF_ONE_SIDE = (TRACE, STATIC, DEPTH)
"""Checks that compare no values of source and clone."""

_DOUBLE = (torch.float64, torch.complex128)


@dataclass(frozen=True)
class NoiseFloor:
    """Errors of a value in source and clone, against the source in float64.

    Attributes:
        value: its name.
        source: greatest absolute error of the source; the fraction of wrong elements where they are no floats.
        clone: greatest absolute error of the clone; the fraction of wrong elements where they are no floats.
        ulp: a unit in the last place of the greatest element.
        elements: how many finite ones were compared.
    """

    value: str
    source: float = 0.0
    clone: float = 0.0
    ulp: float = 0.0
    elements: int = 1

    def allows(self, slack: float = 1.0) -> bool | None:
        """Whether the clone's error is of the size of rounding; None where the source has nothing to say it by."""
        if self.clone < math.inf and (math.isinf(self.source) or not self.elements):
            return None
        return self.clone < math.inf and self.clone <= slack * (FLOOR_FACTOR * self.source + FLOOR_ULPS * self.ulp)

    @property
    def ok(self) -> bool | None:
        return self.allows()

    @property
    def ratio(self) -> float:
        """The clone's error over the source's own, which is taken to be an ulp at least."""
        floor = max(self.source, self.ulp)
        if math.isinf(self.clone) or not floor:
            return math.inf if self.clone else 0.0
        return self.clone / floor

    @property
    def unmeasured(self) -> str:
        """Why nothing was measured; empty where something was."""
        if self.ok is not None:
            return ""
        return "the source has no finite element there" if not self.elements else "the source is not finite there"

    def unless_explained(self, noise: Callable[[], float]) -> NoiseFloor:
        """The same where the source's own error explains the clone's; else with what other rounding makes of it.

        Args:
            noise: the greatest error of runs of the source with other rounding. It is costly, and asked for only then.
        """
        return replace(self, source=max(self.source, noise())) if self.ok is False else self

    def __or__(self, other: NoiseFloor) -> NoiseFloor:
        """The greater of both: one value on several inputs."""
        return NoiseFloor(
            self.value,
            max(self.source, other.source),
            max(self.clone, other.clone),
            max(self.ulp, other.ulp),
            self.elements + other.elements,
        )

    def __str__(self) -> str:
        return f"error {self.clone:.1e}, {self.ratio:.3g} times the source's own {self.source:.1e}"


def noise_floor(
    value: str,
    source: tuple[torch.Tensor, torch.Tensor],
    clone: tuple[torch.Tensor, torch.Tensor],
    precision: torch.dtype | None = None,
) -> NoiseFloor:
    """Measure a value.

    Args:
        value: its name.
        source: what it is in float64, and what the source computes in its own precision; of one shape.
        clone: what it should be in the clone, in float64, and what the clone computes; an error is infinite where the
            shapes of these differ.
        precision: of the clone, if not that of the tensor.
    """
    unit = _unit(precision or clone[1].dtype)
    level = mask_level(source[0]) if unit else None
    if level is None or source[0].shape != source[1].shape or clone[0].shape != clone[1].shape:
        return _floor(value, source, clone, unit)
    parts = [_floor(value, _part(source, level, masks), _part(clone, level, masks), unit) for masks in (True, False)]
    worst = max(parts, key=lambda floor: (floor.ok is False, floor.ratio))
    return replace(worst, elements=sum(floor.elements for floor in parts))


def _part(pair: tuple[torch.Tensor, torch.Tensor], level: float, masks: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Those elements of an expected and an actual tensor that are masks, or the others."""
    chosen = (pair[0].abs() >= level) == masks
    return pair[0][chosen], pair[1][chosen]


def _floor(
    value: str, source: tuple[torch.Tensor, torch.Tensor], clone: tuple[torch.Tensor, torch.Tensor], unit: float
) -> NoiseFloor:
    ulp = unit * magnitude(source[0]) if unit else 0.0
    return NoiseFloor(value, error(*source), error(*clone), ulp, measured_elements(source[0]))


def _unit(dtype: torch.dtype) -> float:
    """A unit in the last place of 1; 0 of integers. Nothing is exact beside float64, so there a tolerance rules."""
    if not dtype.is_floating_point and not dtype.is_complex:
        return 0.0
    return OUTPUT_TOLERANCE / FLOOR_ULPS if dtype in _DOUBLE else torch.finfo(dtype).eps


def error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Greatest distance of two tensors, or the share of elements that differ where they are no floats.

    It is infinite where their shapes differ, and 0 where they have no elements.
    """
    if expected.shape != actual.shape:
        return math.inf
    if expected.numel() == 0:
        return 0.0
    distance = difference(expected, actual.to(expected))
    return float(distance.max() if expected.is_floating_point() or expected.is_complex() else distance.mean())


def rounding(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Greatest distance of two tensors where they hold no masks, whose rounding explains nothing about the others."""
    level = mask_level(expected) if expected.is_floating_point() and expected.shape == actual.shape else None
    return error(*((expected, actual) if level is None else _part((expected, actual), level, masks=False)))


def reference(exact: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """The reference for a clone: the source in float64, or its own result where that overflows and float64 not."""
    return own.to(exact) if error(exact, own) == math.inf else exact


@dataclass(frozen=True)
class Check:
    """One way of looking at source and clone.

    Attributes:
        name: ``static``, ``exact``, ``noise floor`` or ``ONNX Runtime``.
        ok: whether they agree; None if the check could not be made.
        summary: what was measured, or why nothing was.
        figures: the same for programs.
        outputs: the errors of the outputs, if they were measured against rounding.
        first: the first wrong value, in graph order.
        open: whether this check leaves the verdict open, because the source itself could not be measured.
        values: the name and the greatest relative error of every value, in graph order, if all were compared.
    """

    name: str
    ok: bool | None
    summary: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[NoiseFloor, ...] = ()
    first: Deviation | None = None
    open: bool = False
    values: tuple[tuple[str, float], ...] = ()

    @property
    def worst(self) -> NoiseFloor | None:
        """The output that is farthest from the source."""
        return max(self.outputs, key=lambda output: output.ratio, default=None)

    def __str__(self) -> str:
        sign = {True: "ok", False: "WRONG", None: "--"}[self.ok]
        return f"{self.name:<13} {sign:<6} {self.summary}"


def refused_clone(name: str, reason: str, **figures: Any) -> Check:
    """The check that a clone fails since it cannot be loaded or run, where the source can."""
    first = Deviation("the clone", "", "", math.inf, reason)
    return Check(name, False, str(first), figures, first=first)


def judge(
    name: str,
    measured: Sequence[Sequence[NoiseFloor]],
    locate: Callable[[], Deviation | None] = lambda: None,
    **figures: Any,
) -> Check:
    """The check that errors measured on several inputs amount to.

    Args:
        name: of the check.
        measured: the errors of every output, for every input set.
        locate: finds the first value that is wrong, where an output is.
        figures: what else machines should know.
    """
    floors = tuple(reduce(NoiseFloor.__or__, floors) for floors in zip(*measured, strict=True))
    wrong = next((floor for floor in floors if floor.ok is False), None)
    if wrong is not None:
        first = locate() or Deviation(wrong.value, "", "", wrong.clone, str(wrong))
        return Check(name, False, str(first), {"ratio": wrong.ratio, **figures}, floors, first)
    worst = max(floors, key=lambda floor: floor.ratio, default=None)
    reason = _unmeasured(floors)
    summary = f"not checked: {reason}" if reason else f"{worst}; {len(measured)} input sets"
    details = {"reason": reason} if reason else {}
    return Check(
        name, None if reason else True, summary, {"ratio": worst.ratio if worst else 0.0, **details, **figures}, floors
    )


def _unmeasured(floors: Sequence[NoiseFloor]) -> str:
    """Why these amount to no check: of an output nothing was measured, on no input set. Empty if they do."""
    if not floors:
        return "no outputs"
    return next((f"{floor.value}: {floor.unmeasured}" for floor in floors if floor.ok is None), "")


@dataclass(frozen=True)
class Report:
    """The result of a verification.

    Attributes:
        model: the name of the model.
        checks: one for each comparison, in the order in which they were made.
        inputs: the input sets that they were made on.

    Examples:
        >>> report = clone.verify(onnx=False)
        >>> [check.name for check in report.checks]
        ['trace', 'static', 'exact', 'noise floor']
    """

    model: str
    checks: tuple[Check, ...]
    inputs: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether each check that could be made has passed, one at least was made, and none leaves the verdict open."""
        return self.verdict == EQUIVALENT

    @property
    def verdict(self) -> str:
        """The verdict in words: ``equivalent``, ``NOT EQUIVALENT`` or ``cannot be judged``."""
        if any(check.ok is False for check in self.checks):
            return "NOT EQUIVALENT"
        compared = (check for check in self.checks if check.name not in _OF_ONE_SIDE)
        judged = any(check.ok for check in compared) and not any(check.open for check in self.checks)
        return EQUIVALENT if judged else "cannot be judged"

    @property
    def first(self) -> Deviation | None:
        """The first tensor that is wrong, by the first check that found one."""
        return next((check.first for check in self.checks if check.first is not None), None)

    @property
    def onnx_checked(self) -> bool:
        """Whether ONNX Runtime ran both."""
        check = self.check(ONNX_RUNTIME)
        return check is not None and check.ok is not None

    @property
    def provider(self) -> str:
        """The execution provider that really ran; empty where ONNX Runtime did not run."""
        check = self.check(ONNX_RUNTIME)
        return str(check.figures.get("provider", "")) if check is not None else ""

    def check(self, name: str) -> Check | None:
        """The check of that name."""
        return next((check for check in self.checks if check.name == name), None)

    def raise_if_failed(self) -> None:
        """Raise an error if the clone is wrong, or could not be judged.

        Raises:
            NotEquivalentError: a check has failed. The error names the first wrong tensor and the rule behind it.
            CannotJudgeError: the source itself could not be measured. The error names the check.
        """
        if self.ok:
            return
        failed = next((check for check in self.checks if check.ok is False), None)
        if failed is not None:
            raise NotEquivalentError(f"{self.model}: the clone is not equivalent: {self.first or failed.summary}")
        unjudged = [check for check in self.checks if check.open]
        unjudged += [check for check in self.checks if check.ok is None and check.figures.get("reason")]
        reason = f"{unjudged[0].name}: {unjudged[0].summary}" if unjudged else "no check could be made"
        raise CannotJudgeError(f"{self.model}: whether the clone is equivalent cannot be judged: {reason}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has; numbers that are not finite are text."""
        fields = {
            "model": self.model,
            "ok": self.ok,
            "verdict": self.verdict,
            "provider": self.provider,
            "onnx_checked": self.onnx_checked,
            "first": None if self.first is None else dataclasses.asdict(self.first),
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "inputs": list(self.inputs),
        }
        result: dict[str, Any] = _plain(fields)
        return result

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.model}: {self.verdict}"
        if self.first is not None:
            yield f"  first wrong: {self.first}"
        yield from (f"  {check}" for check in self.checks)
        if self.inputs:
            yield f"  on {'; '.join(self.inputs)}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
