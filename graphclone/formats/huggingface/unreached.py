"""Parts of a model that the example inputs do not reach: what a trace cannot say about their weights, and what it can.

A layer that stands beside others like it is widened as they are. A vector is repeated, which is right however it is
read if all that is of its width is repeated so. Nothing says how the rest should grow; and a part that stays as it is
must not meet a dim that grew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from graphclone.algebra.axes import Cause
from graphclone.algebra.growth import PAD, Layout
from graphclone.algebra.recipes import Widening
from graphclone.analysis.dims import starred
from graphclone.errors import GraphcloneError, Remedy, some
from graphclone.graph.ir import Graph, Initializer
from graphclone.pipeline.state import State


@dataclass(frozen=True)
class LeftOut:
    """Weights that a clone lacks: ``from_pretrained`` begins them anew, and nothing computes with them.

    Attributes:
        asked: those that the user wants it to lack.
        unstored: those that the source lacks.
        alike: what they are called in all blocks, if no block computes with one.
    """

    asked: Sequence[str] = ()
    unstored: Sequence[str] = ()
    alike: Collection[str] = ()

    @classmethod
    def of(cls, graph: Graph, stored: Container[str], patterns: Sequence[str]) -> LeftOut:
        """Find them in the graph of the source.

        Args:
            graph: of the model.
            stored: the names of the weights that are there.
            patterns: names of parts and of weights, or patterns, that the user gives.

        Raises:
            GraphcloneError: there is no such part, or the model computes with it.
        """
        weights, read = [i for i in graph.initializers if i.kind != "constant"], graph.read()
        asked: list[str] = []
        for pattern in patterns:
            meant = [i for i in weights if any(_is_in(name, pattern) for name in i.names)]
            if not meant:
                raise GraphcloneError(f"omit: {graph.name} has no part {pattern!r}")
            if used := [i.name for i in meant if i.value in read]:
                raise GraphcloneError(f"omit: {graph.name} computes with {used[0]}, so that no clone can lack it")
            asked += [i.name for i in meant if i.name not in asked]
        unstored = [i.name for i in weights if i.value not in read and not any(name in stored for name in i.names)]
        needed = {starred(i.name) for i in weights if i.value in read}
        alike = {starred(name) for name in (*asked, *unstored)} - needed
        return cls(asked, [name for name in unstored if name not in asked], alike)

    def __contains__(self, name: object) -> bool:
        """Whether a weight is among them, or in a block that the source does not have as they are in another."""
        return name in self.asked or name in self.unstored or starred(str(name)) in self.alike

    def taken_from(self, graph: Graph) -> None:
        """Take them out of the graph of the source, or of its clone."""
        graph.initializers = [i for i in graph.initializers if i.name not in self]

    def check(self, small: torch.nn.Module, build: Callable[[], torch.nn.Module]) -> None:
        """Refuse to lack a table that the class computes anew from a width that grew.

        Args:
            small: the model.
            build: makes the wide one.

        Raises:
            GraphcloneError: there is such a table.
        """
        shapes = {
            name: small.get_buffer(name).shape for name in (*self.asked, *self.unstored) if _is_table(small, name)
        }
        wide = dict(build().named_buffers()) if shapes else {}
        for name, shape in shapes.items():
            if name in wide and wide[name].shape != shape:
                raise GraphcloneError(
                    f"{name} is not reached by the example inputs, and its class computes it anew from widths that "
                    f"grew, so that the clone may be another model where it is read; {_REACH}, longer ones for example"
                )

    @property
    def notes(self) -> Iterator[str]:
        """What the user should know about them."""
        for why, names in (("as you ask", self.asked), ("as the source lacks it", self.unstored)):
            if names:
                yield f"left out, {why}, and begun anew by from_pretrained: {some(names)}"


def _is_table(model: torch.nn.Module, name: str) -> bool:
    """Whether a tensor of a model is a buffer other than the statistics of a norm, so that its class may compute it."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    return leaf in owner._buffers and not isinstance(owner, torch.nn.modules.batchnorm._NormBase)


