"""Answers about a class of transformers, kept from one run to the next.

Traces, shapes and runs follow from the class, the configuration and the inputs, and from nothing in the weights. So
does the configuration that a request comes to. They are kept where the class is one of transformers as it is installed,
and only there: what other code depends on is not known. That the source can be grown into that configuration is proved
anew every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from graphclone.algebra.strategies import STRATEGIES
from graphclone.formats.huggingface.config_solver import Config, Shapes, changed, differences
from graphclone.formats.huggingface.installed import installed_code
from graphclone.formats.huggingface.operations import Run
from graphclone.formats.torch.stored_graph import NotStorable, restored, stored
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import Request
from graphclone.runtime import cache
from graphclone.runtime.tensors import digest

T = TypeVar("T")

Solution = tuple[Config, Sequence[str]]
"""The configuration that a request comes to, and what the user should know about it."""

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

        def restore(plain: Any) -> Shapes:
            return {name: tuple(shape) for name, shape in plain.items()}

        return self._kept(self._key("shapes", fields), find, dict, restore)

    def run(self, fields: Config, inputs: Mapping[str, Any], find: Callable[[], Run]) -> Run:
        """The operations of one run of that model."""
        return self._kept(self._key("run", fields, inputs), find, list, lambda plain: Run(*plain))

    def graph(self, fields: Config, inputs: Mapping[str, Any], name: str, find: Callable[[], Graph]) -> Graph:
        """The trace of that model, under a name of the caller's."""
        return self._kept(self._key("graph", fields, inputs), find, stored, lambda plain: restored(plain, name))

    def takes(self, fields: Config, inputs: Mapping[str, Any], find: Callable[[], bool]) -> bool:
        """Whether that model makes something of the inputs."""
        return self._kept(self._key("takes", fields, inputs), find, bool, bool)

    def solution(
        self, fields: Config, inputs: Mapping[str, Any], request: Request, find: Callable[[], Solution]
    ) -> Solution:
        """The configuration that a request makes of these fields."""

        def store(solution: Solution) -> Any:
            wanted, notes = solution
            changes = [[list(where), new] for where, (_, new) in differences(fields, wanted).items()]
            if restore(plain := [changes, list(notes)])[0] != wanted:  # a field is there no more
                raise NotStorable("fields")
            return plain

        def restore(plain: Any) -> Solution:
            changes, notes = plain
            return changed(fields, [(tuple(where), new) for where, new in changes]), notes

        asked = _asked(request)
        key = None if asked is None else self._key(f"solution {asked}", fields, inputs)
        return self._kept(key, find, store, restore)

    @staticmethod
    def _kept(key: str | None, find: Callable[[], T], store: Callable[[T], Any], restore: Callable[[Any], T]) -> T:
        """An answer from the disk, or one that is found now and kept; without a key it is only found."""
        if key and (plain := cache.read(key)) is not None:
            with suppress(NotStorable, TypeError, AttributeError):  # what is not as it was written is as good as none
                return restore(plain)
        answer = find()
        if key:
            with suppress(NotStorable):  # it may have something that has no name
                cache.write(key, store(answer))
        return answer

    def _key(self, kind: str, fields: Config, inputs: Mapping[str, Any] | None = None) -> str | None:
        if self.about is None:
            return None
        asked = {key: value for key, value in fields.items() if key != _PATH}
        described = [[name, _described(value)] for name, value in (inputs or {}).items()]
        try:
            return cache.key(kind, self.about, asked, described)
        except TypeError:  # a field or an input that is no plain value
            return None


def _asked(request: Request) -> str | None:
    """What a request asks for; None where a function of the user's is its strategy, of which nobody knows what it does.

    Seeds change no widths.
    """
    strategy = request.strategy
    known = STRATEGIES.get(strategy.name)
    if known is None or known.rule is not strategy.rule:
        return None
    return repr((_fields_but(request, "strategy", "seed"), _fields_but(strategy, "rule")))


def _fields_but(item: Any, *left_out: str) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(item))
    return {name: getattr(item, name) for name in names if name not in left_out}


def _described(value: Any) -> Any:
    """An input with all that a trace may depend on."""
    if not isinstance(value, torch.Tensor):
        return [type(value).__name__, value]
    return [str(value.dtype), list(value.shape), list(value.stride()), digest(value)]
