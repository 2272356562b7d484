"""Words of 16 bytes hold the same numbers: what a GPU is given, computed on the CPU."""

from __future__ import annotations

import pytest
import torch

from graphclone.runtime import writes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("at_once", [64, 1 << 20])
def test_words_hold_the_same_numbers(
    dtype: torch.dtype, factor: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies along axes before and between, in a part of a larger tensor."""
    if not dtype.is_floating_point:
        factor = max(1, int(factor))
    monkeypatch.setattr(writes, "_AT_ONCE", at_once)
    source = torch.arange(3 * 5 * 16).reshape(3, 5, 16).sub(100).to(dtype)
    out = torch.zeros(2, 3, 2, 5, 32, dtype=dtype)
    part, broadcast = out[..., 16:], source[None, :, None]
    assert writes._has_words(part)
    assert writes._has_words(broadcast)
    writes._write_in_words(part, broadcast, factor)
    assert torch.equal(part, (source * factor)[None, :, None].expand_as(part))
    assert not out[..., :16].any()


def test_what_is_not_made_of_whole_words_is_not_taken_for_it() -> None:
    whole = torch.zeros(4, 8)
    assert writes._has_words(whole)
    assert not writes._has_words(whole[:, 1:5])
    assert not writes._has_words(whole[:, :6])
    assert not writes._has_words(torch.zeros(4, 9)[:, :8])
    assert not writes._has_words(whole.T)
    assert not writes._has_words(whole[..., None])
    assert not writes._has_words(torch.zeros(()))
