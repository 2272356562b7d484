"""What a module does in one run, operation by operation, without computing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """One call of an operator.

    Attributes:
        name: of the operator.
        shapes: of its results.
        operands: its arguments, in order: numbers as they are, and of every tensor what it is.
        fixed: whether no weight has a part in its results, so that they may be folded into constants.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    operands: tuple[Any, ...]
    fixed: bool

    @property
    def weights(self) -> list[str]:
        """The names of the weights among its operands."""
        return [operand.name for operand in self.operands if isinstance(operand, Weight)]


class Weight(NamedTuple):
    """A weight as an operand."""

    name: str


class Result(NamedTuple):
    """A result of an earlier operation as an operand: the first, second, .. of which."""

    operation: int
    place: int
    fixed: bool


def differ(a: Sequence[Operation], b: Sequence[Operation]) -> bool:
    """Whether two runs do other things with weights, whatever constants they do it with."""
    ours, theirs = ([(o.name, o.shapes, o.weights) for o in run if not o.fixed] for run in (a, b))
    return ours != theirs


class Recorder(TorchDispatchMode):
    """Notes every operation, and of its operands which weight, which earlier result or what data each of them is.

    Two runs whose notes are equal compute the same from the same weights.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._known: dict[int, Weight | Result] = {id(tensor): Weight(name) for name, tensor in weights.items()}
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves, layout = pytree.tree_flatten((args, kwargs or {}))
        operands = (layout, *(self._named(leaf) for leaf in leaves))
        fixed = not any(isinstance(o, Weight) or (isinstance(o, Result) and not o.fixed) for o in operands)
        result = func(*args, **(kwargs or {}))
        results = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for place, tensor in enumerate(results):
            self._known[id(tensor)] = Result(len(self.operations), place, fixed)
            self._kept.append(tensor)  # or another would get its id
        self.operations.append(Operation(str(func), tuple(tuple(r.shape) for r in results), operands, fixed))
        return result

    def _named(self, leaf: Any) -> Any:
        """What an operand is; what comes from nowhere that is known equals nothing."""
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if isinstance(leaf, FakeTensor):
            return self._known.get(id(leaf), object())
        with unset_fake_temporarily():
            data = leaf.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return leaf.dtype, tuple(leaf.shape), hashlib.sha256(data).digest()
