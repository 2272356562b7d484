"""Each way to write gives the same numbers; what a GPU is given is computed on the CPU."""

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


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.int8,
        torch.bool,
        torch.float32,
        torch.float64,
        torch.int32,
        torch.int64,
        torch.complex64,
    ],
)
@pytest.mark.parametrize("factor", [1.0, 1 / 3, 2.0, 0.0])
@pytest.mark.parametrize("turns", [2, 3, writes._MOST_TURNS + 1])
def test_interleaved_copies_hold_the_same_numbers(dtype: torch.dtype, factor: float, turns: int) -> None:
    """In a part of a larger tensor, with copies along another axis, too."""
    if not dtype.is_floating_point:
        factor = float(round(factor))
    source = torch.arange(-20, 20).reshape(5, 8).to(dtype)
    if dtype == torch.bool:
        factor = min(factor, 1.0)
    out = torch.ones(2, 5, 16, turns, dtype=dtype)
    writes.write(out[:, :, 8:], source[None, :, :, None], factor)
    expected = source * (factor if dtype.is_floating_point else int(factor))
    assert torch.equal(out[:, :, 8:], expected.to(dtype)[None, :, :, None].expand(2, 5, 8, turns))
    assert (out[:, :, :8] == 1).all()


def test_only_few_copies_of_short_numbers_are_written_in_turn() -> None:
    out = torch.zeros(3, 4, 2, dtype=torch.bfloat16)
    assert writes._is_interleaved(out, out[..., :1])
    assert not writes._is_interleaved(out, out)
    assert not writes._is_interleaved(out.float(), out[..., :1].float())
    assert not writes._is_interleaved(torch.zeros(3, 4, 64, dtype=torch.bfloat16), out[..., :1])


def test_pairs_lie_as_one_number_of_twice_the_bytes_does() -> None:
    """At even places, one right behind the other."""
    out = torch.zeros(3, 5, 2)
    assert writes._are_pairs(out, out[..., :1])
    assert writes._are_pairs(out.long(), out[..., :1].long())
    assert writes._are_pairs(out.bfloat16(), out[..., :1].bfloat16())
    assert not writes._are_pairs(out.cfloat(), out[..., :1].cfloat())
    assert not writes._are_pairs(out, out)
    assert not writes._are_pairs(torch.zeros(3, 11)[:, 1:].unflatten(1, (5, 2)), out[..., :1])
    assert not writes._are_pairs(torch.zeros(3, 2, 5).mT, out[..., :1])
    assert not writes._are_pairs(torch.zeros(()), torch.zeros(()))


@pytest.mark.parametrize("offset", [0, 1])
def test_pairs_hold_the_same_bits(offset: int) -> None:
    """NaNs with what they carry, and both zeros; where pairs lie at odd places, too."""
    bits = torch.tensor([0x7FC01234, 0x7F812345, -0x80000000, 0, 0x00000001, 0x7F800000], dtype=torch.int32)
    out = torch.zeros(13, dtype=torch.int32)
    into = out[offset : offset + 12].view(torch.float32).unflatten(0, (6, 2))
    writes.write(into, bits.view(torch.float32)[:, None], 1.0)
    assert out[offset : offset + 12].tolist() == [b for b in bits.tolist() for _ in range(2)]


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_pairs_of_short_numbers_hold_the_same_bits(dtype: torch.dtype, offset: int) -> None:
    """All that there are."""
    stored = torch.uint8 if dtype.itemsize == 1 else torch.int16
    bits = torch.arange(1 << 8 * dtype.itemsize).to(stored)
    out = torch.zeros(2 * len(bits) + offset, dtype=stored)
    into = out[offset:].view(dtype).unflatten(0, (len(bits), 2))
    writes.write(into, bits.view(dtype)[:, None], 1.0)
    assert torch.equal(out[offset:], bits.repeat_interleave(2))
