"""Functions that remember results, of which a trace leaves none without numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import graphclone as gc

_MASKS: dict[object, Tensor] = {}


@functools.lru_cache(maxsize=8)
def _cached_mask(size: int) -> tuple[Tensor, int]:
    return torch.full((size, size), -1e9).triu(1), size


@functools.cache
def _cached_for_ever(size: int) -> tuple[Tensor, int]:
    return torch.full((size, size), -1e9).triu(1), size


def _hidden() -> Callable[[int], tuple[Tensor, int]]:
    """A function whose memory nothing but a closure knows."""
    cached = functools.lru_cache(lambda size: (torch.full((size, size), -1e9).triu(1), size))

    def mask(size: int) -> tuple[Tensor, int]:
        return cached(size)

    return mask


def _kept_in_a_dict(size: int) -> tuple[Tensor, int]:
    if size not in _MASKS:
        _MASKS[size] = torch.full((size, size), -1e9).triu(1)
    return _MASKS[size], size


class _Mask:
    """An object that keeps a tensor, as the block masks of flex attention do."""

    def __init__(self, size: int) -> None:
        self.numbers = torch.full((size, size), -1e9).triu(1)


@functools.lru_cache
def _cached_object(size: int) -> _Mask:
    return _Mask(size)


@functools.lru_cache
def _cached_closure(size: int) -> Callable[[], Tensor]:
    numbers = torch.full((size, size), -1e9).triu(1)
    return lambda: numbers


def _kept_by_an_object(size: int) -> tuple[Tensor, int]:
    return _cached_object(size).numbers, size


def _kept_by_a_closure(size: int) -> tuple[Tensor, int]:
    return _cached_closure(size)(), size


class _Attention(nn.Module):
    """One head over three places, with a mask that a function remembers."""

    masks: ClassVar[dict[int, Tensor]] = {}

    def __init__(self, mask: Callable[[int], tuple[Tensor, int]]) -> None:
        super().__init__()
        self.mask = mask
        self.qkv = nn.Linear(6, 24)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split(8, -1)
        scores = q @ k.transpose(-1, -2) / 8**0.5 + self.mask(3)[0]
        result: Tensor = self.out(scores.softmax(-1) @ v)
        return result


def _kept_by_the_class(size: int) -> tuple[Tensor, int]:
    if size not in _Attention.masks:
        _Attention.masks[size] = torch.full((size, size), -1e9).triu(1)
    return _Attention.masks[size], size


@pytest.mark.parametrize(
    "mask",
    [
        _cached_mask,
        _cached_for_ever,
        _hidden(),
        _kept_in_a_dict,
        _kept_by_the_class,
        _kept_by_an_object,
        _kept_by_a_closure,
    ],
)
def test_a_model_runs_on_after_it_was_cloned(mask: Callable[[int], tuple[Tensor, int]]) -> None:
    torch.manual_seed(0)
    model, x = _Attention(mask).eval(), torch.randn(2, 3, 6)
    wide = gc.clone(model, (x,), widen=2)
    assert wide.verify(onnx=False).ok
    result = model(x)
    assert type(result) is Tensor
    torch.testing.assert_close(wide.module()(x), result)


def test_what_holds_numbers_is_remembered() -> None:
    _cached_mask.cache_clear()
    remembered = _cached_mask(5)[0]
    model, x = _Attention(_cached_for_ever).eval(), torch.randn(2, 3, 6)
    gc.clone(model, (x,), widen=2)
    assert _cached_mask(5)[0] is remembered


def test_a_checkpoint_leaves_no_fake_tensors_in_the_code_of_its_class(tmp_path: Path) -> None:
    """DINOv3 remembers where the patches of a picture lie."""
    transformers = pytest.importorskip("transformers")
    from graphclone.formats.huggingface.reader import open_checkpoint

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.DINOv3ViTConfig(**sizes, image_size=32, patch_size=8)
    model = transformers.DINOv3ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    pictures = checkpoint.example_inputs["pixel_values"]
    before = model(pictures).last_hidden_state
    from transformers.models.dinov3_vit import modeling_dinov3_vit as code

    code.get_patches_center_coordinates.__closure__[1].cell_contents.cache_clear()
    checkpoint.run(checkpoint.fields)
    assert torch.equal(model(pictures).last_hidden_state, before)
