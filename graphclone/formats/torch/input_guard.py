"""The part of a clone that refuses inputs its trace does not hold for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphclone.formats.torch.guards import Condition, Guards, InputError
from graphclone.formats.torch.structure import leaves_of, misfits

GUARD = "input_guard"
"""The name of the submodule."""


STRUCTURE = "structure"
"""The name of its part that takes structures apart."""


class StructureGuard(torch.nn.Module):
    """Takes inputs apart that have the structure of those that a trace was given, and refuses others.

    Attributes:
        spec: of the inputs that the trace was given.
        arguments: their names.
        any_order: whether dicts may have their keys in another order.
    """

    def __init__(self, spec: pytree.TreeSpec, guards: Guards) -> None:
        super().__init__()
        self.spec, self.arguments, self.any_order = spec, guards.arguments, guards.any_order

    def forward(self, inputs: Any) -> list[Any]:
        """The inputs one by one.

        Args:
            inputs: a pair of a list and a dict: what a module is called with.

        Raises:
            InputError: they have another structure.
        """
        for reason in misfits(inputs, self.spec, self.arguments, any_order=self.any_order):
            raise InputError(f"{reason}; clone with example inputs of that kind for these")
        return list(leaves_of(inputs, self.spec))


class InputGuard(torch.nn.Module):
    """Lets inputs pass that a trace holds for, and refuses others.

    Its part ``structure`` takes them out of lists and dicts before.

    Traced itself, by torch.export or torch.compile, it leaves its conditions in that trace.

    Attributes:
        in_graph: whether the traced graph is to compute the conditions itself, and to fail where they do not hold: for
            formats that know neither guards nor assertions.
    """

    def __init__(self, guards: Guards, spec: pytree.TreeSpec) -> None:
        super().__init__()
        self.guards = guards
        self.add_module(STRUCTURE, StructureGuard(spec, guards))
        self.in_graph = False
        self._is_impure = True  # so that torch.fx does not drop the call

    def forward(self, *inputs: Any) -> tuple[Any, ...]:
        """The inputs.

        Raises:
            InputError: the trace does not hold for them.
        """
        for violation in self.guards.violations(inputs):
            raise InputError(f"{violation.message}; {violation.remedy}")
        if torch.compiler.is_exporting():
            if not self.in_graph:
                _assert_dtypes(inputs)
            # torch.export takes for granted that no size is 0 or 1, and would leave no guard.
            for text, holds in self._computed([doubt.condition for doubt in self.guards.doubts], inputs):
                torch._assert_async(holds, text)
            if self.in_graph and self.guards.all_conditions:
                return self._looked_up(inputs)
        return inputs

    def _computed(self, conditions: Sequence[Condition], inputs: Sequence[Any]) -> Iterator[tuple[str, torch.Tensor]]:
        """Conditions as tensors. What cannot be computed so is made superfluous: the axes it is about are fixed."""
        sizes = [_sizes(value) if isinstance(value, torch.Tensor) else value for value in inputs]
        for condition in conditions:
            try:
                yield str(condition), condition.function(self.guards.names, _TENSORS)(*sizes)
            except Exception:  # a function that the namespace does not have, or the truth value of a tensor
                for position, axis in self.guards.axes_in(condition):
                    int(inputs[position].shape[axis])  # to read a symbolic size as a number fixes it

    def _looked_up(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The inputs, one of them multiplied by a 1 that is looked up, in vain where a condition does not hold."""
        first = next(i for i, value in enumerate(inputs) if isinstance(value, torch.Tensor) and value.ndim)
        value = inputs[first]
        wrong = torch.zeros((), dtype=torch.int64)
        for _, holds in self._computed(self.guards.all_conditions, inputs):
            wrong = torch.maximum(wrong, holds.logical_not().to(torch.int64))
        one = torch.ones(1, dtype=value.dtype, device=value.device).index_select(0, wrong.reshape(1).to(value.device))
        passed = value.logical_and(one) if value.dtype == torch.bool else value * one
        return (*inputs[:first], passed, *inputs[first + 1 :])


def _assert_dtypes(inputs: Sequence[Any]) -> None:
    """Leave in a program what dtypes it takes, of which torch.export makes no guard."""
    for value in inputs:
        if isinstance(value, torch.Tensor):
            torch.ops.aten._assert_tensor_metadata(value, dtype=value.dtype)


def _sizes(tensor: torch.Tensor) -> SimpleNamespace:
    """What a condition reads of an input, its sizes as tensors."""
    return SimpleNamespace(shape=[torch.scalar_tensor(size, dtype=torch.int64) for size in tensor.shape])


def _greatest(*numbers: Any) -> torch.Tensor:
    return _stacked(numbers).amax(0)


def _least(*numbers: Any) -> torch.Tensor:
    return _stacked(numbers).amin(0)


def _stacked(numbers: Sequence[Any]) -> torch.Tensor:
    """Numbers in one tensor, of a type that holds them all."""
    return torch.stack([torch.as_tensor(number).to(torch.float64) for number in numbers])


_TENSORS: Mapping[str, Any] = {
    "max": _greatest,
    "min": _least,
    "round": torch.round,
    "math": SimpleNamespace(trunc=torch.trunc, floor=torch.floor, ceil=torch.ceil, inf=math.inf),
    "torch": SimpleNamespace(sym_float=lambda number: number.to(torch.float64)),
}
"""The functions that conditions are printed with, over tensors."""
