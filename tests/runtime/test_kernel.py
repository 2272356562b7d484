"""The kernel against an oracle written from the equations, one weight at a time, and against its promises."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from graphclone.algebra.growth import PAD, Concat, Growth, Kind, Layout, Leaf, Product, rigid
from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import STRATEGIES, Strategy, strategy
from graphclone.runtime import kernel
from graphclone.runtime.kernel import widen
from tests.algebra.test_growth import counts, entries, layouts

FloatArray = npt.NDArray[np.float64]
MAX_ELEMENTS = 1500


def skewed(n_out: int, n_in: int) -> FloatArray:
    """A user's strategy whose every row and column differs, with weights below 0 and above 1."""
    matrix: FloatArray = np.sin(1.0 + np.arange(n_out * n_in)).reshape(n_out, n_in)
    matrix[:, -1] += 1 - matrix.sum(axis=1)
    return matrix


NOISELESS = [STRATEGIES["symmetric"], STRATEGIES["diagonal"], strategy(skewed)]
NOISY = [STRATEGIES["noisy-symmetric"], STRATEGIES["noisy-diagonal"], strategy(skewed, 3.0)]
NOISY += [STRATEGIES["low-rank"], Strategy("spread", skewed, spread=0.7, rank=2)]


@st.composite
def recipes(draw: st.DrawFn, strategies: list[Strategy]) -> Widening:
    rank = draw(st.integers(1, 3))
    contracted = tuple(axis for axis in range(rank) if draw(st.booleans()))
    axes = tuple(draw(layouts(drops=axis not in contracted)) for axis in range(rank))
    shift = 0.0 if contracted else draw(st.sampled_from([0.0, -0.5]))
    scale = draw(st.sampled_from([1.0, 0.25, -3.0]))
    chosen = draw(st.sampled_from(strategies))
    recipe = Widening("w", axes, contracted, chosen, draw(st.integers(0, 9)), scale, shift)
    elements = math.prod(recipe.shape)
    return recipe if elements <= MAX_ELEMENTS else replace(recipe, axes=(axes[0], *map(rigid, [2] * (rank - 1))))