def _is_in(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


_REACH = "give inputs that reach it"


def widen_unreached(state: State, build: Callable[[], Any]) -> list[str]:
    """Set the recipes of weights that nothing in the trace reads; returns what the user should know about them.

    Args:
        state: of a clone whose recipes are made.
        build: makes the model, for what its parts are.

    Raises:
        GraphcloneError: nothing says how one should grow, or it may meet what grew.
    """
    weights = [i for i in state.graph.initializers if i.kind != "constant"]
    unread = [i for i in weights if any(a.pin and a.pin.kind is Cause.UNREAD for a in state.facts.of[i.value])]
    reached = [i for i in weights if i not in unread]
    alike: dict[str, list[Widening]] = {}
    for i in reached:
        alike.setdefault(starred(i.name), []).append(replace(state.recipes[i.value], name=""))
    grown = _Grown.of([state.recipes[i.value] for i in reached])
    parts: dict[str, list[Initializer]] = {}
    for i in unread:
        parts.setdefault(_part(i.name, [other.name for other in reached]), []).append(i)
    for part, members in parts.items():
        for i in members:
            own = state.recipes[i.value]
            beside = _common(alike.get(starred(i.name), ()))
            if beside is not None and (beside.source_shape, beside.shape) == (own.source_shape, own.shape):
                state.recipes[i.value] = replace(beside, name=i.name)
            elif not (any(axis.grows for axis in own.axes) and _is_zero(i)):
                _check(part, own, grown, build)
    return (
        [f"not reached by the example inputs, so that what it computes is not compared: {some(parts)}"] if parts else []
    )


def _is_zero(initializer: Initializer) -> bool:
    """Whether a weight is 0 wherever it is read, and so is any number of copies of it."""
    return not bool(torch.as_tensor(initializer.read()).any())


def _common(recipes: Sequence[Widening]) -> Widening | None:
    """The recipe of all layers that stand beside each other, or None where they do not agree."""
    first, *others = recipes or (None,)
    return first if all(other == first for other in others) else None


@dataclass(frozen=True)
class _Grown:
    """The widths that grew of weights that are reached.

    Attributes:
        layouts: the ways in which each width grew.
        scaled: widths of which a weight has another scale than the source's.
    """

    layouts: Mapping[int, set[Layout]]
    scaled: Collection[int]

    @classmethod
    def of(cls, recipes: Iterable[Widening]) -> _Grown:
        layouts: dict[int, set[Layout]] = {}
        scaled = set()
        for recipe in recipes:
            for index, layout in enumerate(recipe.axes):
                if layout.grows:
                    layouts.setdefault(layout.size, set()).add(layout)
                    if index not in recipe.contracted and recipe.scale != 1:
                        scaled.add(layout.size)
        return cls(layouts, scaled)

    def alike(self, layout: Layout) -> bool:
        """Whether all that is of a width is made of copies, as a layout is, and is as large as in the source."""
        own = layout.index_map
        others = (other.index_map for other in self.layouts.get(layout.size, ()))
        copied = PAD not in own and all(np.array_equal(own, other) for other in others)
        return copied and layout.size not in self.scaled


def _check(part: str, recipe: Widening, grown: _Grown, build: Callable[[], Any]) -> None:
    """Refuse a weight that could be read in more than one way, or that may hand over a width that is no more."""
    wide = [axis.size for axis in recipe.axes if axis.size > 1]
    remedy: Remedy | None = Remedy("omit", "leaves it out, and its class begins it anew", [part])
    if not any(axis.grows for axis in recipe.axes):
        if meets := grown.layouts.keys() & wide:
            raise GraphcloneError(
                f"{part} is not reached by the example inputs and keeps its widths, but {recipe.name} has one of "
                f"{min(meets)}, as has what grew: they may meet; {_REACH}",
                remedy,
            )
        return
    model = build()
    if _is_table(model, recipe.name):  # begun anew it would be another one
        remedy = None
    owner = model.get_submodule(recipe.name.rpartition(".")[0])
    layer = isinstance(owner, torch.nn.Linear | torch.nn.modules.conv._ConvNd) and len(recipe.axes) > 1
    if layer or (len(wide) > 1 and not isinstance(owner, torch.nn.Embedding)):
        raise GraphcloneError(
            f"{part} is not reached by the example inputs, and nothing says how {recipe.name} of it should grow; "
            f"{_REACH}",
            remedy,
        )
    if not all(grown.alike(layout) for layout in recipe.axes if layout.grows):
        raise GraphcloneError(
            f"{part} is not reached by the example inputs, and {recipe.name} may meet what grew in another way than by "
            f"copies; {_REACH}",
            remedy,
        )


def _part(name: str, reached: Sequence[str]) -> str:
    """The outermost part of a model that a weight is in and no weight that is reached."""
    steps = name.split(".")
    prefixes = (".".join(steps[:count]) for count in range(1, len(steps)))
    return next((p for p in prefixes if not any(other.startswith(f"{p}.") for other in reached)), name)
