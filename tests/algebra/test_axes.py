"""The axis algebra against index maps: what unification calls equal must be equal at every widened position."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.algebra.axes import Axes, Axis, Kind, Why
from graphclone.algebra.growth import Growth
from graphclone.algebra.growth import Kind as GrowthKind
from graphclone.analysis.facts import Facts
from graphclone.analysis.settling import settle
from graphclone.graph.ir import Graph

WHY = Why("node", "test")


def facts_of(axes: Axes) -> Facts:
    """Facts about nothing but a system of axes."""
    return Facts(Graph("test", [], [], [], [], dialect=None), axes)  # type: ignore[arg-type]


def random_growths(axes: Axes, used: list[Axis], seed: int, kind: GrowthKind) -> Callable[[Axis], Growth]:
    """A random growth for every free dim, lowered until every tie is respected."""
    rng = random.Random(seed)
    leaves = dict.fromkeys(leaf for axis in used for leaf in axes.leaves(axis))
    wanted = {
        leaf: Growth(leaf.size, rng.choice([1, 2, 3]), kind) for leaf in leaves if leaf.pin is None and leaf.size > 1
    }
    chosen, _ = settle(facts_of(axes), wanted)
    return lambda axis: chosen.get(axis) or Growth(axis.size)


def assert_equal_maps(axes: Axes, pairs: list[tuple[Axis, Axis]], growth_of: Callable[[Axis], Growth]) -> None:
    for a, b in pairs:
        np.testing.assert_array_equal(axes.layout(a, growth_of).index_map, axes.layout(b, growth_of).index_map)


@st.composite
def compositions(draw: st.DrawFn, total: int) -> list[int]:
    """Positive numbers that add up to a total."""
    cuts = draw(st.sets(st.integers(1, total - 1), max_size=4)) if total > 1 else set()
    edges = [0, *sorted(cuts), total]
    return [b - a for a, b in pairwise(edges)]


@st.composite
def factorisations(draw: st.DrawFn, total: int) -> list[int]:
    """Factors greater than 1 of a number, in some order."""
    factors = []
    while total > 1:
        divisor = draw(st.sampled_from([d for d in range(2, total + 1) if total % d == 0]))
        factors.append(divisor)
        total //= divisor
    return factors or [1]


@st.composite
def structures(draw: st.DrawFn, axes: Axes, total: int, depth: int = 2) -> Axis:
    """A random tree of products and concats of new dims."""
    kind = draw(st.sampled_from(["dim", "product", "concat"])) if depth and total > 1 else "dim"
    if kind == "dim":
        return axes.dim(total)
    sizes = draw(factorisations(total) if kind == "product" else compositions(total))
    parts = [draw(structures(axes, size, depth - 1)) for size in sizes]
    return axes.product(parts) if kind == "product" else axes.concat(parts)


@given(
    st.data(),
    st.sampled_from([6, 12, 24, 30, 48]),
    st.integers(2, 4),
    st.integers(0, 99),
    st.sampled_from(["tile", "interleave"]),
)
def test_unified_axes_have_equal_maps_whatever_grows(
    data: st.DataObject, size: int, count: int, seed: int, kind: GrowthKind
) -> None:
    axes = Axes()
    trees = [data.draw(structures(axes, size)) for _ in range(count)]
    pairs = list(pairwise(trees))
    for a, b in pairs:
        axes.unify(a, b, WHY)
    growth_of = random_growths(axes, trees, seed, kind)
    assert_equal_maps(axes, pairs, growth_of)


@given(st.data(), st.integers(0, 9))
def test_order_does_not_matter_where_refinements_agree(data: st.DataObject, seed: int) -> None:
    """Factorisations and cuts that are all coarsenings of one are solved alike in any order."""
    fine = [2, 3, 2, 5]

    def shape_of(order: list[int]) -> list[tuple[int, ...]]:
        axes = Axes()
        named = [axes.product([axes.dim(s) for s in sizes]) for sizes in coarse]
        for i in order:
            axes.unify(named[i], named[(i + 1) % len(named)], WHY)
        return [tuple(leaf.size for leaf in axes.leaves(axis)) for axis in named]

    coarse = [_coarsened(data.draw(compositions(len(fine))), fine) for _ in range(4)]
    order = list(range(4))
    shuffled = random.Random(seed).sample(order, 4)
    assert shape_of(order) == shape_of(shuffled)


def _coarsened(groups: list[int], fine: list[int]) -> list[int]:
    edges = np.cumsum([0, *groups])
    return [prod(fine[a:b]) for a, b in pairwise(edges)]


@given(st.data(), st.sampled_from([12, 24, 48]))
def test_unify_twice_changes_nothing(data: st.DataObject, size: int) -> None:
    axes = Axes()
    a, b = data.draw(structures(axes, size)), data.draw(structures(axes, size))
    axes.unify(a, b, WHY)
    before = [(leaf.serial, leaf.pin) for leaf in (*axes.leaves(a), *axes.leaves(b))]
    axes.unify(a, b, WHY)
    axes.unify(b, a, WHY)
    assert [(leaf.serial, leaf.pin) for leaf in (*axes.leaves(a), *axes.leaves(b))] == before


@given(st.data(), st.integers(0, 99))
def test_round_trip_of_a_widened_tensor(data: st.DataObject, seed: int) -> None:
    """Reshape, transpose, split and concat again: widening first or last is the same."""
    axes = Axes()
    outer, inner = axes.dim(4), axes.dim(6)
    whole = axes.product([outer, inner])
    cuts = data.draw(compositions(6))
    segments = [axes.dim(cut) for cut in cuts]
    axes.unify(inner, axes.concat(segments), WHY)
    growth_of = random_growths(axes, [whole], seed, "tile")
    source = np.arange(24)
    layouts = [axes.layout(axis, growth_of) for axis in (whole, outer, inner)]

    def round_trip(x: np.ndarray, rows: int, columns: list[int]) -> np.ndarray:
        table = x.reshape(rows, -1).T
        parts = np.split(table, np.cumsum(columns)[:-1])
        return np.concatenate(parts[::-1]).T.reshape(-1)

    wide_cuts = [axes.layout(segment, growth_of).new_size for segment in segments]
    widened = round_trip(source[layouts[0].index_map], layouts[1].new_size, wide_cuts)
    reverse = axes.product([outer, axes.concat(segments[::-1])])
    expected = round_trip(source, 4, cuts)[axes.layout(reverse, growth_of).index_map]
    np.testing.assert_array_equal(widened, expected)


# The laws, one by one


def sizes(axes: Axes, axis: Axis) -> list[int]:
    return [leaf.size for leaf in axes.leaves(axis)]


def test_products_are_refined_from_the_left() -> None:
    axes = Axes()
    a, b = axes.product([axes.dim(2), axes.dim(12)]), axes.product([axes.dim(6), axes.dim(4)])
    axes.unify(a, b, WHY)
    assert sizes(axes, a) == sizes(axes, b) == [2, 3, 4]


@pytest.mark.parametrize(("left", "right"), [([7, 3], [5, 5]), ([5, 5], [7, 3])])
def test_concats_are_cut_from_the_left(left: list[int], right: list[int]) -> None:
    axes = Axes()
    a, b = (axes.concat([axes.dim(size) for size in cuts]) for cuts in (left, right))
    axes.unify(a, b, WHY)
    assert sizes(axes, a) == sizes(axes, b) == [5, 2, 3]
    assert not any(leaf.pin for leaf in axes.leaves(a))


def test_segments_of_a_product_have_its_inner_factors() -> None:
    """8 + 4 = 3 * 4: the first segment is 2 * 4, in that order, and the 4 of both is that of the product."""
    axes = Axes()
    long, short = axes.dim(8), axes.dim(4)
    outer, inner = axes.dim(3), axes.dim(4)
    axes.unify(axes.concat([long, short]), axes.product([outer, inner]), WHY)
    assert sizes(axes, long) == [2, 4]
    assert sizes(axes, outer) == [2, 1]
    assert axes.leaves(long)[1] is axes.find(short) is axes.find(inner)
    assert not axes.is_rigid(inner)


def test_factorings_without_common_factors_are_tied() -> None:
    axes = Axes()
    four, twelve, six, eight = (axes.dim(n) for n in (2, 21, 3, 14))
    axes.unify(axes.product([four, twelve]), axes.product([six, eight]), WHY)
    assert [(tie.a, tie.b) for tie in axes.ties] == [(four, six)]
    assert axes.find(twelve).pin and axes.find(eight).pin
    chosen, held = settle(facts_of(axes), {four: Growth(2, 3), six: Growth(3, 3)})
    assert {growth.factor for growth in chosen.values()} == {3} and not held
    chosen, held = settle(facts_of(axes), {four: Growth(2, 3), six: Growth(3, 2)})
    assert not chosen and set(held) == {four, six}


def test_fused_projections() -> None:
    """Concat(q, k, v) read as (3, heads, d): the three share their heads, and the 3 becomes three ones."""
    axes = Axes()
    q, k, v = (axes.dim(24) for _ in range(3))
    three, heads, width = axes.dim(3), axes.dim(4), axes.dim(6)
    axes.unify(axes.concat([q, k, v]), axes.product([three, heads, width]), WHY)
    assert axes.leaves(q) == axes.leaves(k) == axes.leaves(v)
    assert sizes(axes, q) == [4, 6]
    assert sizes(axes, three) == [1, 1, 1]


def test_interleaved_projections() -> None:
    """(heads, 3 d) cut into thirds: the cut is inside, and heads stay free."""
    axes = Axes()
    heads, inner = axes.dim(4), axes.dim(18)
    q, k, v = (axes.dim(6) for _ in range(3))
    axes.unify(inner, axes.concat([q, k, v]), WHY)
    assert sizes(axes, axes.product([heads, inner])) == [4, 6, 6, 6]
    assert not axes.is_rigid(heads)


def test_a_cut_inside_a_copy_cuts_every_copy() -> None:
    """112 + 24 = 4 * 34: the copies are 10 + 24, and the cut falls into the last of them."""
    axes = Axes()
    long, short, outer, inner = axes.dim(112), axes.dim(24), axes.dim(4), axes.dim(34)
    axes.unify(axes.concat([long, short]), axes.product([outer, inner]), WHY)
    assert sizes(axes, inner) == [10, 24]
    assert sizes(axes, outer) == [3, 1]
    assert sizes(axes, long) == [3, 10, 24, 10]
    assert axes.leaves(inner)[1] is axes.find(short)
    assert not any(leaf.pin for leaf in axes.leaves(long))


@given(st.data(), st.integers(2, 6), st.integers(2, 12))
def test_segments_and_copies_are_solved_without_a_pin(data: st.DataObject, copies: int, size: int) -> None:
    """Copies are cut at all cuts modulo their size, and nothing keeps its size but what is 1."""
    axes = Axes()
    cuts = data.draw(compositions(copies * size))
    segments = [axes.dim(cut) for cut in cuts]
    inner = axes.dim(size)
    axes.unify(axes.concat(segments), axes.product([axes.dim(copies), inner]), WHY)
    assert sizes(axes, inner) == list(map(int, np.diff(sorted({0, size, *(np.cumsum(cuts) % size)}))))
    assert not any(leaf.pin for segment in segments for leaf in axes.leaves(segment))


def test_a_cut_inside_one_copy_leaves_the_others_whole() -> None:
    axes = Axes()
    first, second, whole = axes.dim(4), axes.dim(4), axes.dim(16)
    outer, inner = axes.dim(3), axes.dim(8)
    axes.unify(axes.concat([first, second, whole]), axes.product([outer, inner]), WHY)
    assert sizes(axes, inner) == [4, 4]
    assert not axes.is_rigid(whole)


def test_a_pin_spreads_to_all_that_is_equal() -> None:
    axes = Axes()
    a, b, c = axes.dim(8), axes.dim(8), axes.dim(8)
    axes.unify(a, b, WHY)
    axes.pin(b, Why("out", "the output keeps its shape"))
    axes.unify(axes.product([axes.dim(2), axes.dim(4)]), c, WHY)
    axes.unify(c, a, WHY)
    assert axes.is_rigid(c)
    assert axes.find(c).pin == Why("out", "the output keeps its shape")


@pytest.mark.parametrize(("make", "count"), [(Axes.product, 2), (Axes.concat, 3)])
def test_a_pin_holds_every_part(make: Callable[..., Axis], count: int) -> None:
    axes = Axes()
    parts = [axes.dim(4) for _ in range(count)]
    axes.pin(make(axes, parts), WHY)
    assert [axes.find(part).pin for part in parts] == [WHY] * count


@pytest.mark.parametrize(("make", "size"), [(Axes.product, 24), (Axes.concat, 10)])
def test_a_layout_has_the_sizes_of_the_growths_and_not_those_of_the_trace(make: Callable[..., Axis], size: int) -> None:
    """A batch that another dim is folded into may be larger in a run."""
    axes = Axes()
    batch, other = axes.dim(2), axes.dim(4)
    folded = make(axes, [batch, other])
    axes.pin(batch, WHY)
    axes.pin(other, WHY)
    assert axes.layout(folded, lambda axis: Growth(3 * axis.size if axis is batch else axis.size)).size == size


@pytest.mark.parametrize("swapped", [False, True])
def test_what_equals_a_pinned_dim_is_pinned_part_by_part(swapped: bool) -> None:
    axes = Axes()
    parts = [axes.dim(3), axes.dim(4)]
    pair = (axes.product(parts), axes.dim(12, WHY))
    axes.unify(*(reversed(pair) if swapped else pair), WHY)
    assert [axes.find(part).pin for part in parts] == [WHY, WHY]


def test_unequal_sizes_pin_both_sides() -> None:
    axes = Axes()
    a, b = axes.dim(4), axes.dim(5)
    axes.unify(a, b, WHY)
    assert axes.is_rigid(a) and axes.is_rigid(b)
    assert "axes of 4 and 5 cannot be equal" in str(axes.find(a).pin)


def test_an_axis_of_one_says_nothing() -> None:
    axes = Axes()
    one, other = axes.dim(1), axes.dim(1, WHY)
    axes.unify(one, other, WHY)
    assert axes.find(one).pin is None


@pytest.mark.parametrize("kind", [Kind.PRODUCT, Kind.CONCAT])
def test_nested_structures_are_flat(kind: Kind) -> None:
    axes = Axes()
    make = axes.product if kind is Kind.PRODUCT else axes.concat
    inner = axes.dim(6)
    whole = make([axes.dim(2), inner])
    axes.unify(inner, make([axes.dim(2), axes.dim(3 if kind is Kind.PRODUCT else 4)]), WHY)
    assert len(axes.factors(whole) if kind is Kind.PRODUCT else axes.segments(whole)) == 3


def test_parts_that_are_summed_over_grow_alike() -> None:
    axes = Axes()
    rotated, passed = axes.dim(4), axes.dim(6)
    axes.uniform(axes.concat([rotated, passed]), WHY)
    chosen, held = settle(facts_of(axes), {rotated: Growth(4, 2), passed: Growth(6, 3)})
    assert [growth.factor for growth in chosen.values()] == [2, 2] and list(held) == [passed]
    chosen, held = settle(facts_of(axes), {rotated: Growth(4, 2)})
    assert not chosen and "repeated unequally" in str(held[rotated])


def test_what_one_requirement_lowers_may_break_another() -> None:
    """The first three grow by 3, until the last holds back one of them, and it the others, in whatever order."""
    axes = Axes()
    dims = [axes.dim(4) for _ in range(4)]
    for a, b in pairwise(dims):
        axes.uniform(axes.concat([a, b]), WHY)
    chosen, held = settle(facts_of(axes), {dim: Growth(4, 2 if dim is dims[-1] else 3) for dim in dims})
    assert [chosen[dim].factor for dim in dims] == [2, 2, 2, 2]
    assert list(held) == dims[-2::-1]


def test_behind_a_tied_factor_nothing_grows() -> None:
    axes = Axes()
    outer, inner, other = axes.dim(2), axes.dim(5), axes.dim(3)
    ten = axes.dim(10)
    axes.unify(axes.product([ten, axes.dim(21)]), axes.product([other, axes.dim(70)]), WHY)
    assert [(tie.a, tie.b) for tie in axes.ties] == [(ten, other)]
    axes.unify(ten, axes.product([outer, inner]), WHY)
    wanted = {outer: Growth(2, 2), inner: Growth(5, 2), other: Growth(3, 2)}
    chosen, held = settle(facts_of(axes), {axes.find(axis): growth for axis, growth in wanted.items()})
    assert {axis.size for axis in chosen} == {2, 3}
    assert [axis.size for axis in held] == [5]
