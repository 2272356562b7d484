"""Operands read by name as what they must be: a tensor, a number, a list of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from graphclone.graph.ir import Node, Operand, Value

Size: TypeAlias = int | Value
"""A size that is literal, or computed."""


class OperandError(Exception):
    """An operand is missing, or is not what its reader takes it for."""


class Reader:
    """The operands of a node by name, each read as what it must be.

    Every method but ``has`` and ``get`` raises an OperandError where the operand is missing or something else.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    def own_name(self, name: str) -> str:
        """The node's own name for the operand."""
        return name

    def has(self, name: str) -> bool:
        """Whether the node gives the operand."""
        return self.node.operands.get(self.own_name(name)) is not None

    def get(self, name: str) -> Operand:
        """The operand, whatever it is; None where the node does not give it."""
        return self.node.operands.get(self.own_name(name))

    def tensor(self, name: str, rank: int | None = None) -> Value:
        """The operand, which must be a tensor, with so many axes if that is said."""
        tensor = self.maybe_tensor(name)
        if tensor is None:
            raise self.refusal(name, "is no tensor")
        if rank not in (None, tensor.rank):
            raise self.refusal(name, f"has {tensor.rank} axes where {rank} were expected")
        return tensor

    def value(self, name: str) -> Value:
        """The operand, which must be computed: a tensor or a number."""
        operand = self.get(name)
        if not isinstance(operand, Value):
            raise self.refusal(name, "is not computed")
        return operand

    def maybe_tensor(self, name: str) -> Value | None:
        """The operand if it is a tensor."""
        operand = self.get(name)
        return operand if isinstance(operand, Value) and operand.is_tensor else None

    def tensor_list(self, name: str) -> list[Value]:
        """The operand, which must be a list of tensors, or one."""
        operand = self.get(name)
        items = operand if isinstance(operand, list | tuple) else [operand]
        tensors = [item for item in items if isinstance(item, Value) and item.is_tensor]
        if len(tensors) < len(items):
            raise self.refusal(name, "is no list of tensors")
        return tensors

    def number(self, name: str, default: float | None = None) -> float:
        """The operand, which must be a literal real number, perhaps alone in a list."""
        operand = self.get(name)
        if isinstance(operand, list | tuple) and len(operand) == 1:
            (operand,) = operand
        operand = default if operand is None else operand
        if not isinstance(operand, int | float):
            raise self.refusal(name, "is not a literal number")
        return int(operand) if isinstance(operand, bool) else operand

    def integer(self, name: str, default: int | None = None) -> int:
        """The operand, which must be a literal integer, perhaps alone in a list."""
        number = self.number(name, default)
        if not isinstance(number, int):
            raise self.refusal(name, "is not a literal integer")
        return number

    def count(self, name: str, default: int | None = None) -> int:
        """The operand, which must be a literal integer above 0."""
        count = self.integer(name, default)
        if count < 1:
            raise self.refusal(name, f"is {count}, which counts nothing")
        return count

    def flag(self, name: str, default: bool = False) -> bool:
        """The operand, which must be literally true or false, or a number that says so."""
        operand = self.get(name)
        if operand is not None and not isinstance(operand, bool | int | float):
            raise self.refusal(name, "is neither true nor false")
        return default if operand is None else bool(operand)

    def text(self, name: str, default: str = "") -> str:
        """The operand, which must be text."""
        operand = self.get(name)
        if operand is not None and not isinstance(operand, str):
            raise self.refusal(name, "is no text")
        return default if operand is None else operand

    def size(self, name: str) -> Size:
        """The operand, which must be an integer, whether literal or computed."""
        operand = self.get(name)
        return operand if isinstance(operand, Value) and not operand.is_tensor else self.integer(name)

    def sizes(self, name: str) -> list[Size]:
        """The operand, which must be a list of integers, whether literal or computed one by one."""
        operand = self.get(name)
        if not isinstance(operand, list | tuple):
            raise self.refusal(name, "is computed as a whole" if isinstance(operand, Value) else "is no list")
        sizes = [item for item in operand if isinstance(item, Value | int)]
        if len(sizes) < len(operand):
            raise self.refusal(name, "is no list of integers")
        return sizes

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """The operand, which must be a list of literal integers, or one."""
        operand = self.get(name)
        if operand is None and default is not None:
            return list(default)
        items = operand if isinstance(operand, list | tuple) else [operand]
        integers = [item for item in items if isinstance(item, int)]
        if len(integers) < len(items):
            raise self.refusal(name, "is no list of literal integers")
        return integers

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """The operand, which must be the index of one of so many axes, counted from the front."""
        return self._axis(name, self.integer(name, default), rank)

    def axis_list(self, name: str, rank: int, default: Sequence[int] | None = None) -> list[int]:
        """The operand, which must be indices of some of so many axes, counted from the front; a number has none."""
        return [self._axis(name, axis, rank) for axis in self.integers(name, default) if rank]

    def _axis(self, name: str, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise self.refusal(name, f"names axis {axis} of {rank}")
        return axis % rank

    def refusal(self, name: str, fault: str) -> Exception:
        """The exception for an operand that is not what it is taken for."""
        return OperandError(self.complaint(name, fault))

    def complaint(self, name: str, fault: str) -> str:
        """The complaint about an operand, in the node's own words."""
        own = self.own_name(name)
        return f"its {own} {fault}" if own in self.node.operands else f"it has no {own}"
