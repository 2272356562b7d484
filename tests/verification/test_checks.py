"""A check that measured nothing is no check: NaN, infinities, empty results."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from graphclone.verification.checks import Check, NoiseFloor, Report, judge, noise_floor
from graphclone.verification.distance import mask_level
from tests.support.clones import features, seeded, spoilable, spoiled_tensors


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_measures_nothing_is_no_pass(number: float) -> None:
    """Where the source has no finite element, a clone that has a number is wrong, and one that has none unproven."""
    exact = torch.full((2,), number, dtype=torch.float64)
    alike = noise_floor("y", (exact, exact.float()), (exact, exact.float()))
    assert (alike.elements, alike.ok) == (0, None)
    assert noise_floor("y", (exact, exact.float()), (exact, torch.zeros(2))).ok is False
    half = torch.tensor([number, 1.0])
    floor = noise_floor("y", (half.double(), half), (half.double(), half))
    assert (floor.elements, floor.ok) == (1, True)
    assert (alike | floor).ok is True
    empty = torch.empty(0)
    assert noise_floor("y", (empty.double(), empty), (empty.double(), empty)).ok is None


@pytest.mark.parametrize("mask", [-1e4, -1e9, -3e38])
@pytest.mark.parametrize("added", [False, True])
def test_masks_are_measured_by_themselves(mask: float, added: bool) -> None:
    """Their rounding may be as large as all that lies beside them."""
    numbers = torch.linspace(-3, 3, 12, dtype=torch.float64)
    exact = numbers.clone()
    exact[::4] = exact[::4] + mask if added else mask
    own = exact.float()
    assert noise_floor("y", (exact, own), (exact, own)).ok is True
    wrong = own.clone()
    wrong[1] += 1e-3
    assert noise_floor("y", (exact, own), (exact, wrong)).ok is False
    wrong = own.clone()
    wrong[4] *= 1.001
    assert noise_floor("y", (exact, own), (exact, wrong)).ok is False


def test_what_differs_gradually_has_no_masks() -> None:
    assert mask_level(torch.logspace(-6, 9, 100)) is None
    assert mask_level(torch.tensor([0.0, 1e-9, 1.0])) is None
    assert mask_level(torch.tensor([-1e9, 0.5, math.nan, -math.inf])) == 2.0**29


def test_an_infinite_error_is_never_allowed() -> None:
    """However bad the source is: a source that is infinitely wrong says nothing about a clone."""
    assert NoiseFloor("y", math.inf, math.inf).ok is False
    assert NoiseFloor("y", math.inf, 1.0).ok is None
    assert NoiseFloor("y", math.inf, math.inf).ratio == math.inf


def test_an_output_that_was_not_measured_is_a_check_not_made() -> None:
    good, void = NoiseFloor("a", 1e-7, 1e-7), NoiseFloor("b", elements=0)
    check = judge("noise floor", [[good, void], [good, void]])
    assert check.ok is None
    assert check.summary == "not checked: b: the source has no finite element there"
    assert judge("noise floor", [[good, void], [good, good]]).ok is True
    assert judge("noise floor", [[good, void], [NoiseFloor("a", 0.0, 1.0), void]]).ok is False
    assert judge("noise floor", []).ok is None


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_model_that_returns_no_numbers_is_not_said_to_be_checked(number: float) -> None:
    """Any clone at all would compute the same."""

    class Void(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.tanh(self.up(x))).abs() + number

    report = spoilable(Void(), features(3, 6)).verify()
    assert [check.ok for check in report.checks] == [None, True, None, None, None]
    assert all("no finite element" in check.summary for check in report.checks if check.name != "static")
    assert report.verdict == "cannot be judged"


def test_overflow_in_low_precision_is_held_against_the_source_itself() -> None:
    """In float16 the third column overflows in source and clone; in float64 it does not. The others are measured."""

    class Overflowing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)
            self.register_buffer("factor", torch.tensor([1.0, 1.0, 6e4, 1.0, 1.0]))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = (self.down(torch.tanh(self.up(x))).abs() + 8) * self.factor
            return y

    made = spoilable(seeded(Overflowing).half(), features(3, 6).half())
    assert made.verify(onnx=False).ok
    spoiled = made.verify(onnx=False, tensors=spoiled_tensors(made, "up.weight", 9.0))
    assert [check.name for check in spoiled.checks if check.ok is False] == ["noise floor"]


@pytest.mark.parametrize("names", [("trace", "static"), ("trace", "static", "depth"), ("depth",)])
def test_what_looks_at_one_side_alone_is_no_comparison(names: tuple[str, ...]) -> None:
    """New blocks are compared with the source before it is widened."""
    checks = [*(Check(name, True, "") for name in names), Check("exact", None, "not checked")]
    assert Report("model", tuple(checks)).verdict == "cannot be judged"
