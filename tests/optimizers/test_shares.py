"""What every copy has of a gradient, against autograd in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from graphclone.algebra.growth import PAD
from graphclone.api import clone
from graphclone.clones.clone import Clone
from graphclone.models import Built
from graphclone.optimizers.shares import Share, shares
from tests.support.following import built

_ORTHOGONAL = [[0.8, 0.2], [-1 / 3, 4 / 3]]


def _gradients(module: nn.Module, source: Built) -> dict[str, Tensor]:
    """Of a function of all that is returned, in which every element counts differently."""
    module.zero_grad()
    leaves = pytree.tree_leaves(module(*source.args, **source.kwargs))
    results = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    weights = [torch.randn(r.shape, generator=torch.Generator().manual_seed(3), dtype=r.dtype) for r in results]
    sum(((r * w).tanh().sum() for r, w in zip(results, weights, strict=True)), torch.zeros(())).backward()
    named = module.named_parameters(remove_duplicate=False)
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named}


def _expected(made: Clone, name: str, share: Share, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of a parameter of the clone by its share, and where it says something, which pads are not."""
    value = next(i.value for i in made.graph.initializers if name in i.names)
    held = torch.ones(())
    for at, (vector, axis) in enumerate(zip(share.gradient, made.state.facts.of[value], strict=True)):
        index = made.state.layout(axis).index_map
        shape = [-1 if other == at else 1 for other in range(gradient.dim())]
        gradient = gradient.index_select(at, torch.from_numpy(np.maximum(index, 0)))
        gradient = gradient * torch.from_numpy(vector).view(shape)
        held = held * torch.from_numpy(index != PAD).view(shape)
    return gradient / share.scale, held


def _check(source: Built, tolerance: float = 1e-12, **options: Any) -> dict[str, Share]:
    """Compare all gradients that are said to be multiples of the source's; the shares."""
    made = clone(source.module, source.args, source.kwargs, **options)
    before, after = _gradients(source.module, source), _gradients(made.module(), source)
    largest = max(float(gradient.abs().max()) for gradient in before.values())
    found = shares(made.state)
    for name in before:
        if found[name].doubt is None:
            expected, held = _expected(made, name, found[name], before[name])
            error = float(((expected - after[name]) * held).abs().max())
            assert error <= tolerance * largest, f"{name}: {error / largest:.1e}"
    return found


def _doubts(found: dict[str, Share]) -> set[str]:
    return {name for name, share in found.items() if share.doubt}


@pytest.mark.parametrize("name", ["opt", "gpt2", "resnet-basic", "mobilenet", "lstm", "encoder"])
def test_symmetric_clones_share_every_gradient_alike(name: str) -> None:
    assert not _doubts(_check(built(name), widen=3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma", "t5"])
def test_where_code_computes_in_float32(name: str) -> None:
    """Only as exactly as that; tied embeddings, numbers added to weights, and scales are among them."""
    assert not _doubts(_check(built(name), 1e-5, widen=2))


@pytest.mark.parametrize("name", ["unet", "mobilenet"])
def test_unequal_shares_are_handed_back_where_every_index_goes_its_own_way(name: str) -> None:
    found = _check(built(name), widen=2, strategy="diagonal")
    assert any(set(vector) == {0.0, 1.0} for share in found.values() for vector in share.gradient)
    assert not _doubts(found)


def test_copies_that_two_readers_weigh_differently_have_no_shares() -> None:
    """The skip of a U-Net is read at once and on its way down; what lies past it is exact."""
    found = _check(built("unet"), widen=2, strategy=_leaning)
    assert _doubts(found) == {"fine.0.weight", "fine.1.weight", "fine.1.bias"}


def _leaning(rows: int, columns: int) -> Any:
    """Every row leans towards another column."""
    matrix = np.full((rows, columns), 0.5 / columns)
    matrix[np.arange(rows), np.arange(rows) % columns] += 0.5
    return matrix


@pytest.mark.parametrize("name", ["mlp", "lstm-bidirectional"])
@pytest.mark.parametrize("strategy", ["diagonal", "noisy-symmetric", "noisy-diagonal"])
def test_doubt_covers_all_that_is_not_exact(name: str, strategy: str) -> None:
    """What is left without a doubt is exact, and the last weight has none."""
    found = _check(built(name), widen=2, strategy=strategy)
    assert list(found.values())[-1].doubt is None


def test_a_norm_needs_equal_shares() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.Tanh(), nn.Linear(10, 5)).double()
    found = _check(Built(module, (torch.randn(3, 6, dtype=torch.float64),), {}), strategy="diagonal")
    assert "layer_norm" in (found["0.weight"].doubt or "")
    assert found["3.weight"].doubt is None


def test_behind_noise_nothing_is_known() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 5)).double()
    found = _check(Built(module, (torch.randn(3, 6, dtype=torch.float64),), {}), strategy="noisy-symmetric")
    assert found["0.weight"].doubt == "linear_1 reads its copies through noise"
    assert found["2.bias"].doubt is None


def test_a_value_that_is_read_in_two_ways() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.a, self.b = nn.Linear(6, 10), nn.Linear(10, 5), nn.Linear(10, 10)
            self.c = nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.up(x)
            result: Tensor = self.a(hidden) + self.c(torch.tanh(self.b(hidden)))
            return result

    source = Built(Two().double(), (torch.randn(3, 6, dtype=torch.float64),), {})
    found = _check(source, strategy=lambda rows, columns: np.roll(np.eye(columns), 1, 1)[np.arange(rows) % columns])
    assert "read by several" in (found["up.weight"].doubt or "")


@pytest.mark.parametrize("name", ["encoder-norm-first", "mlp"])
def test_pads_under_a_norm_that_takes_off_the_mean(name: str) -> None:
    """What holds the mean there has no share; all else is exact but for the pads themselves."""
    widen = {"hidden": 1.5} if name != "mlp" else 1.5
    found = _check(built(name), widen=widen)
    assert 0 < len(_doubts(found)) < len(found) / 2


@pytest.mark.parametrize("name", ["qwen3"])
def test_pads_of_zeros(name: str) -> None:
    found = _check(built(name), 1e-5, widen={"hidden": 1.5})
    assert not _doubts(found)


def test_copies_that_are_no_whole_number_have_shares_by_index() -> None:
    """The heads, ffn and channels of uneven growth; half of the indices have one copy more."""
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 5)).double()
    found = _check(Built(module, (torch.randn(3, 6, dtype=torch.float64),), {}), widen=1.5)
    assert found["0.weight"].gradient[0].tolist() == [0.5] * 5 + [1.0] * 5 + [0.5] * 5
    assert found["2.weight"].uneven and not found["0.weight"].uneven


def test_outputs_that_grow_leave_it_open_what_a_loss_does_with_them() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.Tanh()).double()
    made = clone(module, (torch.randn(3, 6, dtype=torch.float64),), widen=2, widen_io=["*"])
    assert "has grown" in (shares(made.state)["0.weight"].doubt or "")