def numbers(recipe: Widening, dtype: torch.dtype = torch.float64) -> Tensor:
    """A source without zeros, different in every entry."""
    return torch.randn(recipe.source_shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def oracle(source: FloatArray, recipe: Widening) -> FloatArray:
    """``scale * A[copy of o', copy of k'] * W[g(o'), g(k')] + shift``, with pads 0 before the shift."""
    free = [axis for axis in range(source.ndim) if axis not in recipe.contracted]
    rows = math.prod(max(counts(recipe.axes[axis]).values(), default=1) for axis in free)
    wide = np.full(recipe.shape, recipe.shift)
    for new in np.ndindex(*recipe.shape):
        found = [entries_of(layout)[index] for layout, index in zip(recipe.axes, new, strict=True)]
        old = tuple(index for index, _ in found)
        if PAD not in old:
            row, _ = joint(recipe, old, found, free)
            column, columns = joint(recipe, old, found, recipe.contracted)
            factor = recipe.strategy.matrix(rows, columns)[row, column] if recipe.contracted else 1.0
            wide[new] += recipe.scale * factor * source[old]
    return wide


def joint(recipe: Widening, old: tuple[int, ...], found: list[tuple[int, int]], axes: Any) -> tuple[int, int]:
    """The copy number over several axes in mixed radix, and how many copies there are."""
    number, total = 0, 1
    for axis in axes:
        count = counts_of(recipe.axes[axis])[old[axis]]
        number, total = number * count + found[axis][1], total * count
    return number, total


_known: dict[Layout, tuple[list[tuple[int, int]], dict[int, int]]] = {}


def entries_of(layout: Layout) -> list[tuple[int, int]]:
    return _known.setdefault(layout, (entries(layout), counts(layout)))[0]


def counts_of(layout: Layout) -> dict[int, int]:
    entries_of(layout)
    return _known[layout][1]


def summed(wide: Tensor, recipe: Widening) -> Tensor:
    """The sums over the copies of every contracted source index."""
    for axis in recipe.contracted:
        index = recipe.axes[axis].index_map
        real = torch.from_numpy(np.flatnonzero(index != PAD))
        shape = [*wide.shape]
        shape[axis] = recipe.axes[axis].size
        sums = wide.new_zeros(shape)
        wide = sums.index_add_(axis, torch.from_numpy(index)[real], wide.index_select(axis, real))
    return wide


def read(source: Tensor, recipe: Widening) -> Tensor:
    """``scale * W[g(o'), k]``: what the sums over the copies have to be."""
    for axis in set(range(source.dim())) - set(recipe.contracted):
        index = torch.from_numpy(recipe.axes[axis].index_map)
        source = source.index_select(axis, index.clamp(min=0))
        source = source.index_fill(axis, torch.nonzero(index == PAD).ravel(), 0)
    return source * recipe.scale


def decibels(signal: Tensor, noise: Tensor) -> float:
    return 20 * math.log10(float(signal.double().norm()) / float(noise.double().norm()))


# --- Values ---


def test_the_tilings_of_the_paper() -> None:
    w = torch.tensor([[2.0, 4.0]])
    axes = (Leaf(Growth(1, 2)), Leaf(Growth(2, 2)))
    rows = {name: widen(w, Widening("w", axes, (1,), strategy(name))).tolist() for name in ("symmetric", "diagonal")}
    assert rows["symmetric"] == [[1, 2, 1, 2], [1, 2, 1, 2]]
    assert rows["diagonal"] == [[2, 4, 0, 0], [0, 0, 2, 4]]
    assert widen(w, Widening("w", axes)).tolist() == [[2, 4, 2, 4], [2, 4, 2, 4]]


@given(recipes(NOISELESS), st.sampled_from([0, kernel.MAX_SLICES]))
@settings(max_examples=300)
def test_widen_is_the_equation(recipe: Widening, max_slices: int) -> None:
    source = numbers(recipe)
    with patch.object(kernel, "MAX_SLICES", max_slices):
        wide = widen(source, recipe)
    np.testing.assert_allclose(wide.numpy(), oracle(source.numpy(), recipe), rtol=1e-14, atol=1e-15)


@given(recipes(NOISELESS + NOISY), st.sampled_from([0, kernel.MAX_SLICES]), st.sampled_from([7, kernel.CHUNK]))
@settings(max_examples=300)
def test_copies_sum_to_the_source(recipe: Widening, max_slices: int, chunk: int) -> None:
    source = numbers(recipe)
    with patch.object(kernel, "MAX_SLICES", max_slices), patch.object(kernel, "CHUNK", chunk):
        wide = widen(source, replace(recipe, shift=0.0))
    torch.testing.assert_close(summed(wide, recipe), read(source, recipe), rtol=1e-12, atol=1e-12)


@given(recipes(NOISY), st.sampled_from([0, kernel.MAX_SLICES]), st.sampled_from([7, kernel.CHUNK]))
@settings(max_examples=200)
def test_noise_is_at_the_asked_level_on_duplicated_columns_only(recipe: Widening, max_slices: int, chunk: int) -> None:
    source = numbers(recipe)
    with patch.object(kernel, "MAX_SLICES", max_slices), patch.object(kernel, "CHUNK", chunk):
        wide = widen(source, recipe)
    quiet = widen(source, replace(recipe, strategy=replace(recipe.strategy, snr_db=None, spread=None)))
    duplicated = torch.zeros(recipe.shape, dtype=torch.bool)
    for new in product(*map(range, recipe.shape)) if recipe.contracted else ():
        old = [entries_of(layout)[index][0] for layout, index in zip(recipe.axes, new, strict=True)]
        copies = math.prod(counts_of(recipe.axes[axis])[old[axis]] for axis in recipe.contracted if old[axis] != PAD)
        duplicated[new] = PAD not in old and copies > 1
    assert torch.equal(wide[~duplicated], quiet[~duplicated])
    if recipe.strategy.spread is not None and duplicated.any():
        inputs = math.prod(recipe.shape[axis] for axis in recipe.contracted)
        root = float((wide - quiet)[duplicated].square().mean().sqrt())
        assert root == pytest.approx(recipe.strategy.spread / inputs**0.5)
    elif quiet[duplicated].any():
        found = decibels(quiet[duplicated], (wide - quiet)[duplicated])
        assert found == pytest.approx(recipe.strategy.snr_db, abs=1e-6)


@pytest.mark.parametrize("along", [0, 1])
def test_noise_of_a_low_rank_has_that_rank(along: int) -> None:
    grown, other = Leaf(Growth(40, 2)), Leaf(Growth(60, 2))
    axes = (other, grown) if along == 0 else (grown, other)
    recipe = Widening("w", axes, (1 - along,), replace(STRATEGIES["low-rank"], rank=3), seed=4)
    with patch.object(kernel, "CHUNK", 500):
        source = torch.randn(recipe.source_shape, dtype=torch.float64)
        noise = widen(source, recipe) - widen(source, replace(recipe, strategy=STRATEGIES["symmetric"]))
    assert torch.linalg.matrix_rank(noise) == 3
    assert float(noise.abs().mean()) > 0


@pytest.mark.parametrize("chosen", NOISELESS + NOISY, ids=lambda chosen: chosen.name)
def test_a_widened_linear_layer_repeats_its_outputs(chosen: Strategy) -> None:
    torch.manual_seed(0)
    w, x = torch.randn(6, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    axes = (Leaf(Growth(6, 3)), Leaf(Growth(4, 2, "interleave")))
    wide = widen(w, Widening("w", axes, (1,), chosen))
    y = x[:, axes[1].index_map] @ wide.T
    torch.testing.assert_close(y, (x @ w.T)[:, axes[0].index_map], rtol=1e-13, atol=1e-13)


def test_unequal_copies_take_the_matrix_of_their_own_count() -> None:
    columns = Concat((Leaf(Growth(1, 2)), Leaf(Growth(1, 3)), rigid(1)))
    rows = Leaf(Growth.explicit(2, [0, 1, 1]))
    wide = widen(torch.ones(2, 3), Widening("w", (rows, columns), (1,), strategy("diagonal")))
    assert wide.tolist() == [[1, 0, 1, 0, 0, 1], [1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 0, 1]]


def test_every_index_is_shared_out_among_its_own_copies() -> None:
    columns = Concat((Leaf(Growth(1, 2)), Leaf(Growth(1, 4)), rigid(1)))
    wide = widen(torch.tensor([[2.0, 8.0, 1.0]]), Widening("w", (rigid(1), columns), (1,)))
    assert wide.tolist() == [[1, 1, 2, 2, 2, 2, 1]]


def test_a_strategy_is_asked_for_the_copies_of_outputs_and_of_inputs() -> None:
    asked: list[tuple[int, int]] = []

    def rule(n_out: int, n_in: int) -> FloatArray:
        asked.append((n_out, n_in))
        return skewed(n_out, n_in)

    widen(torch.ones(2, 2), Widening("w", (Leaf(Growth(2, 3)), Leaf(Growth(2, 2))), (1,), strategy(rule)))
    assert set(asked) == {(3, 2)}


def test_pads_are_shifted_and_not_scaled() -> None:
    padded = Leaf(Growth.explicit(2, [0, PAD, 1]))
    assert widen(torch.tensor([2.0, 4.0]), Widening("w", (padded,), scale=0.5)).tolist() == [1, 0, 2]
    assert widen(torch.tensor([2.0, 4.0]), Widening("w", (padded,), scale=0.5, shift=3.0)).tolist() == [4, 3, 5]


def test_an_infinite_weight_does_not_leak_into_the_zeros_of_the_diagonal() -> None:
    axes = (rigid(1), Leaf(Growth(2, 2)))
    wide = widen(torch.tensor([[math.inf, -1.0]]), Widening("w", axes, (1,), strategy("diagonal")))
    assert wide.tolist() == [[math.inf, -1, 0, 0]]
    assert not torch.signbit(wide[0, 2:]).any()


def test_a_long_irregular_map_is_written_by_index() -> None:
    index = np.random.default_rng(0).permutation([*range(300), *range(200), *[PAD] * 9, *range(100)])
    axes = (Leaf(Growth.explicit(300, index)), Product((rigid(2), Leaf(Growth.explicit(300, index[::-1])))))
    recipe = Widening("w", axes, (1,), strategy("noisy-diagonal"))
    source = numbers(recipe)
    with Allocations() as seen:
        wide = widen(source, recipe)
    torch.testing.assert_close(summed(wide, recipe), read(source, recipe), rtol=1e-12, atol=1e-12)
    assert seen.calls < 2000  # slices would take some for every pair of the hundreds of runs


@pytest.mark.parametrize("names", [(0, 0), (3, 0), (0, 2)])
def test_empty_axes_stay_empty(names: tuple[int, int]) -> None:
    recipe = Widening("w", tuple(Leaf(Growth(size, 2)) for size in names), (1,), strategy("noisy-symmetric"))
    assert widen(torch.ones(names), recipe).shape == (names[0] * 2, names[1] * 2)


# --- Noise ---


@pytest.mark.parametrize("kind", ["tile", "interleave"])
@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["noisy-symmetric", "noisy-diagonal"])
def test_the_noise_level_is_exact_at_every_factor(kind: Kind, factor: int, dtype: torch.dtype, name: str) -> None:
    axis = Leaf(Growth(120, factor, kind))
    recipe = Widening("w", (axis, axis), (1,), strategy(name, 7.0))
    source = numbers(recipe, dtype)
    wide, quiet = (
        widen(source, recipe),
        widen(source, replace(recipe, strategy=strategy(name.removeprefix("noisy-")))),
    )
    assert decibels(quiet, wide.double() - quiet.double()) == pytest.approx(7.0, abs=1e-6)


def test_noise_is_normal_and_tells_all_copies_apart() -> None:
    recipe = Widening("w", (Leaf(Growth(200, 2)), Leaf(Growth(300, 2))), (1,), strategy("noisy-symmetric"))
    source = numbers(recipe)
    noise = (widen(source, recipe) - widen(source, replace(recipe, strategy=strategy("symmetric")))).flatten()
    kurtosis = float((noise / noise.std()).pow(4).mean())
    assert kurtosis == pytest.approx(3, abs=0.1)
    rows, other_rows = noise.view(2, 200 * 600)
    assert abs(float(torch.corrcoef(torch.stack((rows, other_rows)))[0, 1])) < 0.02


def test_noise_does_not_depend_on_what_was_widened_before() -> None:
    axis = Leaf(Growth(8, 2))
    base = Widening("a", (axis, axis), (1,), strategy("noisy-symmetric"))
    planned = {name: replace(base, name=name) for name in ("a", "b", "c")}
    source = numbers(base)
    forth = {name: widen(source, planned[name]) for name in planned}
    torch.manual_seed(5)
    back = {name: widen(source, planned[name]) for name in reversed(planned)}
    assert all(torch.equal(forth[name], back[name]) for name in planned)
    assert not torch.equal(forth["a"], forth["b"])
    assert not torch.equal(forth["a"], widen(source, replace(base, seed=1)))


def test_noise_does_not_depend_on_the_threads_nor_on_the_callers_generator() -> None:
    axis = Leaf(Growth(300, 3))
    recipe = Widening("w", (axis, axis), (1,), strategy("noisy-diagonal"))
    source, threads, state = numbers(recipe), torch.get_num_threads(), torch.get_rng_state()
    found = []
    for count in (1, 2, 4):
        torch.set_num_threads(count)
        found.append(widen(source, recipe))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("source", [torch.zeros(3, 4), torch.ones(3, 4)])
def test_no_noise_without_weights_or_copies(source: Tensor) -> None:
    columns = Leaf(Growth(4, 1 if source.any() else 2))
    recipe = Widening("w", (Leaf(Growth(3, 2)), columns), (1,), strategy("noisy-symmetric"))
    assert torch.equal(widen(source, recipe), source.repeat(2, columns.growth.factor))


# --- Dtypes, shapes, memory ---


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.float16, torch.bfloat16])
def test_buffers_of_every_dtype_are_replicated(dtype: torch.dtype) -> None:
    source = torch.tensor([[0, 1, 1], [1, 0, 1]]).to(dtype)
    axes = (Leaf(Growth.explicit(2, [1, PAD, 0])), Leaf(Growth(3, 2, "interleave")))
    wide = widen(source, Widening("mask", axes))
    assert wide.dtype == dtype
    assert wide.int().tolist() == [[1, 1, 0, 0, 1, 1], [0] * 6, [0, 0, 1, 1, 1, 1]]


