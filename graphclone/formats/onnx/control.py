"""The nodes with bodies, If, Loop and Scan: what goes in and comes out, and a branch put in place of its If."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir

from graphclone.graph.names import fresh

CONTROL = ("If", "Loop", "Scan")


def body_graphs(node: onnx_ir.Node) -> Iterator[onnx_ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.type == onnx_ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == onnx_ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The values outside that the bodies of a node read."""
    inside: set[onnx_ir.Value] = set()
    reads: dict[onnx_ir.Value, None] = {}
    for body in _all_bodies(node):
        inside.update(body.inputs)
        inside.update(body.initializers.values())
        reads.update(dict.fromkeys(body.outputs))
        for inner in body:
            inside.update(inner.outputs)
            reads.update(dict.fromkeys(value for value in inner.inputs if value is not None))
    return [value for value in reads if value not in inside]


def _all_bodies(node: onnx_ir.Node) -> Iterator[onnx_ir.Graph]:
    for body in body_graphs(node):
        yield body
        for inner in body:
            yield from _all_bodies(inner)


@dataclass(frozen=True)
class Repeated:
    """The inputs and outputs of the body of a Loop or a Scan.

    Attributes:
        body: the graph.
        states: values before the first round, with the body's inputs and outputs for them and the final results.
        scanned: values of which the body takes one slice a round, with the axis and the body's input.
        stacked: outputs of the body that are put side by side, with the axis and the result.
        directions: whether what is scanned, and what is stacked, is so from the end.
        limits: how many rounds there are at most, and whether there is one at all, where a Loop says so.
        goes_on: the output of a Loop's body that says whether there is another round.
    """

    body: onnx_ir.Graph
    states: list[tuple[onnx_ir.Value, onnx_ir.Value, onnx_ir.Value, onnx_ir.Value]]
    scanned: list[tuple[onnx_ir.Value, int, onnx_ir.Value]]
    stacked: list[tuple[onnx_ir.Value, int, onnx_ir.Value]]
    directions: tuple[Sequence[int], Sequence[int]]
    limits: tuple[onnx_ir.Value | None, onnx_ir.Value | None] = (None, None)
    goes_on: onnx_ir.Value | None = None

    @classmethod
    def of(cls, node: onnx_ir.Node) -> Repeated:
        """Find the inputs and outputs of the body of a Loop or a Scan node."""
        return _loop(node) if node.op_type == "Loop" else _scan(node)


def _loop(node: onnx_ir.Node) -> Repeated:
    body = node.attributes["body"].as_graph()
    before = [value for value in node.inputs[2:] if value is not None]
    count = len(before)
    states = zip(before, body.inputs[2:], body.outputs[1:], node.outputs, strict=False)
    stacked = zip(body.outputs[1 + count :], [0] * len(body.outputs), node.outputs[count:], strict=False)
    stacks = list(stacked)
    most, any_round, *_ = [*node.inputs, None, None]
    return Repeated(body, list(states), [], stacks, ([], [0] * len(stacks)), (most, any_round), body.outputs[0])


def _scan(node: onnx_ir.Node) -> Repeated:
    body = node.attributes["body"].as_graph()
    operands = [value for value in node.inputs if value is not None]
    count = len(operands) - node.attributes["num_scan_inputs"].as_int()
    states = zip(operands[:count], body.inputs, body.outputs, node.outputs, strict=False)
    axes, directions = (_each(node, f"scan_input_{what}", len(operands) - count) for what in ("axes", "directions"))
    scanned = zip(operands[count:], axes, body.inputs[count:], strict=False)
    new = len(body.outputs) - count
    after, outward = (_each(node, f"scan_output_{what}", new) for what in ("axes", "directions"))
    stacked = zip(body.outputs[count:], after, node.outputs[count:], strict=False)
    return Repeated(body, list(states), list(scanned), list(stacked), (directions, outward))


def _each(node: onnx_ir.Node, name: str, count: int) -> Sequence[int]:
    return node.attributes[name].as_ints() if name in node.attributes else [0] * count


def inline_branch(node: onnx_ir.Node, branch: onnx_ir.Graph) -> list[onnx_ir.Node]:
    """Put the nodes of a branch in place of its If, under the names of the If's results.

    Returns:
        The nodes, in order.
    """
    graph = node.graph
    assert isinstance(graph, onnx_ir.Graph)
    names = set(graph.initializers)
    for value in list(branch.initializers.values()):
        branch.initializers.pop(value.name or "")
        value.name = fresh(value.name or "constant", names)
        graph.register_initializer(value)
    nodes = list(branch)
    outputs = list(branch.outputs)
    branch.outputs.clear()
    for inner in nodes:
        branch.remove(inner)
    graph.insert_before(node, nodes)
    added = []
    for old, new in zip(node.outputs, outputs, strict=True):
        added += _take_over(graph, node, old, new, nodes)
    graph.remove(node)
    return [*nodes, *added]


def _take_over(
    graph: onnx_ir.Graph, node: onnx_ir.Node, old: onnx_ir.Value, new: onnx_ir.Value, nodes: Sequence[onnx_ir.Node]
) -> list[onnx_ir.Node]:
    """Let a result of a branch be what a result of its If was; an identity where the branch passes it on."""
    identity: list[onnx_ir.Node] = []
    if new.producer() not in nodes:
        copy = onnx_ir.node("Identity", [new], name=f"{node.name or 'If'}_{old.name}")
        graph.insert_before(node, copy)
        identity, new = [copy], copy.outputs[0]
    name = old.name
    new.type, new.shape = old.type or new.type, old.shape or new.shape
    onnx_ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    old.name = f"{name}_if"
    new.name = name
    return identity
