"""Flex attention, spelled out: scores, what the model makes of each, and their mask.

torch keeps it as one operator whose functions are modules among its arguments. Where it computes without a kernel of
its own, it does what is written here, as ``torch.nn.attention.flex_attention`` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
from torch.nn.attention import flex_attention


@contextmanager
def plain_flex_attention() -> Iterator[None]:
    """Let a trace see operators that torch has for all tensors, in place of the one."""
    with mock.patch.multiple(
        flex_attention,
        flex_attention_hop=_in_own_precision,
        _convert_mask_to_block_mask=_one_block,
        setup_compilation_env=lambda: nullcontext("eager"),
        _FLEX_ATTENTION_DISABLE_COMPILE_DEBUG=True,
        _validate_device=_any_device,
    ):
        yield


def _any_device(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Let weights that learn lie on a CPU, where torch's operator has no gradient; these operators have."""
    del query, key, value


def _one_block(mask: Tensor, *_: Any, separate_full_blocks: bool = False, **__: Any) -> tuple[Tensor, Tensor | None]:
    """A mask as a single block, of which the function of places says what counts; a trace then holds for any length."""
    batch, heads = ((1,) * 4 + tuple(mask.shape))[-4:-2]
    block = mask.new_ones((batch, heads, 1, 1), dtype=torch.int8)
    return block, torch.zeros_like(block) if separate_full_blocks else None


def _in_own_precision(query: Tensor, key: Tensor, value: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The operator, which under autocast takes its operands in the lower precision, and computes in its own."""
    kind = query.device.type
    if not torch.is_autocast_enabled(kind):
        return _attention(query, key, value, *arguments)
    dtype = torch.get_autocast_dtype(kind)
    query, key, value = (t if t.dtype == torch.float64 else t.to(dtype) for t in (query, key, value))
    with torch.autocast(kind, enabled=False):
        return _attention(query, key, value, *arguments)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator.

    Args:
        query: of shape ``(batch, heads, length, width)``.
        key: of as many heads, or a divisor of them.
        value: as the key.
        score_mod: what becomes of a score, given its places in the batch, the heads, the queries and the keys.
        block_mask: ends with a function of these places that says which scores count.
        scale: of all scores.
        kernel_options: of no matter here.

    Returns:
        The output, and the logarithm of the sum and the maximum of each row of scores, to base 2.
    """
    del kernel_options
    shared = query.size(1) // key.size(1)
    if shared > 1:
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    precision = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = query.to(precision) @ key.to(precision).transpose(-2, -1) * scale
    places = [torch.arange(size, device=scores.device) for size in scores.shape]
    with TransformGetItemToIndex():
        counted = flex_attention._vmap_for_bhqkv(block_mask[-1], prefix=())(*places)
        scores = flex_attention._vmap_for_bhqkv(score_mod, prefix=(0,))(scores, *places)
    scores = torch.where(counted, scores, -math.inf)
    weights = torch._safe_softmax(scores, -1)
    bits = math.log(2)
    out = weights.to(query.dtype) @ value.to(query.dtype)
    return out, scores.logsumexp(-1) / bits, scores.max(-1).values / bits
