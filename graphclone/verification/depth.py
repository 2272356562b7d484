"""Whether the blocks that were put into a model change nothing: it is run beside what it was, in float64.

Every value of the source is found again where it is now, and every new block gives its stream as it took it, whatever
the weights: once, all are disturbed but those that close a new block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch._C._functorch import is_batchedtensor

from graphclone.graph.deepen import Addition
from graphclone.graph.ir import Initializer, Node
from graphclone.pipeline.state import State
from graphclone.runtime.interpreter import ExecutionError, MemoryShortageError, execute, lifted
from graphclone.runtime.new_tensors import Filled
from graphclone.runtime.pads import Reader
from graphclone.runtime.tensors import Lazy, lifted_tensor
from graphclone.verification.checks import DEPTH, Check
from graphclone.verification.distance import OUTPUT_TOLERANCE, Deviation, relative_error
from graphclone.verification.exact import perturbed


def is_deeper(state: State) -> bool:
    """Whether the clone has blocks that the source does not have."""
    return state.has(State.depth) and bool(state.depth.additions)


def check_depth(state: State, input_sets: Sequence[Sequence[torch.Tensor]]) -> Check | None:
    """Compare the deeper graph, before it was made wider, with the source; None where it is no deeper.

    Args:
        state: after the whole pipeline.
        input_sets: of the source; the first is also run with other weights.
    """
    if not is_deeper(state):
        return None
    runs = [(inputs, lifted_tensor) for inputs in input_sets]
    runs.append((input_sets[0], perturbed))
    worst, values = 0.0, 0
    try:
        for inputs, read in runs:
            comparison = _Comparison(state, read)
            comparison.run([lifted(tensor) for tensor in inputs])
            worst, values = max(worst, comparison.worst), comparison.values
            if comparison.first is not None:
                return Check(DEPTH, False, str(comparison.first), {"worst": worst}, first=comparison.first)
    except ExecutionError as error:
        if isinstance(error, MemoryShortageError) or error.node in state.depth.source.nodes:
            return Check(DEPTH, None, f"not checked: {error}", {"reason": str(error)})
        first = Deviation.at(error.node, error.node.outputs[0].name, float("inf"), error.reason)
        return Check(DEPTH, False, str(first), first=first)
    count = len(state.depth.additions)
    blocks = "1 new block changes" if count == 1 else f"{count} new blocks change"
    summary = f"{blocks} nothing: all {values} values to {worst:.1e}, relative, in float64; {len(runs)} runs"
    return Check(DEPTH, True, summary, {"worst": worst, "values": values, "blocks": count, "runs": len(runs)})


def _kept(step: tuple[Node, list[Any]]) -> tuple[Node, list[Any]]:
    """A node with its results as they are now, whatever is written into them later."""
    return step[0], [result.clone() if isinstance(result, torch.Tensor) else result for result in step[1]]


class _Comparison:
    """One run of both, side by side."""

    def __init__(self, state: State, read: Reader) -> None:
        self.state, self.depth, self.read = state, state.depth, read
        self.worst, self.values = 0.0, 0
        self.first: Deviation | None = None
        self.streams: dict[str, torch.Tensor] = {}

    def weight(self, initializer: Initializer) -> torch.Tensor:
        """Data of the deeper graph: those of the source as the source's are read; what closes a block as it is."""
        if (origin := self.depth.origins.get(initializer.name)) is not None:
            return self.read(origin)
        return lifted_tensor(initializer) if isinstance(initializer.tensor, Filled) else self.read(initializer)

    def run(self, inputs: Sequence[torch.Tensor]) -> None:
        """Run both; the source leads, and the deeper graph follows it, node for node and past those of new blocks."""
        source, deep = self.depth.source, self.state.source
        self.streams = dict(zip((value.name for value in deep.inputs), inputs, strict=True))
        names = {self.depth.nodes.get(node.name, node.name): node.name for node in source.nodes}
        theirs = self.watched(execute(deep, Lazy(deep, self.weight), [tensor.clone() for tensor in inputs], lift=True))
        early: dict[str, list[tuple[Node, list[Any]]]] = {}  # what comes later in the source, as blocks share it
        for node, results in execute(source, Lazy(source, self.read), [t.clone() for t in inputs], lift=True):
            while not early.get(node.name) and (step := next(theirs, None)) is not None:
                if (name := names.get(step[0].name)) is not None:
                    early.setdefault(name, []).append(step if name == node.name else _kept(step))
            match, found = early[node.name].pop(0) if early.get(node.name) else (node, [])
            self.compare_node(match, results, found)
        for _ in theirs:  # what comes behind the last node of the source
            pass

    def watched(self, theirs: Iterator[tuple[Node, list[Any]]]) -> Iterator[tuple[Node, list[Any]]]:
        """The nodes of the deeper graph, the stream being looked at where it comes out of a new block."""
        entries = {addition.entry for addition in self.depth.additions}
        exits = {addition.exit: addition for addition in self.depth.additions}
        for node, results in theirs:
            for value, result in zip(node.outputs, results, strict=True):
                if value.name in entries:
                    self.streams[value.name] = result
                if value.name in exits:
                    self.compare_stream(node, exits[value.name], result)
            yield node, results

    def compare_stream(self, node: Node, addition: Addition, result: torch.Tensor) -> None:
        error = relative_error(self.streams[addition.entry], result)
        detail = f"the new block {addition.name} changes the stream: relative error {error:.1e}"
        self.note(Deviation.at(node, addition.exit, error, detail))

    def compare_node(self, node: Node, expected: Sequence[Any], found: Sequence[Any]) -> None:
        if len(found) < len(expected):
            self.note(Deviation.at(node, node.name, float("inf"), "the deeper model does not compute it"))
        for value, old, new in zip(node.outputs, expected, found, strict=False):
            if isinstance(old, torch.Tensor) and not is_batchedtensor(old):
                error = relative_error(old, new) if old.shape == new.shape else float("inf")
                self.note(Deviation.at(node, value.name, error, f"not as in the source: relative error {error:.1e}"))

    def note(self, deviation: Deviation) -> None:
        self.values += 1
        self.worst = max(self.worst, deviation.error)
        if self.first is None and not deviation.error <= OUTPUT_TOLERANCE:
            self.first = deviation
