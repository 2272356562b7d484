"""Masks of torch's Transformer, which asks of each whether it is causal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch


@contextmanager
def no_causal_hints() -> Iterator[None]:
    """Let torch's Transformer apply every mask as it is given.

    Whether a mask is causal depends on its numbers, which a trace cannot ask for. The answer is a hint by which a
    kernel does without the mask, as the documentation of ``is_causal`` says, and changes no result.
    """
    with mock.patch.object(torch.nn.modules.transformer, "_detect_is_causal_mask", _hint):
        yield


def _hint(mask: torch.Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """What the user says of a mask; without a word it is any."""
    del mask, size
    return is_causal is True
