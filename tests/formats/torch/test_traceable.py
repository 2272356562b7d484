"""Code that asks for numbers, or puts weights back into their places, and computes the same without."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal

import graphclone as gc
from tests.support.clones import features, seeded


class Likelihood(nn.Module):
    """The arguments of a distribution are checked, which asks for numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.mean, self.spread = nn.Linear(4, 10), nn.Linear(10, 3), nn.Linear(10, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = torch.tanh(self.inner(x))
        found: Tensor = -Normal(self.mean(h), nn.functional.softplus(self.spread(h))).log_prob(y)  # type: ignore[no-untyped-call]
        return found


class Converted(nn.Module):
    """Weights are converted in every call, to what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(4, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.inner = self.inner.to(x.dtype)
        found: Tensor = self.out(torch.relu(self.inner(x))) - y
        return found


@pytest.mark.parametrize("kind", [Likelihood, Converted])
def test_a_clone_computes_what_the_model_does(kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distribution, "_validate_args", True)  # which other libraries turn off
    module, (x, y) = seeded(kind), (features(5, 4), features(5, 3))
    clone = gc.clone(module, (x, y), widen=2)
    assert clone.state_dict()["inner.weight"].shape == (20, 4)
    torch.testing.assert_close(clone.module()(x[:3], y[:3]), module(x[:3], y[:3]), rtol=0, atol=1e-5)
    assert clone.verify(onnx=False).ok
    with pytest.raises(ValueError, match="Expected parameter"):
        Normal(torch.zeros(1), -torch.ones(1))  # type: ignore[no-untyped-call]
