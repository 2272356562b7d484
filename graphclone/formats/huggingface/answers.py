"""What is found out about a class of transformers, kept from one run to the next.

Traces, shapes and runs follow from the class, the configuration and the inputs, and from nothing in the weights. They
are kept where the class is one of transformers as it is installed, and only there: what other code depends on is not
known. What a request makes of them is worked out anew every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch

from graphclone.formats.huggingface.config_solver import Config, Shapes
from graphclone.formats.huggingface.installed import installed_code
from graphclone.formats.huggingface.operations import Run
from graphclone.formats.torch.stored_graph import NotStorable, restored, stored
from graphclone.graph.ir import Graph
from graphclone.runtime import cache

_PATH = "_name_or_path"
"""Where a configuration was read from, which no model looks at."""


class Answers:
    """The cache on disk, for one class.

    Args:
        kept: whether answers are kept at all.
        about: what tells the class, and the way in which it is asked, from others.
    """

    def __init__(self, *about: str, kept: bool) -> None:
        self.about = [*about, installed_code()] if kept else None

    def shapes(self, fields: Config, find: Callable[[], Shapes]) -> Shapes:
        """The shape of every parameter of the model with these fields."""
        key = self._key("shapes", fields)
        known = cache.read(key) if key else None
        if isinstance(known, dict):
            return {name: tuple(shape) for name, shape in known.items()}
        shapes = find()
        if key:
            cache.write(key, {name: list(shape) for name, shape in shapes.items()})
        return shapes

    def run(self, fields: Config, inputs: Mapping[str, Any], find: Callable[[], Run]) -> Run:
        """What a run of that model does."""
        key = self._key("run", fields, inputs)
        known = cache.read(key) if key else None
        if isinstance(known, list):
            return Run(*known)
        run = find()
        if key:
            cache.write(key, list(run))
        return run

    def graph(self, fields: Config, inputs: Mapping[str, Any], name: str, find: Callable[[], Graph]) -> Graph:
        """The trace of that model, under a name of the caller's."""
        key = self._key("graph", fields, inputs)
        if key and (plain := cache.read(key)) is not None:
            with suppress(NotStorable):
                return restored(plain, name)
        graph = find()
        if key:
            with suppress(NotStorable):  # it may have something that has no name
                cache.write(key, stored(graph))
        return graph

    def _key(self, kind: str, fields: Config, inputs: Mapping[str, Any] | None = None) -> str | None:
        if self.about is None:
            return None
        asked = {key: value for key, value in fields.items() if key != _PATH}
        described = [[name, _described(value)] for name, value in (inputs or {}).items()]
        try:
            return cache.key(kind, self.about, asked, described)
        except TypeError:  # a field or an input that is no plain value
            return None


def _described(value: Any) -> Any:
    """An input with all that a trace may depend on."""
    if not isinstance(value, torch.Tensor):
        return [type(value).__name__, value]
    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return [str(value.dtype), list(value.shape), list(value.stride()), hashlib.sha256(data).hexdigest()]
