"""Sums of integers: which of them may be taken over an axis that grows.

Repeat an axis n times, and a sum over it is n times as great. Integers cannot be divided; but where all that reads the
sum takes it to floats, number by number, as dynamic quantisation does (``MatMulInteger``, ``Cast``, ``Mul`` by a
scale), it carries n as its scale, which the scales of what follows absorb. Any other sum keeps its axes as they are.
"""

from __future__ import annotations

from fractions import Fraction

from graphclone.algebra.axes import Why
from graphclone.analysis.facts import Balance, Facts
from graphclone.graph.ir import Node, Value, values_in

_WIDE = ("float32", "float64")
"""The floats in which no 32-bit integer overflows."""


def settle_sums(facts: Facts) -> None:
    """Let sums of integers carry a scale that their readers pass on, and pin the axes of the others."""
    readers = _Readers(facts)
    for total in facts.sums:
        if total.out is None:  # divided where it is taken
            continue
        if obstacle := readers.obstacle(total.out):
            for axis in total.axes:
                facts.axes.pin(axis, Why(total.node.name, f"summed over integers that {obstacle}"))


class _Readers:
    """What becomes of integers."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.users = facts.graph.users()
        self.returned = {value for output in facts.graph.outputs for value in values_in(output.operand)}

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
