"""How far apart copies are: in clones where it is known, and in clones that are trained."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import graphclone as gc
from graphclone.algebra.growth import Concat, Growth, Layout, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import STRATEGIES, FloatArray, StrategyLike
from graphclone.clones.clone import Clone
from graphclone.runtime.kernel import widen
from graphclone.study.symmetry import copy_cosine, effective_rank, measure, recipes_of, shift, swap_cosine
from tests.support.clones import seeded

COSINES = ("row_cosine", "column_cosine", "swap_cosine")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def perceptron(**options: object) -> Clone:
    """A clone of 4 -> 6 -> 5 -> 3, in float64."""
    layers = seeded(lambda: [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)])
    return gc.clone(nn.Sequential(*layers).double().eval(), (normal(8, 4),), **options)  # type: ignore[arg-type]


def diagonal_inside(n_out: int, n_in: int) -> FloatArray:
    """Diagonal, but where the output does not grow all copies have an equal share."""
    return np.eye(n_in)[np.arange(n_out) % n_in] if n_out > 1 else np.full((1, n_in), 1 / n_in)


def cosines(made: Clone) -> list[float | None]:
    measured = measure(made.state_dict().items(), recipes_of(made))
    return [measured[name] for name in COSINES]


# --- Clones ---


@pytest.mark.parametrize("factor", [2, 3])
def test_a_symmetric_clone_is_its_own_copies(factor: int) -> None:
    assert cosines(perceptron(widen=factor)) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("factor", [2, 3])
def test_a_diagonal_clone(factor: int) -> None:
    """Rows: 1 in the first layer, 0 in the second. Columns: 0 in the second, and the last, [W, 0], has no pair.

    Swap: 1 and 1, and 0 in the last.
    """
    assert cosines(perceptron(widen=factor, strategy="diagonal")) == pytest.approx([1 / 2, 0, 2 / 3], abs=1e-12)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_swap_cosine_sees_what_the_row_cosine_does_not(factor: int) -> None:
    """Row cosines as in any diagonal clone; columns 0 and 1, for the second layer and the last."""
    assert cosines(perceptron(widen=factor, strategy=diagonal_inside)) == pytest.approx([1 / 2, 1 / 2, 1], abs=1e-12)


def test_the_louder_the_noise_the_further_the_copies() -> None:
    quiet, loud = (cosines(perceptron(strategy="noisy-symmetric", snr_db=snr)) for snr in (30, 0))
    for low, high in zip(loud, quiet, strict=True):
        assert low is not None and high is not None
        assert low < 0.9
        assert 0.99 < high < 1 - 1e-6


def test_noise_at_a_known_ratio() -> None:
    """[W/2 + n, W/2 - n] with |n|^2 = |W/2|^2 / 10: cosine of the columns (1 - 0.1) / (1 + 0.1) on average."""
    recipe = Widening("w", (rigid(2000), Leaf(Growth(20, 2))), (1,), STRATEGIES["noisy-symmetric"])
    wide = widen(normal(2000, 20), recipe)
    assert copy_cosine(wide.T, recipe.axes[1]) == pytest.approx(0.9 / 1.1, abs=0.01)
    assert swap_cosine(wide, recipe.axes) == pytest.approx(0.9 / 1.1, abs=0.01)


def test_a_tied_weight_has_all_its_names_and_one_vote() -> None:
    made = gc.clone(*seeded(lambda: (Tied().double().eval(), (torch.arange(6).reshape(2, 3),))))
    recipes = recipes_of(made)
    assert recipes["embed.weight"] is recipes["head.weight"]
    state = made.state_dict()
    once = {name: tensor for name, tensor in state.items() if name != "head.weight"}
    assert measure(state.items(), recipes) == measure(once.items(), recipes)


@pytest.mark.parametrize("strategy", ["symmetric", "diagonal"])
def test_an_attention_block_with_a_tied_head_keeps_every_swap(strategy: str) -> None:
    made = gc.clone(*seeded(lambda: (Tied().double().eval(), (torch.arange(6).reshape(2, 3),))), strategy=strategy)
    state, recipes = made.state_dict(), recipes_of(made)
    swaps = {name: swap_cosine(t, recipes[name].axes) for name, t in state.items() if t.ndim == 2}
    assert len(swaps) == 6
    assert list(swaps.values()) == pytest.approx([1.0] * 6)


class Tied(nn.Module):
    """Attention between an embedding and itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(7, 8), nn.LayerNorm(8), nn.Linear(8, 7, bias=False)
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (each(x).unflatten(-1, (2, 4)).transpose(1, 2) for each in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)
        out: Tensor = self.head(self.norm(x + self.o(attended)))
        return out


