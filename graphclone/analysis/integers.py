"""Sums of integers: which of them may be taken over an axis that grows.

Repeat an axis n times, and a sum over it is n times as great. Integers cannot be divided; but where all that reads the
sum takes it to floats, number by number, as dynamic quantisation does (``MatMulInteger``, ``Cast``, ``Mul`` by a
scale), it carries n as its scale, which the scales of what follows absorb. Any other sum keeps its axes as they are.

Integers that are added to such a sum, as a bias is, must be n times as great as well. That they can be where they are
stored and nothing else reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from graphclone.algebra.axes import Why
from graphclone.analysis.facts import Balance, Facts
from graphclone.graph.ir import Initializer, Node, Value, values_in

_WIDE = ("float32", "float64")
"""The floats in which no 32-bit integer overflows."""


def settle_sums(facts: Facts, greatest: Callable[[Initializer], int | None]) -> None:
    """Let sums of integers carry a scale that their readers pass on, and pin the axes of the others.

    Args:
        facts: of the graph.
        greatest: the greatest magnitude in an initializer; None where its data are not known.
    """
    readers = _Readers(facts)
    for index, total in enumerate(facts.sums):
        obstacle = readers.obstacle(total.out) if total.out is not None else None  # else divided where it is taken
        if obstacle is None and total.added is not None:
            stored = readers.stored_for_one(total.added)
            offset = None if stored is None else greatest(stored)
            if offset is None:
                obstacle = "are added to others that are not stored for them alone"
            else:
                facts.sums[index] = replace(total, offset=offset)
                facts.carriers.add(total.added)
        if obstacle is not None:
            for axis in total.axes:
                facts.axes.pin(axis, Why(total.node.name, f"summed over integers that {obstacle}"))


class _Readers:
    """What becomes of integers."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.users = facts.graph.users()
        self.returned = {value for output in facts.graph.outputs for value in values_in(output.operand)}

    def stored_for_one(self, value: Value) -> Initializer | None:
        """The initializer that a value is, if one node alone reads it."""
        alone = value not in self.returned and len(self.users[value]) == 1
        return self.facts.graph.initializer_of().get(value) if alone else None

    def obstacle(self, total: Value) -> str | None:
        """What does not pass the scale of a sum on; None if the sum, and what shows it, now carries one."""
        carriers, pending = {total}, [total]
        while pending:
            value = pending.pop()
            if value in self.returned:
                return "are returned"
            for node in self.users.get(value, ()):
                if not all(self._passes(node, out, value) for out in node.outputs):
                    return f"{node.name} ({node.op}) reads"
                shown = [out for out in node.outputs if not out.is_float]
                carriers.update(shown)
                pending += shown
        self.facts.carriers |= carriers
        return None

    def _passes(self, node: Node, out: Value, value: Value) -> bool:
        """Whether a result has the numbers of a value, as integers of its kind or as wide floats, and its scale."""
        if self.facts.picked.get(out) != (value,) or out.dtype not in (value.dtype, *_WIDE):
            return False
        return Balance(node, out, ((Fraction(1), value),)) in self.facts.balances.get(node, ())
