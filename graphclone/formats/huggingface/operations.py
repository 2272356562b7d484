"""The operations of a module in one run, recorded without computing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from graphclone.runtime.tensors import digest


class Run(NamedTuple):
    """Digests of one run.

    Attributes:
        shapes: of the operators and the shapes of their results.
        weights: of the same, and of what is done with which weight; what may be folded into constants is left out.
        whole: of everything, to the last number; empty where something in it is not known. Two runs whose digests are
            equal compute the same from the same weights.
    """

    shapes: str
    weights: str
    whole: str


@dataclass(frozen=True)
class _Operation:
    """One call of an operator.

    Attributes:
        name: of the operator.
        shapes: of its results.
        operands: its arguments, in order: numbers as they are, and of every tensor what it is.
        fixed: whether no weight has a part in its results.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    operands: tuple[Any, ...]
    fixed: bool

    @property
    def weights(self) -> list[str]:
        """The names of the weights among its operands."""
        return [operand.name for operand in self.operands if isinstance(operand, _Weight)]


class _Weight(NamedTuple):
    """A weight as an operand."""

    name: str


class _Result(NamedTuple):
    """A result of an earlier operation as an operand: the first, second, .. of which."""

    operation: int
    place: int
    fixed: bool


class _Unknown(NamedTuple):
    """An operand of unknown origin."""


class Recorder(TorchDispatchMode):
    """Notes every operation, and of its operands which weight, which earlier result or what data each of them is."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations: list[_Operation] = []
        self._known: dict[int, _Weight | _Result] = {id(tensor): _Weight(name) for name, tensor in weights.items()}
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, layout = pytree.tree_flatten((args, kwargs or {}))
        operands = (layout, *(self._named(leaf) for leaf in leaves))
        fixed = not any(isinstance(o, _Weight) or (isinstance(o, _Result) and not o.fixed) for o in operands)
        result = func(*args, **(kwargs or {}))
        results = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for place, tensor in enumerate(results):
            self._known[id(tensor)] = _Result(len(self._operations), place, fixed)
            self._kept.append(tensor)  # or another would get its id
        self._operations.append(_Operation(str(func), tuple(tuple(r.shape) for r in results), operands, fixed))
        return result

    def _named(self, leaf: Any) -> Any:
        """What an operand is."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if isinstance(leaf, FakeTensor):
            return self._known.get(id(leaf), _Unknown())
        with unset_fake_temporarily():
            return leaf.dtype, tuple(leaf.shape), digest(leaf)

    def run(self) -> Run:
        """The operations that have been recorded."""
        known = not any(isinstance(operand, _Unknown) for o in self._operations for operand in o.operands)
        return Run(
            shapes=_digest((o.name, o.shapes) for o in self._operations),
            weights=_digest((o.name, o.shapes, o.weights) for o in self._operations if not o.fixed),
            whole=_digest(self._operations) if known else "",
        )


def _digest(items: Iterable[Any]) -> str:
    return hashlib.sha256("\n".join(map(repr, items)).encode()).hexdigest()
