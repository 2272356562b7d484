"""What torch does on real tensors and a trace cannot follow, in terms that it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.distributions import Distribution

from graphclone.formats.torch.causal_hints import no_causal_hints
from graphclone.formats.torch.detached_data import data_detached
from graphclone.formats.torch.flex_attention import plain_flex_attention


@contextmanager
def traceable_torch() -> Iterator[None]:
    """Let code run on tensors without numbers as it does on others; nothing that it computes is another.

    Arguments of distributions are not checked, since a check asks for numbers, and does nothing but raise.
    """
    with (
        data_detached(),
        no_causal_hints(),
        plain_flex_attention(),
        mock.patch.object(Distribution, "_validate_args", False),
        mock.patch.object(nn.Module, "_apply", _changed(nn.Module._apply)),
    ):
        yield


def _changed(apply: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """``Module.to`` and its like, which put every parameter back into its place, also those that are as asked for.

    torch refuses that where tensors stand for others.
    """

    def applied(module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], *args: Any, **options: Any) -> Any:
        tensors = [*module.parameters(), *module.buffers()]
        return module if all(function(t) is t for t in tensors) else apply(module, function, *args, **options)

    return applied
