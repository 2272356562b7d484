"""The garbage collector is as it was, whatever a block did."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from graphclone.runtime import collector


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_it_is_called_less_often_within_and_as_before_after() -> None:
    gc.set_threshold(700, 10, 5)
    with collector.seldom():
        assert gc.get_threshold()[0] > 10_000
        assert gc.isenabled()
    assert gc.get_threshold() == (700, 10, 5)


def test_an_error_changes_nothing_of_that() -> None:
    gc.set_threshold(700, 10, 5)

    @collector.seldom()
    def failing() -> None:
        raise ValueError("of the block")

    for _ in range(2):
        with pytest.raises(ValueError, match="of the block"):
            failing()
        assert gc.get_threshold() == (700, 10, 5)


@pytest.mark.parametrize("first", [0, 1_000_000])
def test_what_the_user_set_is_kept(first: int) -> None:
    gc.set_threshold(first, 10, 5)
    with collector.seldom():
        assert gc.get_threshold()[0] == first
