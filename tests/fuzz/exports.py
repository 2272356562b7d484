"""Export a module once for all requests that are made of it: nine tenths of a request are spent in torch.export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphclone.formats.torch.export import Exported, _Search


class Exports:
    """What torch.export made of one module, or raised, by how it was called."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.made: dict[str, Any] = {}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """An attempt at an export is answered from memory where it can be."""
        attempt = _Search.export

        def remembering(search: _Search, name: str, inputs: Any, **how: bool) -> Exported:
            if search.modules[name] is not self.module:
                return attempt(search, name, inputs, **how)
            shapes = pytree.tree_map_only(torch.Tensor, lambda t: (tuple(t.shape), t.dtype), inputs)
            key = repr((shapes, how))
            if key not in self.made:
                try:
                    self.made[key] = attempt(search, name, inputs, **how)
                except Exception as error:
                    self.made[key] = error
            if isinstance(self.made[key], Exception):
                search.refused = search.refused or (name, self.made[key])
                raise self.made[key]
            return self.made[key]

        with mock.patch.object(_Search, "export", remembering):
            yield
