"""The parameters of a clone, those of its source that they come from, and how gradients and sizes follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphclone.algebra.recipes import Widening
from graphclone.graph.ir import Initializer
from graphclone.optimizers.shares import Share, shares
from graphclone.pipeline.state import State
from graphclone.runtime.new_tensors import original


@dataclass(frozen=True)
class Parameters:
    """The parameters of a clone beside those of its source.

    One of the source may have become several, where its uses have been given weights of their own; new blocks have
    others that are made after it. Their names may differ from its own.

    Attributes:
        model: what messages call it.
        names: of the source's parameters, by ``id`` of the tensor that they were traced with.
        heirs: by every name of a parameter of the source, what it has become.
        additions: by the same names, the parameters of new blocks that are made after it.
        shares: by every name of a parameter of the clone.
        recipes: by the same names.
    """

    model: str
    names: Mapping[int, str]
    heirs: Mapping[str, Sequence[str]]
    additions: Mapping[str, Sequence[str]]
    shares: Mapping[str, Share]
    recipes: Mapping[str, Widening]

    @classmethod
    def of(cls, state: State) -> Parameters:
        """Those of a state after the whole pipeline."""
        parts: dict[int, list[Initializer]] = {}
        for initializer in _parameters(state.model.initializers):
            parts.setdefault(id(initializer.tensor), []).append(initializer)
        clone = _parameters(state.graph.initializers)
        new = {i.name for i in clone if state.has(State.depth) and i.name not in state.depth.origins}
        heirs: dict[int, list[str]] = {}
        additions: dict[int, list[str]] = {}
        for initializer in clone:
            made = additions if initializer.name in new else heirs
            made.setdefault(id(original(initializer.tensor)), []).append(initializer.name)
        return cls(
            state.graph.name,
            {key: own[0].name for key, own in parts.items()},
            {name: heirs.get(key, []) for key, own in parts.items() for i in own for name in i.names},
            {name: additions.get(key, []) for key, own in parts.items() for i in own for name in i.names},
            shares(state),
            {name: state.recipes[i.value] for i in clone for name in i.names},
        )

    @property
    def order(self) -> list[str]:
        """The names of the source's parameters, each once, in the order of its ``named_parameters()``."""
        return list(self.names.values())

    def source_of(self) -> dict[str, str]:
        """The parameter of the source that each of the clone's is, or is made after."""
        made = (self.heirs, self.additions)
        by_clone = {clone: name for name in self.order for found in made for clone in found[name]}
        aliases = {id(self.recipes[name]): source for name, source in by_clone.items()}
        return {name: aliases[id(recipe)] for name, recipe in self.recipes.items()}

    def source_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter of the source."""
        return self.recipes[self.heirs[name][0]].source_shape

    def doubt(self, name: str) -> str | None:
        """Why the gradients of what a parameter of the source has become do not follow from its own."""
        if len(self.heirs[name]) > 1:
            return (
                f"{' and '.join(self.heirs[name])} are one weight in the source, which keeps the sum of their gradients"
            )
        return self.shares[self.heirs[name][0]].doubt


def _parameters(initializers: Sequence[Initializer]) -> list[Initializer]:
    return [initializer for initializer in initializers if initializer.kind == "parameter"]
