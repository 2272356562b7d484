"""The trace check: the user's module is run, and whatever its trace does not do is found."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.running import RunError, run_module
from tests.support.clones import features, seeded


class Plain(nn.Module):
    """(batch, 6) -> (batch, 5)"""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

    def between(self, h: Tensor) -> Tensor:
        return torch.tanh(h)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.between(self.up(x)))


def verified(module: nn.Module, x: Tensor | None = None) -> Any:
    return gc.clone(module, (features(3, 6) if x is None else x,)).verify(onnx=False)


def trace_check(module: nn.Module) -> Any:
    report = verified(module.eval())
    assert report.checks[0].name == "trace"
    return report.checks[0]


def test_a_trace_that_is_the_model_passes() -> None:
    check = trace_check(seeded(Plain))
    assert check.ok
    assert check.worst.ratio <= 4


def test_the_length_of_a_text_of_a_size_leaves_no_guard_and_is_found() -> None:
    class Text(Plain):
        def between(self, h: Tensor) -> Tensor:
            return torch.tanh(h) * len(str(h.shape[0]))

    check = trace_check(seeded(Text))
    assert check.ok is False
    assert "the model computes something else than its trace" in str(check.first)


def test_what_differs_for_other_sizes_only_is_found() -> None:
    class Exporting(Plain):
        def between(self, h: Tensor) -> Tensor:
            return torch.tanh(h) * (1 if torch.compiler.is_exporting() or h.shape[0] == 3 else 2)

    check = trace_check(seeded(Exporting))
    assert check.ok is False
    assert "(seed 1) the model computes something else than its trace" in str(check.first)


def test_a_counter_in_python_is_found_by_a_second_call() -> None:
    class Counting(Plain):
        calls = 0

        def between(self, h: Tensor) -> Tensor:
            self.calls += 1
            return torch.tanh(h) * self.calls

    module = seeded(Counting)
    check = trace_check(module)
    assert check.ok is False
    assert "called again, the model computes something else than its trace" in str(check.first)
    assert module.calls == 0
    with pytest.raises(gc.GraphcloneError, match=r"called again, .* so its clone would be another model"):
        gc.clone(module, (features(3, 6),)).module()


def test_a_counter_beside_a_mean_that_runs_is_found() -> None:
    """What the trace keeps from call to call explains nothing of what it does not keep."""

    class Both(Plain):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(10))

        def between(self, h: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(h.detach().mean(0))
            self.calls += 1
            return torch.tanh(h + self.mean) * (1 + self.calls / 10)

    assert trace_check(seeded(Both)).ok is False


@pytest.mark.parametrize("as_written", [".pt2", ".onnx"])
def test_no_clone_is_handed_out_of_a_trace_that_is_another_model(tmp_path: Path, as_written: str) -> None:
    class Compiled(Plain):
        def between(self, h: Tensor) -> Tensor:
            return torch.tanh(h) if torch.compiler.is_compiling() else h

    clone = gc.clone(seeded(Compiled), (features(3, 6),), widen=2)
    with pytest.raises(gc.GraphcloneError, match="the model computes something else than its trace"):
        clone.save(tmp_path / f"clone{as_written}")
    with pytest.raises(gc.GraphcloneError, match="so its clone would be another model"):
        clone.module()


def test_what_a_first_call_keeps_for_later_ones_is_found() -> None:
    """Called again with the same inputs, it computes the same."""

    class Initialised(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.known = False
            self.register_buffer("mean", torch.zeros(10))

        def between(self, h: Tensor) -> Tensor:
            if not self.known:
                self.mean.copy_(h.detach().mean(0))
                self.known = True
            return torch.tanh(h - self.mean)

    assert trace_check(seeded(Initialised)).ok is False


def test_a_tensor_that_is_no_buffer_may_be_written() -> None:
    class Running(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.zeros(10)

        def between(self, h: Tensor) -> Tensor:
            self.mean.mul_(0.9).add_(h.detach().mean(0))
            return torch.tanh(h + self.mean)

    module = seeded(Running)
    assert trace_check(module).ok
    assert not module.mean.any()


@pytest.mark.parametrize("added", [False, True])
def test_masks_hide_nothing_that_lies_beside_them(added: bool) -> None:
    class Masked(Plain):
        def forward(self, x: Tensor) -> Any:
            y, hidden = super().forward(x), torch.tensor([False, True, False, False, True])
            y = y * (1 if torch.compiler.is_exporting() else 1.001)
            return y + hidden * -1e9 if added else y.masked_fill(hidden, -1e9)

    assert trace_check(seeded(Masked)).ok is False


def test_a_counter_that_changes_nothing_is_let_be() -> None:
    class Counting(Plain):
        calls = 0

        def between(self, h: Tensor) -> Tensor:
            self.calls += 1
            return torch.tanh(h)

    assert trace_check(seeded(Counting)).ok


def test_a_state_outside_of_the_module_is_found() -> None:
    numbers = itertools.count(1)

    class Global(Plain):
        def between(self, h: Tensor) -> Tensor:
            return torch.tanh(h) * next(numbers)

    assert trace_check(seeded(Global)).ok is False


@pytest.mark.parametrize("train", [False, True])
def test_random_numbers_are_the_same_on_both_sides(train: bool) -> None:
    class Random(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Any:
            return self.drop(self.down(torch.tanh(self.up(x)) * torch.rand(x.shape[0], 1)))

    report = gc.clone(seeded(Random).train(train), (features(3, 6),)).verify()
    assert report.ok, str(report)
    assert report.checks[0].worst.clone <= 1e-6
    assert report.check("noise floor").worst.source < 1e-5  # of rounding, not of chance
    assert "random numbers" in report.check("ONNX Runtime").summary


def test_padding_is_computed_as_the_trace_does() -> None:
    """In eval mode torch's encoder leaves out what is padding, unless it is told not to."""
    layer = seeded(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    encoder = seeded(lambda: nn.TransformerEncoder(layer, 1)).eval()
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[:, 3:] = True
    report = gc.clone(encoder, (features(3, 5, 8),), {"src_key_padding_mask": padding}).verify(onnx=False)
    assert report.ok, str(report)


def test_a_module_that_cannot_be_run_is_no_finding_against_the_clone() -> None:
    class Failing(Plain):
        def forward(self, x: Tensor) -> Any:
            if not torch.compiler.is_exporting():
                raise RuntimeError("not today")
            return super().forward(x)

    clone = gc.clone(seeded(Failing).eval(), (features(3, 6),))
    with pytest.raises(RunError, match="Failing cannot be run: RuntimeError: not today"):
        clone.verify(onnx=False)


def test_results_that_are_no_tensors_are_compared() -> None:
    class Two(Plain):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), 3, None

    module, x = seeded(Two).eval(), features(3, 6)
    clone = gc.clone(module, (x,))
    assert clone.verify(onnx=False).ok
    clone.graph.outputs[1] = type(clone.graph.outputs[1])("1", 4)
    with pytest.raises(RunError, match="1 is 3, in its trace 4"):
        run_module(module, clone.graph, Example((x,)), (x,))


