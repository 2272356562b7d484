"""Branches and loops: their bodies lie in the graph like any nodes, and these say how values pass in and out."""

from __future__ import annotations

from collections.abc import Mapping

from graphclone.graph.ir import Value
from graphclone.rules.site import Rule, Site, paired


def branch(s: Site) -> None:
    """Every result is that of one branch or the other."""
    s.ignores("cond")
    branches = paired(s.tensor_list("then_branch"), s.tensor_list("else_branch"), "results")
    for out, (a, b) in paired(s.node.outputs, branches, "results"):
        _same(s, out, a)
        s.equal_all(s.axes(out), s.axes(b))
        s.require({a: 1, b: -1})


def enter(s: Site) -> None:
    """A round begins with the state that the one before left, and with one slice of what is scanned."""
    s.ignores("count", "cond", "directions")
    states, scanned, axes = s.tensor_list("states"), s.tensor_list("scanned"), s.integers("axes")
    inside = s.node.outputs[len(s.node.outputs) - len(states) - len(scanned) :]
    for counter in s.node.outputs[: len(s.node.outputs) - len(inside)]:
        s.pin(s.axes(counter), "counts the rounds")
    for out, state in zip(inside, states, strict=False):
        _same(s, out, state)
    for out, (whole, axis) in paired(inside[len(states) :], paired(scanned, axes), "results"):
        _sliced(s, whole, out, axis)
        s.scale(out, {whole: 1})


def leave(s: Site) -> None:
    """A loop returns its last state, and what its rounds left side by side."""
    s.ignores("cond", "directions")
    states, stacked, axes = s.tensor_list("states"), s.tensor_list("stacked"), s.integers("axes")
    for out, state, before in zip(s.node.outputs, states, s.tensor_list("before"), strict=False):
        _same(s, out, state)
        s.equal_all(s.axes(before), s.axes(state))
        s.require({before: 1, state: -1})
    for out, (part, axis) in paired(s.node.outputs[len(states) :], paired(stacked, axes), "results"):
        _sliced(s, out, part, axis)
        s.scale(out, {part: 1})


def _same(s: Site, out: Value, value: Value) -> None:
    s.equal_all(s.axes(out), s.axes(value))
    s.scale(out, {value: 1})


def _sliced(s: Site, whole: Value, part: Value, axis: int) -> None:
    """One value is the slices of another along an axis, one for every round."""
    s.states("| a.. !n b.., a.. b..", whole, part, a=axis, why="one position for every round")


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("onnx.If", "hop.cond"), branch),
    **dict.fromkeys(("onnx.Loop.body", "onnx.Scan.body"), enter),
    **dict.fromkeys(("onnx.Loop", "onnx.Scan"), leave),
}