# --- Training ---


def trained(made: Clone, optimizer: type[torch.optim.Optimizer]) -> dict[str, float | None]:
    """The measures after 60 steps towards targets that have nothing to do with the copies."""
    wide = made.module()
    inputs, targets = normal(32, 4), normal(64, 3)[32:]
    update = optimizer(wide.parameters(), lr=0.01)  # type: ignore[call-arg]
    for _ in range(60):
        update.zero_grad()
        F.mse_loss(wide(inputs), targets).backward()
        update.step()
    return measure(wide.named_parameters(), recipes_of(made))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("strategy", ["symmetric", diagonal_inside])
def test_training_keeps_the_swap(strategy: StrategyLike, optimizer: type[torch.optim.Optimizer]) -> None:
    made = perceptron(strategy=strategy)
    begun, ended = measure(made.state_dict().items(), recipes_of(made)), trained(made, optimizer)
    assert ended["swap_cosine"] == pytest.approx(1, abs=1e-9)
    assert ended["effective_rank"] != begun["effective_rank"], "it did train"


@pytest.mark.parametrize("strategy", ["noisy-symmetric", "noisy-diagonal", "diagonal"])
def test_training_parts_copies_that_differ_somewhere(strategy: str) -> None:
    """A diagonal clone differs in its last layer, [W, 0]."""
    made = perceptron(strategy=strategy)
    begun, ended = cosines(made)[2], trained(made, torch.optim.AdamW)["swap_cosine"]
    assert begun is not None and ended is not None
    assert ended < begun - 0.05


# --- The measures alone ---


def layouts() -> st.SearchStrategy[Layout]:
    kinds = st.sampled_from(["tile", "interleave"])
    regular = st.builds(Growth, st.integers(1, 4), st.integers(1, 3), kinds).map(Leaf)
    explicit = st.lists(st.integers(-1, 2), min_size=1, max_size=6).map(lambda g: Leaf(Growth.explicit(3, g)))
    leaves = st.one_of(regular, explicit)
    parts = st.lists(leaves, min_size=1, max_size=3).map(tuple)
    return st.one_of(leaves, parts.map(Product), parts.map(Concat)).filter(lambda layout: layout.new_size <= 64)


@given(layouts())
def test_a_shift_permutes_copies_of_the_same(layout: Layout) -> None:
    shifted = shift(layout)
    assert sorted(shifted) == list(range(layout.new_size))
    assert (layout.index_map[shifted] == layout.index_map).all()


@pytest.mark.parametrize(
    ("layout", "shifted"),
    [
        (Leaf(Growth(3, 2)), [3, 4, 5, 0, 1, 2]),
        (Leaf(Growth(2, 3, "interleave")), [1, 2, 0, 4, 5, 3]),
        (Leaf(Growth.explicit(2, [0, 1, -1, 1, 1])), [0, 3, 2, 4, 1]),
        (Concat((rigid(2), Leaf(Growth(1, 2)))), [0, 1, 3, 2]),
        (Product((Leaf(Growth(2, 2)), rigid(2))), [4, 5, 6, 7, 0, 1, 2, 3]),
        (Product((Leaf(Growth(1, 2)), Leaf(Growth(1, 3)))), [4, 5, 3, 1, 2, 0]),
    ],
)
def test_every_dim_shifts_on_its_own(layout: Layout, shifted: list[int]) -> None:
    assert shift(layout).tolist() == shifted