# A clone into a wide module is run there


class Grouped(nn.Module):
    """(batch, 6) -> (batch, 5)"""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(6, width), nn.GroupNorm(groups, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Any:
        return self.down(torch.tanh(self.norm(self.up(x))))


def grouped(width: int, groups: int) -> nn.Module:
    made: nn.Module = seeded(lambda: Grouped(width, groups)).eval()
    return made


def test_the_wide_module_itself_is_run() -> None:
    small, big, x = grouped(8, 4), grouped(16, 8), features(3, 6)
    clone = gc.clone(small, (x,), into=big)
    report = clone.verify(onnx=False)
    assert report.ok, str(report)
    assert [check.name for check in report.checks] == ["trace", "static", "exact", "noise floor", "wide module"]


def test_a_wide_module_that_computes_something_else_is_found() -> None:
    small, big, x = grouped(8, 4), grouped(16, 8), features(3, 6)
    clone = gc.clone(small, (x,), into=big)
    big.norm.num_groups = 4
    check = clone.verify(onnx=False).checks[-1]
    assert (check.name, check.ok) == ("wide module", False)


def test_the_weights_of_the_wide_module_are_left_alone() -> None:
    """It may have been trained on since."""
    small, big, x = grouped(8, 4), grouped(16, 8), features(3, 6)
    clone = gc.clone(small, (x,), into=big)
    with torch.no_grad():
        big.up.weight.zero_()
    assert clone.verify(onnx=False).ok
    assert not big.up.weight.any()


def test_a_wide_module_without_data_is_not_run() -> None:
    with torch.device("meta"):
        big = Grouped(16, 8).eval()
    check = gc.clone(grouped(8, 4), (features(3, 6),), into=big).verify(onnx=False).checks[-1]
    assert (check.name, check.ok) == ("wide module", None)
