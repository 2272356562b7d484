"""Fresh memory is like any other, whatever the system makes of the advice."""

from __future__ import annotations

import mmap

import pytest
import torch

from graphclone.runtime import memory

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(), (0, 5), (3, 4), (1025, 1027), (3000, 3001)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_every_element_can_be_written(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = memory.empty(shape, dtype, CPU)
    assert (tuple(tensor.shape), tensor.dtype, tensor.is_contiguous()) == (shape, dtype, True)
    assert bool((tensor.fill_(1) == 1).all())


def test_advice_is_about_pages_inside_of_the_tensor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(memory, "_madvise", lambda: lambda *arguments: asked.append(arguments))
    small, large = (memory.empty((size,), torch.uint8, CPU) for size in (1 << 20, 9 << 20))
    ((start, length, advice),) = asked
    assert start % memory._HUGE == length % memory._HUGE == 0
    assert large.data_ptr() <= start
    assert start + length <= large.data_ptr() + large.nbytes
    assert length >= large.nbytes - 2 * memory._HUGE
    assert advice == mmap.MADV_HUGEPAGE
    assert small.numel() == 1 << 20


def test_a_system_without_the_call_gives_memory_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_madvise", lambda: None)
    assert memory.empty((9 << 20,), torch.uint8, CPU).fill_(3).sum() == 3 * (9 << 20)
