"""Loops, whose bodies lie in the graph between a node that begins every round and one that ends the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import torch

from graphclone.graph.ir import Node
from graphclone.graph.operands import Reader

_LOOPS = ("onnx.Loop", "onnx.Scan")


def spans(nodes: Sequence[Node]) -> dict[int, int]:
    """For every node that begins the rounds of a loop the place of the one that ends it, by the node's place."""
    ends: dict[int, int] = {}
    open_loops: list[int] = []
    for place, node in enumerate(nodes):
        if node.op in _LOOPS:
            ends[open_loops.pop()] = place
        elif node.op.removesuffix(".body") in _LOOPS:
            open_loops.append(place)
    return ends


class Rounds:
    """The rounds of one run of a loop."""

    def __init__(self, first: Node, last: Node, operands: Mapping[str, Any]) -> None:
        """Stand before the first round.

        Args:
            first: begins every round.
            last: ends the loop. What is put side by side is so along its ``axes``, from the end where its
                ``directions`` are 1.
            operands: of the first node, tensors in place of values: ``states`` to begin with; what is ``scanned``,
                along which ``axes``, and in which ``directions``; ``count``, how many rounds there are at most, and
                ``cond``, whether there is one at all, where these are given.

        Raises:
            ValueError: tensors of different lengths are scanned.
        """
        self.states = list(operands["states"])
        self.scanned = list(zip(operands["scanned"], operands["axes"], operands["directions"], strict=True))
        self.counters = first.outputs[: len(first.outputs) - len(self.states) - len(self.scanned)]
        axes, directions = (Reader(last).integers(name) for name in ("axes", "directions"))
        self.stacked: list[list[torch.Tensor]] = [[] for _ in axes]
        self.places = list(zip(axes, directions, strict=True))
        self.goes_on = _holds(operands)
        self.numbers = iter(self._numbers(operands.get("count")))

    def _numbers(self, most: torch.Tensor | None) -> Iterable[int]:
        lengths = {whole.shape[axis] for whole, axis, _ in self.scanned}
        if len(lengths) > 1:
            raise ValueError(f"tensors of different lengths are scanned: {sorted(lengths)}")
        if lengths:
            return range(lengths.pop())
        return count() if most is None else range(int(most))

    def begin(self) -> list[Any] | None:
        """The state that the next round begins with; None after the last.

        These are its number and that there is one, where the loop counts, then its states and slices.
        """
        number = next(self.numbers, None) if self.goes_on else None
        if number is None:
            return None
        counted = zip((number, True), self.counters, strict=False)
        counters = [torch.tensor(item).reshape(value.shape or ()) for item, value in counted]
        slices = [
            whole.select(axis, whole.shape[axis] - 1 - number if backwards else number)
            for whole, axis, backwards in self.scanned
        ]
        return [*counters, *self.states, *slices]

    def end(self, operands: Mapping[str, Any]) -> None:
        """Take what a round leaves.

        Args:
            operands: of the last node: ``states``, what is to be ``stacked``, and ``cond``, whether there is another
                round, where that is computed.
        """
        self.states = list(operands["states"])
        for parts, part in zip(self.stacked, operands["stacked"], strict=True):
            parts.append(part)
        self.goes_on = _holds(operands)

    def results(self) -> list[Any]:
        """The results of the loop: the last states, and what its rounds left, side by side.

        Raises:
            ValueError: there was no round, so that nothing says what shapes it leaves.
        """
        if not all(self.stacked):
            raise ValueError("there is no round, and nothing says what shapes one would leave")
        stacks = zip(self.stacked, self.places, strict=True)
        joined = (torch.stack(parts[::-1] if backwards else parts, axis) for parts, (axis, backwards) in stacks)
        return [*self.states, *joined]


def _holds(operands: Mapping[str, Any]) -> bool:
    """Whether there is another round, by the condition of a loop that has one."""
    return operands.get("cond") is None or bool(operands["cond"])