def test_scalars_are_kept_and_scaled() -> None:
    assert widen(torch.tensor(7), Widening("steps", ())).item() == 7
    assert widen(torch.tensor(2.0), Widening("scale", (), scale=0.5, shift=1.0)).item() == 2.0


def test_a_shifted_weight_is_rounded_once() -> None:
    recipe = Widening("norm", (Leaf(Growth(1000, 2)),), scale=1.3, shift=0.3)
    source = numbers(recipe, torch.bfloat16)
    once = (source.double() * 1.3 + 0.3).bfloat16()
    assert torch.equal(widen(source, recipe), once.repeat(2))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_parameter_widens_outside_the_autograd_graph(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    wide = widen(weight, Widening("w", (rigid(2), Leaf(Growth(2, 2))), (1,), strategy(name)))
    assert not wide.requires_grad


@pytest.mark.parametrize("chosen", NOISELESS + NOISY, ids=lambda chosen: f"{chosen.name}-{chosen.snr_db}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_out_may_be_any_view(chosen: Strategy, dtype: torch.dtype) -> None:
    rows = Concat((Product((Leaf(Growth(2, 2)), rigid(3))), Leaf(Growth.explicit(3, [2, 0, 1, PAD, 0]))))
    recipe = Widening("w", (rows, Leaf(Growth(5, 2, "interleave"))), (1,), chosen)
    source = numbers(recipe, dtype)
    frame = torch.full((2 * recipe.shape[1] + 3, recipe.shape[0] + 4), 9.0, dtype=dtype)
    out = frame[1:-2:2, 2:-2].T
    assert widen(source, recipe, out) is out
    assert torch.equal(out, widen(source, recipe))
    out.fill_(9)
    assert (frame == 9).all()


def test_out_may_be_a_mapped_file(tmp_path: Path) -> None:
    axis = Leaf(Growth(16, 2))
    recipe = Widening("w", (axis, axis), (1,), strategy("noisy-symmetric"))
    source = numbers(recipe, torch.float32)
    mapped = torch.from_file(str(tmp_path / "weights"), shared=True, size=3 * 32 * 32, dtype=torch.float32)
    widen(source, recipe, mapped.view(3, 32, 32)[1])
    stored = np.fromfile(tmp_path / "weights", np.float32).reshape(3, 32, 32)
    assert np.array_equal(stored[1], widen(source, recipe).numpy())
    assert not stored[0].any()
    assert not stored[2].any()


class Allocations(TorchDispatchMode):
    """Counts ops, and the bytes of the largest tensor made, views and results written in place aside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.largest = 0
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [*args, *(kwargs or {}).values()]
        known = {x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)}
        made = func(*args, **(kwargs or {}))
        self.calls += 1
        for x in made if isinstance(made, list | tuple) else [made]:
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in known:
                self.largest = max(self.largest, x.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize(
    ("recipe", "limit"),
    [
        (lambda axis: Widening("w", (axis, axis)), 0),
        (lambda axis: Widening("w", (axis, axis), (1,)), 0),
        (lambda axis: Widening("w", (axis, axis), (0,), strategy("diagonal")), 0),
        (lambda axis: Widening("w", (axis, axis), (1,), strategy(skewed)), 0),
        (lambda axis: Widening("w", (axis, axis), (1,), strategy("noisy-symmetric")), 1 << 21),
        (lambda axis: Widening("w", (rigid(1), axis, axis), (2,), strategy("noisy-diagonal")), 1 << 21),
    ],
)
def test_no_temporary_is_as_large_as_the_output(recipe: Callable[[Layout], Widening], limit: int) -> None:
    segment = Product((Leaf(Growth(4, 2)), rigid(64)))
    axis = Concat((segment, segment, Leaf(Growth(256, 3, "interleave")), Leaf(Growth.explicit(2, [0, 1, 0]))))
    planned = recipe(axis)
    source, out = torch.ones(planned.source_shape), torch.empty(planned.shape)
    with Allocations() as seen:
        widen(source, planned, out)
    assert seen.largest <= limit < out.nbytes


def test_a_tiled_weight_is_one_multiplication() -> None:
    axis = Product((Leaf(Growth(4, 2)), rigid(3)))
    with patch.object(torch, "mul", wraps=torch.mul) as multiply:
        widen(torch.ones(12, 12), Widening("w", (axis, axis), (1,)))
    assert multiply.call_count == 1


# --- Errors ---


def test_shapes_and_dtypes_must_fit() -> None:
    recipe = Widening("fc.weight", (rigid(2), Leaf(Growth(3, 2))), (1,))
    with pytest.raises(ValueError, match=r"fc\.weight: expected a source of \(2, 3\), got \(3, 2\)"):
        widen(torch.ones(3, 2), recipe)
    with pytest.raises(ValueError, match=r"fc\.weight: expected an out of \(2, 6\) torch.float32, got \(2, 3\)"):
        widen(torch.ones(2, 3), recipe, torch.empty(2, 3))
    with pytest.raises(ValueError, match=r"out of \(2, 6\) torch.float32, got \(2, 6\) torch.float64"):
        widen(torch.ones(2, 3), recipe, torch.empty(2, 6, dtype=torch.float64))


@pytest.mark.parametrize("change", [{"contracted": (0,)}, {"scale": 0.5}, {"shift": 1.0}])
def test_integers_are_copied_and_multiplied_by_integers_only(change: dict[str, Any]) -> None:
    recipe = replace(Widening("table", (Leaf(Growth(2, 2)),)), **change)
    with pytest.raises(TypeError, match=r"table: torch\.int64 can be replicated, but not multiplied by a fraction"):
        widen(torch.tensor([1, 2]), recipe)


def test_integers_are_multiplied_exactly() -> None:
    large = 2**24 + 1  # more than float32 tells apart
    wide = widen(torch.tensor([large, -7], dtype=torch.int32), Widening("bias", (Leaf(Growth(2, 2)),), scale=3.0))
    assert wide.dtype == torch.int32
    assert wide.tolist() == [3 * large, -21, 3 * large, -21]


def test_a_matrix_for_other_counts_is_refused() -> None:
    recipe = Widening("head", (rigid(2), Leaf(Growth(2, 2))), (1,), strategy([[1, 0], [0, 1]]))
    with pytest.raises(ValueError, match=r"1 output and 2 input copies needs \(1, 2\): give a callable"):
        widen(torch.ones(2, 2), recipe)


@pytest.mark.parametrize("contracted", [(2,), (-1,), (1, 0), (0, 0)])
def test_contracted_axes_must_exist_and_ascend(contracted: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"w: contracted axes must ascend within \[0, 2\), got"):
        Widening("w", (rigid(2), rigid(3)), contracted)


def test_a_contracted_axis_keeps_every_source_index() -> None:
    dropping = Leaf(Growth.explicit(3, [0, 2, PAD]))
    assert widen(torch.arange(3), Widening("w", (dropping,))).tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="w: axis 1 is contracted, but its growth map drops source index 1"):
        Widening("w", (rigid(2), dropping), (1,))


def test_a_contracted_weight_is_not_shifted() -> None:
    with pytest.raises(ValueError, match="w: a contracted initializer cannot be shifted"):
        Widening("w", (rigid(2),), (0,), shift=1.0)


@pytest.mark.parametrize(
    "change",
    [{"axes": (Leaf(Growth(2, 2)), rigid(3))}, {"scale": 2.0}, {"contracted": (), "shift": 1.0}],
    ids=lambda change: next(iter(change)),
)
def test_identity_is_told_from_growth(change: dict[str, Any]) -> None:
    still = Widening("w", (rigid(2), rigid(3)), (1,))
    assert still.identity
    assert still.shape == still.source_shape == (2, 3)
    assert not replace(still, **change).identity
