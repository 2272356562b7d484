"""Distances between two tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch

from graphclone.graph.ir import Node

VALUE_TOLERANCE = 1e-10


OUTPUT_TOLERANCE = 1e-12
"""Greatest deviations in float64 of a value and of an output, relative to its greatest magnitude."""


_HUGE = 1e30
"""Magnitudes beyond this are masks; beside them everything else would look like rounding."""


_GAP = 10
"""Powers of two between masks and what they stand beside."""


@dataclass(frozen=True)
class Deviation:
    """A value that breaks the invariant.

    Attributes:
        value: its name.
        op: the op that computed it, by whose rule it should hold.
        scope: the module the op belongs to.
        error: greatest deviation over the greatest magnitude; infinite where shapes differ.
        detail: what was compared.
    """

    value: str
    op: str
    scope: str
    error: float
    detail: str

    @classmethod
    def at(cls, node: Node, value: str, error: float, detail: str) -> Deviation:
        """The deviation of a value that a node computed."""
        return cls(value, node.op, node.scope, error, detail)

    def __str__(self) -> str:
        where = f" in {self.scope}" if self.scope else ""
        by = f" (rule of {self.op}{where})" if self.op else ""
        return f"{self.value}{by}: {self.detail}"


def measured_elements(expected: torch.Tensor) -> int:
    """The number of elements that a comparison can use: the finite ones. NaN equals nothing."""
    if expected.is_floating_point() and expected.numel() and isfinite(_greatest(expected)):  # much quicker
        return expected.numel()
    return int(expected.isfinite().sum())


def difference(expected: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Absolute deviation of every element, in the shape of both tensors.

    It is infinite where one is NaN, 0 where both are, which measures nothing, and 0 or 1 where they are no floats.
    """
    if not expected.is_floating_point() and not expected.is_complex():
        return (expected != actual).to(torch.float64)
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    distance = (expected - actual).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    return torch.where(same, torch.zeros_like(distance), distance)


def magnitude(tensor: torch.Tensor) -> float:
    """The greatest finite magnitude of a tensor of any shape, that of masks apart; 0 where there is none."""
    size = tensor.abs() if tensor.is_complex() else tensor.to(torch.float64).abs()
    size = size[size < _HUGE]
    return float(size.max()) if size.numel() else 0.0


def mask_level(tensor: torch.Tensor) -> float | None:
    """The magnitude from which on elements of a tensor are masks, such as -1e9; None where there are none.

    They are 1,000 and more, and far from all others: nothing lies in the ten powers of two below them. Their rounding
    is as large as other elements.
    """
    size = tensor.abs() if tensor.is_complex() else tensor.to(torch.float64).abs()
    powers = torch.frexp(size[size.isfinite() & (size > 0)])[1].unique()
    gaps = [i for i in range(1, len(powers)) if powers[i] - powers[i - 1] > _GAP and powers[i] > _GAP]
    return 2.0 ** int(powers[gaps[-1]] - 1) if gaps else None


def relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Greatest deviation of two tensors of one shape over the greatest magnitude of the expected one.

    It is 0 where nothing can be measured: see ``measured_elements``. Elements that are huge, masks as a rule, are held
    against their own magnitude.
    """
    if expected.numel() == 0 or torch.equal(expected, actual):
        return 0.0
    if not expected.is_floating_point() and not expected.is_complex():
        return float("inf")
    size, furthest = _greatest(expected), _greatest(expected - actual)
    if size < _HUGE and isfinite(furthest):  # nearly always, and much quicker
        return furthest / max(size, 1e-300)
    return _relative_error_beside_masks(expected, actual)


def _greatest(tensor: torch.Tensor) -> float:
    """The greatest magnitude, NaN where any is; in one look at the tensor, if it is real."""
    if tensor.is_complex():
        return float(tensor.abs().max())
    least, most = torch.aminmax(tensor)
    return float(torch.maximum(-least, most))


def _relative_error_beside_masks(expected: torch.Tensor, actual: torch.Tensor) -> float:
    distance = difference(expected, actual)
    own = expected.abs()
    huge = (own >= _HUGE) & own.isfinite()
    of_masks = float((distance[huge] / own[huge]).max()) if huge.any() else 0.0
    of_others = float(distance[~huge].max()) if not huge.all() else 0.0
    return max(of_masks, of_others / max(magnitude(expected), 1e-300))
