"""Every strategy is a matrix whose rows sum to 1, and says so when it is not."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.algebra.strategies import STRATEGIES, Strategy, strategy

copies = st.integers(1, 6)


@given(st.sampled_from(sorted(STRATEGIES)), copies, copies)
def test_rows_sum_to_one(name: str, n_out: int, n_in: int) -> None:
    matrix = strategy(name).matrix(n_out, n_in)
    assert matrix.shape == (n_out, n_in)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-14)


def test_the_matrices_of_the_paper() -> None:
    assert strategy("symmetric").matrix(2, 4).tolist() == [[0.25] * 4] * 2
    assert strategy("diagonal").matrix(2, 2).tolist() == [[1, 0], [0, 1]]
    assert strategy("diagonal").matrix(3, 2).tolist() == [[1, 0], [0, 1], [1, 0]]
    assert strategy("diagonal").matrix(1, 3).tolist() == [[1, 0, 0]]


def test_matrices_of_other_ways_to_grow() -> None:
    assert strategy("staged").matrix(2, 2).tolist() == [[1, 0], [0, 1]]
    assert strategy("staged").matrix(1, 2).tolist() == [[0.5, 0.5]]
    assert strategy("staged").matrix(2, 3).tolist() == [[0.5, 0, 0.5], [0, 1, 0]]
    assert strategy("blend").matrix(2, 2).tolist() == [[0.75, 0.25], [0.25, 0.75]]
    np.testing.assert_allclose(strategy("lemon").matrix(2, 2), [[0.8, 0.2], [0.35, 0.65]])
    np.testing.assert_allclose(strategy("orthogonal").matrix(2, 2), [[0.8, 0.2], [-1 / 3, 4 / 3]])


def test_some_names_take_a_number() -> None:
    assert strategy("blend:1").matrix(2, 2).tolist() == strategy("symmetric").matrix(2, 2).tolist()
    assert strategy("blend:0").matrix(3, 2).tolist() == strategy("diagonal").matrix(3, 2).tolist()
    assert strategy("circulant:0.5").matrix(3, 3).tolist() == [[0.5, 0.5, 0], [0, 0.5, 0.5], [0.5, 0, 0.5]]
    assert strategy("circulant:2").matrix(1, 2).tolist() == [[2, -1]]
    assert strategy("blend:0.3").name == "blend:0.3" != strategy("blend").name
    for spec, message in (
        ("lemon:0.3", "'lemon' takes no number.*blend and circulant do"),
        ("blend:", "'' is not a number"),
        ("blend:nan", "'nan' is not a number; write, say, blend:0.3"),
        ("mixed:0.3", r"unknown strategy 'mixed:0.3'"),
    ):
        with pytest.raises(ValueError, match=message):
            strategy(spec)


@pytest.mark.parametrize(
    "fields", [{"spread": 1.0, "snr_db": 3.0}, {"spread": float("inf")}, {"rank": 0, "snr_db": 3.0}]
)
def test_noise_of_no_level_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"spread must be a finite number|the rank of noise must be at least 1"):
        Strategy("own", lambda n_out, n_in: np.full((n_out, n_in), 1 / n_in), **fields)  # type: ignore[arg-type]


@given(copies)
def test_orthogonal_rows_are(n: int) -> None:
    matrix = strategy("orthogonal").matrix(n, n)
    product = matrix @ matrix.T
    np.testing.assert_allclose(product, np.diag(np.diag(product)), atol=1e-13)
    assert np.abs(matrix).max() < 3  # no row is blown up to sum to 1


@given(st.integers(2, 6))
def test_no_exchange_of_copies_leaves_a_network_as_it_is(n: int) -> None:
    matrix = strategy("lemon").matrix(n, n)
    for order in permutations(range(n)):
        if order != tuple(range(n)):
            assert not np.allclose(matrix[np.ix_(order, order)], matrix)


def test_noise_is_that_of_the_paper_unless_asked() -> None:
    levels = {name: strategy(name).snr_db for name in STRATEGIES if strategy(name).snr_db is not None}
    assert levels == {"noisy-symmetric": 10.0, "noisy-diagonal": 10.0, "net2net": 40.0, "low-rank": 10.0}
    assert [name for name in STRATEGIES if strategy(name).noisy] == [*levels, "mup-noise"]
    assert strategy("mup-noise", 20).spread is None
    assert strategy("staged", 20).snr_db == 20.0
    assert strategy("noisy-diagonal", 3).snr_db == 3.0
    assert strategy("noisy-diagonal", 3).name == "noisy-diagonal"
    assert strategy([[1, 0], [0, 1]], 20).snr_db == 20.0


def test_uniform_says_whether_all_copies_are_alike() -> None:
    assert [name for name in STRATEGIES if strategy(name).uniform] == [
        "symmetric",
        "noisy-symmetric",
        "net2net",
        "low-rank",
        "mup-noise",
        "fresh",
    ]
    assert not strategy(np.full((2, 2), 0.5)).uniform


def test_a_strategy_stands_for_itself() -> None:
    assert strategy(STRATEGIES["diagonal"]) is STRATEGIES["diagonal"]
    assert strategy(STRATEGIES["noisy-symmetric"], 5) == strategy("noisy-symmetric", 5)
    assert strategy([[0.75, 0.25]]) == strategy(np.array([[0.75, 0.25]])) != strategy([[0.25, 0.75]])


def test_a_users_matrix_serves_its_own_shape_and_single_inputs() -> None:
    own = strategy([[0.75, 0.25], [-1.0, 2.0]])
    assert own.matrix(2, 2).tolist() == [[0.75, 0.25], [-1.0, 2.0]]
    assert own.matrix(3, 1).tolist() == [[1], [1], [1]]
    with pytest.raises(ValueError, match=r"shape \(2, 2\).*1 output and 2 input copies needs \(1, 2\).*callable"):
        own.matrix(1, 2)


def test_a_users_callable_serves_every_shape() -> None:
    def first(n_out: int, n_in: int) -> npt.ArrayLike:
        return [[1] + [0] * (n_in - 1)] * n_out

    assert strategy(first).name == "first"
    assert strategy(first).matrix(2, 3).tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.6]], "row 1 sums to 1.1"),
        ([[0.5, 0.5 + 1e-11]], "row 0 sums to 1.00000000001"),
        ([[0.5, float("nan")]], "an entry that is not finite"),
        ([[float("inf"), float("-inf")]], "an entry that is not finite"),
        ([0.5, 0.5], "must be 2-D, got 1-D.*symmetric, diagonal, noisy-symmetric, noisy-diagonal"),
    ],
)
def test_an_unfit_matrix_is_refused(matrix: npt.ArrayLike, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        strategy(matrix)


def test_rounding_is_not_a_wrong_sum() -> None:
    assert strategy([[0.1] * 10]).matrix(1, 10).shape == (1, 10)


def test_an_unfit_callable_is_refused_when_it_is_asked() -> None:
    with pytest.raises(ValueError, match="strategy 'zeros': every row must sum to 1, but row 0 sums to 0"):
        strategy(Strategy("zeros", lambda n_out, n_in: np.zeros((n_out, n_in)))).matrix(2, 2)
    with pytest.raises(ValueError, match=r"strategy '<lambda>' gave .* \(2, 2\) where \(3, 2\) is needed"):
        strategy(lambda n_out, n_in: np.full((2, 2), 0.5)).matrix(3, 2)


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'symetric'.*symmetric, diagonal, noisy-symmetric, noisy-diagonal"):
        strategy("symetric")


@pytest.mark.parametrize(("name", "noisy"), [(n, n) for n in ("symmetric", "diagonal")] + [("fresh", "symmetric")])
@pytest.mark.parametrize("by_name", [True, False])
def test_noise_needs_a_noisy_name(by_name: bool, name: str, noisy: str) -> None:
    spec = name if by_name else STRATEGIES[name]
    with pytest.raises(ValueError, match=f"strategy '{name}' has no noise.*'noisy-{noisy}'"):
        strategy(spec, snr_db=10)


@pytest.mark.parametrize("snr_db", [float("nan"), float("inf"), float("-inf")])
def test_the_noise_level_must_be_finite(snr_db: float) -> None:
    with pytest.raises(ValueError, match="finite number of decibels"):
        strategy("noisy-symmetric", snr_db)


def test_planning_needs_neither_torch_nor_onnx() -> None:
    code = "import sys, graphclone.algebra.recipes; print({'torch', 'onnx'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
