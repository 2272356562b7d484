"""Growth maps and layout trees, against an oracle that walks the tree one index at a time."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphclone.algebra.growth import PAD, Concat, Growth, Layout, Leaf, Product, rigid

MAX_NEW_SIZE = 24

Entry = tuple[int, int]
"""Source index (or PAD) of a new index, and which copy of it this is."""


def leaves(drops: bool = False) -> st.SearchStrategy[Leaf]:
    """Leaves of every kind; explicit ones may have pads, and drop source indices if asked."""
    kinds = st.sampled_from(["tile", "interleave"])
    regular = st.builds(Growth, st.integers(1, 4), st.integers(1, 3), kinds)
    return st.one_of(regular, growths_to_any_size(), explicit_growths(drops)).map(Leaf)


@st.composite
def growths_to_any_size(draw: st.DrawFn) -> Growth:
    """Whole copies of a dim, and some more of its first indices, or pads."""
    size = draw(st.integers(1, 4))
    new_size = draw(st.integers(size, 9))
    return Growth.between(size, new_size, draw(st.sampled_from(["tile", "interleave"])), padded=draw(st.booleans()))


@st.composite
def explicit_growths(draw: st.DrawFn, drops: bool = False) -> Growth:
    size = draw(st.integers(1, 5))
    extra = draw(st.lists(st.integers(PAD, size - 1), max_size=4))
    return Growth.explicit(size, draw(st.permutations([*([] if drops else range(size)), *extra])))


def layouts(drops: bool = False) -> st.SearchStrategy[Layout]:
    """Random layout trees of at most MAX_NEW_SIZE new indices."""

    def compound(parts: st.SearchStrategy[Layout]) -> st.SearchStrategy[Layout]:
        several = st.lists(parts, min_size=1, max_size=3).map(tuple)
        return st.one_of(st.builds(Product, several), st.builds(Concat, several))

    trees: st.SearchStrategy[Layout] = st.recursive(leaves(drops), compound, max_leaves=4)
    return trees.filter(lambda layout: layout.new_size <= MAX_NEW_SIZE)


def entries(layout: Layout) -> list[Entry]:
    """What every new index of the axis is, from the definitions."""
    if isinstance(layout, Leaf):
        return _leaf_entries(layout.growth)
    assert isinstance(layout, Product | Concat)
    if isinstance(layout, Concat):
        return _concat_entries(layout)
    found = [(0, 0)]
    for part in layout.parts:
        copies = counts(part)
        pairs = product(found, entries(part))
        found = [_inner(outer, inner, part.size, copies) for outer, inner in pairs]
    return found


def counts(layout: Layout) -> Counter[int]:
    """How many copies every source index has."""
    return Counter(source for source, _ in entries(layout) if source != PAD)


def _leaf_entries(growth: Growth) -> list[Entry]:
    copies = [growth.factor + (index < growth.extra) for index in range(growth.size)]
    pads = [(PAD, copy) for copy in range(growth.pads)]
    if growth.kind == "tile":
        rounds = range(growth.factor + 1)
        return [(index, copy) for copy in rounds for index in range(growth.size) if copy < copies[index]] + pads
    if growth.kind == "interleave":
        return [(index, copy) for index in range(growth.size) for copy in range(copies[index])] + pads
    return [(entry, growth.entries[:new].count(entry)) for new, entry in enumerate(growth.entries)]


def _concat_entries(layout: Concat) -> list[Entry]:
    found: list[Entry] = []
    start = 0
    for part in layout.parts:
        found += [(source if source == PAD else source + start, copy) for source, copy in entries(part)]
        start += part.size
    return found


def _inner(outer: Entry, inner: Entry, size: int, copies: Counter[int]) -> Entry:
    if PAD in (outer[0], inner[0]):
        return PAD, 0
    return outer[0] * size + inner[0], outer[1] * copies[inner[0]] + inner[1]


@given(layouts(drops=True))
def test_a_layout_is_what_its_tree_says(layout: Layout) -> None:
    expected = entries(layout)
    real = [new for new, (source, _) in enumerate(expected) if source != PAD]
    assert layout.new_size == len(layout.index_map) == len(layout.copies) == len(expected)
    assert layout.index_map.tolist() == [source for source, _ in expected]
    assert layout.copies[real].tolist() == [expected[new][1] for new in real]
    copies = counts(layout)
    assert layout.multiplicity.tolist() == [copies[source] for source in range(layout.size)]


@given(layouts(drops=True))
def test_copies_number_the_preimage_of_every_source_index(layout: Layout) -> None:
    for source in range(layout.size):
        copies = layout.copies[layout.index_map == source]
        assert sorted(copies.tolist()) == list(range(layout.multiplicity[source]))


@given(layouts(drops=True))
def test_uniform_is_the_one_multiplicity(layout: Layout) -> None:
    if layout.uniform is not None:
        assert layout.multiplicity.tolist() == [layout.uniform] * layout.size
        assert PAD not in layout.index_map


@given(layouts())
def test_even_is_uniform_pads_apart(layout: Layout) -> None:
    assert layout.padded is (PAD in layout.index_map)
    if layout.even is not None:
        assert layout.multiplicity.tolist() == [layout.even] * layout.size
        assert layout.uniform == (None if layout.padded else layout.even)


def test_what_is_left_over_beside_whole_copies() -> None:
    assert Growth.between(3, 7).index_map().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert Growth.between(3, 7, "interleave").index_map().tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert Growth.between(3, 7, padded=True).index_map().tolist() == [0, 1, 2, 0, 1, 2, PAD]
    assert Growth.between(3, 7, padded=True).unpadded() == Growth.between(3, 7)
    assert Growth.between(3, 6, padded=True) == Growth(3, 2)
    assert Growth.between(0, 0) == Growth(0)


@given(st.one_of(growths_to_any_size(), explicit_growths()))
def test_pads_can_become_copies_and_all_else_stays(growth: Growth) -> None:
    index, without = growth.index_map(), growth.unpadded().index_map()
    assert PAD not in without
    assert (without == index)[index != PAD].all()


@given(st.one_of(growths_to_any_size(), explicit_growths()))
def test_slices_of_pads_are_all_pads(growth: Growth) -> None:
    places = [i for part in growth.pad_slices() for i in range(growth.new_size)[part]]
    assert places == np.flatnonzero(growth.index_map() == PAD).tolist()


@pytest.mark.parametrize(("extra", "pads"), [(3, 0), (-1, 0), (0, -1)])
def test_more_copies_than_one_round_are_refused(extra: int, pads: int) -> None:
    with pytest.raises(ValueError, match=rf"a dim of 3 cannot have {extra} more copies and {pads} pads"):
        Growth(3, extra=extra, pads=pads)


@pytest.mark.parametrize("kind", ["tile", "interleave"])
def test_trees_of_one_factor_are_uniform(kind: str) -> None:
    leaf = Leaf(Growth(3, 2, "tile" if kind == "tile" else "interleave"))
    assert leaf.uniform == 2
    assert Product((leaf, rigid(4), leaf)).uniform == 4
    assert Concat((leaf, leaf)).uniform == 2
    assert Concat((leaf, rigid(3))).uniform is None
    assert Leaf(Growth.explicit(2, [1, 0, 0, 1])).uniform == 2


def test_a_dropped_factor_leaves_nothing_of_a_product() -> None:
    nothing = Product((Leaf(Growth.explicit(2, [])), Leaf(Growth(3, 2))))
    assert (nothing.size, nothing.new_size, nothing.uniform) == (6, 0, 0)


@given(layouts())
def test_what_does_not_grow_is_the_identity(layout: Layout) -> None:
    if not layout.grows:
        assert layout.index_map.tolist() == list(range(layout.size))
        assert layout.multiplicity.tolist() == [1] * layout.size


def test_the_kinds_repeat_as_the_paper_and_the_docs_say() -> None:
    assert Growth(3, 2).index_map().tolist() == [0, 1, 2, 0, 1, 2]
    assert Growth(3, 2, "interleave").index_map().tolist() == [0, 0, 1, 1, 2, 2]
    assert Growth.explicit(3, np.array([2, PAD, 0, 1])).index_map().tolist() == [2, PAD, 0, 1]


def test_tiling_both_halves_is_not_tiling_the_whole() -> None:
    half = Leaf(Growth(2, 2))
    assert Concat((half, half)).index_map.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    assert Leaf(Growth(4, 2)).index_map.tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize("factor", [0, -2])
def test_a_factor_below_one_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=rf"growth factor must be at least 1, got {factor}"):
        Growth(4, factor)


@pytest.mark.parametrize("entry", [3, -2])
def test_an_entry_outside_the_dim_is_refused(entry: int) -> None:
    with pytest.raises(ValueError, match=r"a dim of 3 has an entry outside \[0, 3\)"):
        Growth.explicit(3, [0, 1, 2, entry])
