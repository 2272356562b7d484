"""Code that decides by what the model itself holds."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import nn

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.models.randomise import randomise


class Net(nn.Module):
    """Two layers, with flags and places in buffers and beside them."""

    def __init__(self, flags: list[bool]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4, elementwise_affine=False)  # whose parameters are None
        self.register_buffer("ready", torch.tensor(True))
        self.register_buffer("flags", torch.tensor(flags))
        self.register_buffer("level", torch.tensor(0.5))
        self.register_buffer("codes", torch.arange(64))
        self.marks = torch.tensor(flags)
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.first, self.second = nn.Linear(4, 12), nn.Linear(12, 3)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.relu(self.first(x)))
        return result


class Flagged(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if self.ready else x)


class Computed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if not self.ready or (self.flags & self.marks).sum() > 2 else x * 3)


class Looped(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.stack([x[:, i] * 2 if mark else x[:, i] for i, mark in enumerate(self.marks)], 1))


class Placed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (on,) = self.flags.nonzero(as_tuple=True)
        off = (~self.flags).nonzero().squeeze(-1)
        return self.head(torch.cat([x[:, off], x[:, on].exp()], 1))


class Timed(Net):
    """Times that the code makes are looked at as often as anybody wants to."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        times = torch.linspace(0, 1, 5)
        steps = times[1:] > times[:-1]
        if not (steps.all() or (~steps).all()):
            raise ValueError("times must increase or decrease")
        return self.head(x * times[-1] if times[0] < times[-1] else x)


class Counting(Net):
    """A comparison of sizes with the model's own numbers is none of those numbers alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = self.codes[: x.shape[0]]
        return self.head(x + codes[:, None] * (1 if self.ready else 2))


@pytest.mark.parametrize("kind", [Flagged, Computed, Looped, Placed, Timed, Counting])
@pytest.mark.parametrize("flags", [[True, False, True, True], [False, False, True, False]])
def test_a_clone_decides_as_the_model_does(kind: type[Net], flags: list[bool]) -> None:
    model = randomise(kind(flags)).double().eval()
    clone = gc.clone(model, (torch.randn(5, 4).double(),), widen=2)
    clone.verify(onnx=False).raise_if_failed()
    assert clone.state_dict()["first.weight"].shape == (24, 4)
    for count in (2, 9):
        x = torch.randn(count, 4).double()
        torch.testing.assert_close(clone.module()(x), model(x), rtol=1e-12, atol=1e-12)


def test_a_note_says_by_what() -> None:
    notes = gc.clone(Computed([True] * 4).eval(), (torch.randn(5, 4),)).state.graph.notes
    assert "the code decides by what flags, ready hold, and the clone as it was" in notes


class ByParameter(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if self.gain > 0 else x)


class ByStatistics(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if self.level > 0 else x)


class ByInput(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if (x[0, 0] > 0) & self.ready else x)


class ByChance(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if torch.rand_like(self.flags.double()).sum() > 2 else x)


class Written(Net):
    """The buffer that decides holds, by then, what was computed from the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.flags[0].fill_(x.sum() > 0)
        return self.head(x * 2 if self.flags.any() else x)


class BySizes(Net):
    """What is made of a size of the input is another for another input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x * 2 if torch.arange(x.shape[0]).sum() > 12 else x)


class WrittenInPlace(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(3)
        zeros[0] = x.sum()
        return self.head(x * 2 if zeros.any() else x)


@pytest.mark.parametrize("kind", [ByParameter, ByStatistics, ByInput, ByChance, Written, WrittenInPlace])
def test_what_may_be_otherwise_in_another_run_is_refused(kind: type[Net]) -> None:
    with pytest.raises(GraphcloneError, match="depends on numbers that it has computed"):
        gc.clone(kind([False] * 4).eval(), (torch.randn(5, 4),))


def test_what_is_made_of_a_size_holds_for_that_size_or_is_refused() -> None:
    model = randomise(BySizes([False] * 4)).eval()
    try:
        wide = gc.clone(model, (torch.randn(5, 4),)).module()
    except GraphcloneError:
        return
    for count in (5, 7):
        x = torch.randn(count, 4)
        with suppress(GraphcloneError, ValueError):
            torch.testing.assert_close(wide(x), model(x))


class Initialised(Net):
    """The first run changes what all others decide by."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.flags.any():
            self.level.copy_(x.mean())
            self.flags.fill_(False)
        return self.head(x * self.level)


class Counted(Net):
    """The hundredth run is another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2 if self.codes[0] > 100 else x
        self.codes += 1
        return self.head(x)


class CountedBeside(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2 if self.marks.sum() > 100 else x
        self.marks += True
        return self.head(x)


class Replaced(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 2 if self.codes[0] > 100 else x
        self.codes = self.codes + 1
        return self.head(x)


class ReplacedByInput(Net):
    """By then the buffer is what was computed from the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.ready = x.sum() > 0
        return self.head(x * 2 if self.ready else x)


@pytest.mark.parametrize("kind", [Initialised, Counted, CountedBeside, Replaced, ReplacedByInput])
def test_what_a_run_changes_is_refused(kind: type[Net]) -> None:
    model = kind([True] * 4).eval()
    before = model.flags.clone(), model.codes.clone(), model.marks.clone()
    with pytest.raises(GraphcloneError, match=r"which it writes to as well|depends on numbers that it has computed"):
        gc.clone(model, (torch.randn(5, 4),))
    for now, then in zip((model.flags, model.codes, model.marks), before, strict=True):
        assert torch.equal(now, then)


def test_a_wider_module_that_decides_by_other_numbers_is_refused() -> None:
    model = randomise(Computed([True] * 4)).eval()
    big = Computed([False] * 4).eval()
    big.first, big.second = nn.Linear(4, 24), nn.Linear(24, 3)
    big.marks = model.marks
    with pytest.raises(GraphcloneError, match="decides by what flags holds; let both models hold the same there"):
        gc.clone(model, (torch.randn(5, 4),), into=big)
    assert not big.flags.any()
    big.flags.fill_(True)
    gc.clone(model, (x := torch.randn(5, 4),), into=big)
    torch.testing.assert_close(big(x), model(x))