@given(layouts())
def test_the_cosine_of_copies_is_the_mean_over_all_pairs(layout: Layout) -> None:
    matrix = normal(layout.new_size, 3)
    matrix[::5] = 0
    means = []
    for source in range(layout.size):
        rows = [matrix[at] for at in np.flatnonzero(layout.index_map == source) if matrix[at].any()]
        pairs = [float(F.cosine_similarity(a, b, dim=0)) for a, b in combinations(rows, 2)]
        means += [sum(pairs) / len(pairs)] if pairs else []
    expected = sum(means) / len(means) if means and layout.grows else None
    assert copy_cosine(matrix, layout) == (None if expected is None else pytest.approx(expected, abs=1e-9))


@pytest.mark.parametrize("kind", ["tile", "interleave"])
@pytest.mark.parametrize(("strategy", "row"), [("symmetric", 1), ("diagonal", 0)])
def test_interleaved_copies_are_copies(strategy: str, row: int, kind: str) -> None:
    axes = (Leaf(Growth(4, 3, kind)), Leaf(Growth(5, 3, kind)))  # type: ignore[arg-type]
    wide = widen(normal(4, 5), Widening("w", axes, (1,), STRATEGIES[strategy]))
    assert copy_cosine(wide, axes[0]) == pytest.approx(row)
    assert copy_cosine(wide.T, axes[1]) == pytest.approx(row)
    assert swap_cosine(wide, axes) == pytest.approx(1)


def test_cosines_of_a_small_matrix() -> None:
    """[[1, 2], [3, 4]] of one row and column: (3 + 8) / sqrt(5 * 25), (2 + 12) / sqrt(10 * 20), 2 (4 + 6) / 30."""
    axes = (Leaf(Growth(1, 2)), Leaf(Growth(1, 2)))
    measured = measure([("w", torch.tensor([[1.0, 2.0], [3.0, 4.0]]))], {"w": Widening("w", axes)})
    assert [measured[name] for name in COSINES] == pytest.approx([11 / 125**0.5, 14 / 200**0.5, 20 / 30])


def test_what_cannot_be_compared_is_not() -> None:
    assert swap_cosine(normal(2, 3), (rigid(2), rigid(3))) is None
    assert copy_cosine(normal(2, 3), rigid(2)) is None
    assert copy_cosine(torch.eye(4)[:2] * torch.tensor([[1.0], [0.0]]), Leaf(Growth(1, 2))) is None
    assert swap_cosine(torch.zeros(2, 3), (Leaf(Growth(1, 2)), rigid(3))) is None


def test_effective_ranks_that_are_known() -> None:
    """Equal singular values: full; one: 1 of 4; 3/4 and 1/4: exp of their entropy, of 2."""
    assert effective_rank([torch.eye(4)]) == pytest.approx(1)
    assert effective_rank([torch.ones(4, 6)]) == pytest.approx(1 / 4)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert effective_rank([torch.diag(torch.tensor([3.0, 1.0]))]) == pytest.approx(np.exp(entropy) / 2)
    assert effective_rank([torch.zeros(2, 2), torch.eye(2)]) == pytest.approx(1 / 2)
    assert effective_rank([torch.ones(3), torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.int64)]) is None


def test_a_model_that_was_not_widened_has_a_rank_only() -> None:
    measured = measure([("w", torch.eye(3)), ("b", torch.ones(3))], {})
    assert measured == {
        "row_cosine": None,
        "column_cosine": None,
        "swap_cosine": None,
        "effective_rank": pytest.approx(1),
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_have_no_measure(bad: float) -> None:
    assert set(measure([("w", torch.tensor([[1.0, bad]]))], {}).values()) == {None}
