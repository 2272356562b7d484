"""Export a module once for all requests that are made of it: nine tenths of a request are spent in torch.export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils import _pytree as pytree


class Exports:
    """What torch.export made of one module, or raised, by how it was called."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.made: dict[str, Any] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """torch.export answers from memory where it can."""
        export = torch.export.export

        def remembering(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if module is not self.module:
                return export(module, *args, **kwargs)
            key = repr(pytree.tree_map_only(torch.Tensor, lambda t: (tuple(t.shape), t.dtype), (args, kwargs)))
            if key not in self.made:
                try:
                    self.made[key] = export(module, *args, **kwargs)
                except Exception as error:
                    self.made[key] = error
            if isinstance(self.made[key], Exception):
                raise self.made[key]
            return self.made[key]

        with mock.patch.object(torch.export, "export", remembering):
            yield
