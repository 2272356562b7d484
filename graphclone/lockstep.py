"""Run source and clone side by side, and check the invariant at every value.

``T'[i1, .., ir] = c T[g1(i1), .., gr(ir)]``: in float64 it holds to rounding at every node or something is wrong,
and the first node where it does not is where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from graphclone.frontends.example_inputs import resized
from graphclone.growth import PAD, Layout
from graphclone.interpreter import execute, lifted
from graphclone.ir import Node, Value
from graphclone.kernel import widen
from graphclone.pipeline import State


@dataclass(frozen=True)
class Deviation:
    """A value that breaks the invariant.

    Attributes:
        value: its name.
        op: the op that computed it, by whose rule it should hold.
        scope: the module the op belongs to.
        error: greatest deviation over the greatest magnitude; infinite where shapes differ.
        detail: what was compared.
    """

    value: str
    op: str
    scope: str
    error: float
    detail: str

    def __str__(self) -> str:
        where = f" in {self.scope}" if self.scope else ""
        return f"{self.value} (rule of {self.op}{where}): {self.detail}"


@dataclass(frozen=True)
class Lockstep:
    """The result of a side-by-side run.

    Attributes:
        worst: greatest relative error of any value.
        values: how many values were compared.
        first: the first value, in graph order, that breaks the invariant.
    """

    worst: float
    values: int
    first: Deviation | None


def widened_tensors(state: State, *, lift: bool = False) -> dict[Value, torch.Tensor]:
    """The data of the clone's initializers, from their recipes."""
    assert state.recipes is not None, "widen-initializers has not run"
    return {
        i.value: widen(lifted(i.tensor) if lift else i.tensor.detach(), state.recipes[i.value])
        for i in state.graph.initializers
    }


def through_maps(tensor: torch.Tensor, layouts: Sequence[Layout]) -> torch.Tensor:
    """A source tensor as the clone should have it, but for its scale."""
    for axis, layout in enumerate(layouts):
        if layout.grows:
            index = torch.as_tensor(layout.index_map, device=tensor.device)
            tensor = tensor.index_select(axis, index.clamp(min=0))
            pads = (index == PAD).nonzero().flatten()
            tensor = tensor.index_fill(axis, pads, 0) if len(pads) else tensor
    return tensor


def run_lockstep(
    state: State,
    inputs: Sequence[torch.Tensor],
    *,
    tensors: Mapping[Value, torch.Tensor] | None = None,
    tolerance: float = 1e-10,
) -> Lockstep:
    """Compare every value of source and clone in float64, but for views of weights that share out a sum.

    Args:
        state: after the whole pipeline.
        inputs: of the source, one per graph input; cut or repeated to the sizes that the layouts speak of, and
            replicated where the clone's inputs grew.
        tensors: float64 data of the clone's initializers; made from the recipes if not given.
        tolerance: greatest deviation, relative to the greatest magnitude of the value.
    """
    source, clone = state.source, state.graph
    assert source is not None, "infer-dims has not run"
    tensors = widened_tensors(state, lift=True) if tensors is None else tensors
    inputs = [_fitted(lifted(tensor), value) for tensor, value in zip(inputs, source.inputs, strict=True)]
    wide = [through_maps(t, [state.layout(a) for a in state.known.of[v]]) for t, v in zip(inputs, clone.inputs, strict=True)]
    narrow = {i.value: lifted(i.tensor) for i in source.initializers}
    by_name = {value.name: value for value in state.known.of}
    folded = state.known.folded
    worst, count, first = 0.0, 0, None
    theirs = execute(clone, tensors, wide, lift=True)
    for node, results in execute(source, narrow, inputs, lift=True):
        match, wide_results = next(theirs)
        while match.name != node.name:  # something put in for the clone alone
            match, wide_results = next(theirs)
        for value, a, b in zip(node.outputs, results, wide_results, strict=True):
            if isinstance(a, torch.Tensor) and state.known.source(by_name[value.name]) not in folded:
                deviation = _deviation(state, node, by_name[value.name], a, b)
                worst, count = max(worst, deviation.error), count + 1
                first = first or (deviation if not deviation.error <= tolerance else None)
    return Lockstep(worst, count, first)


def _fitted(tensor: torch.Tensor, value: Value) -> torch.Tensor:
    """An input in the sizes of the trace: a layout knows a dynamic axis by that size only."""
    assert value.shape is not None
    return resized(tensor, {axis: value.shape[axis] for axis in value.dynamic})


def _deviation(state: State, node: Node, value: Value, a: torch.Tensor, b: torch.Tensor) -> Deviation:
    layouts = [state.layout(axis) for axis in state.known.of[value]]
    expected = through_maps(a, layouts)
    if expected.shape != b.shape:
        detail = f"shape {tuple(b.shape)}, expected {tuple(expected.shape)}"
        return Deviation(value.name, node.op, node.scope, float("inf"), detail)
    scale, shift = state.value_scales.get(value, 1.0), state.shifts.get(value, 0.0)
    error = relative_error(expected if (scale, shift) == (1.0, 0.0) else expected * scale + shift, b)
    return Deviation(value.name, node.op, node.scope, error, f"relative error {error:.1e}")


def relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """Greatest deviation over the greatest finite magnitude; 0 where both are equal, infinities and NaNs included."""
    if expected.numel() == 0 or torch.equal(expected, actual):
        return 0.0
    if not expected.is_floating_point() and not expected.is_complex():
        return float("inf")
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    difference = torch.where(same, torch.zeros_like(expected), expected - actual).abs()
    magnitude = expected[expected.isfinite()].abs()
    return float(difference.max() / magnitude.max().clamp(min=1e-300)) if magnitude.numel() else float(difference.max())
