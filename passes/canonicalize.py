"""One spelling per operation, so that rules need to know only one.

Assertions about metadata go, equal splits become explicit ones, views that depend on strides become reshapes,
default scales of attention become literals, and subgraphs without inputs or parameters become constants. What is
written into in place, by whatever name, is no constant, nor is what the caller is given, who may write into it. A view
of what is written into later keeps its spelling: a reshape may copy, and the write would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

from graphclone.graph.ir import Graph, Initializer, Node, Value, substitute, values_in
from graphclone.pipeline.state import State

_LARGEST_CONSTANT = 1 << 24
"""Elements of the largest constant worth computing ahead."""

_DROPPED = ("aten._assert_tensor_metadata.default",)


@dataclass(frozen=True)
class Canonicalize:
    """Rewrite nodes to their canonical spelling and fold constants."""

    name: ClassVar[str] = "canonicalize"
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset({"canonical"})

    def __call__(self, state: State) -> bool:
        graph = state.graph
        count = len(graph.nodes)
        graph.nodes = [node for node in graph.nodes if node.op not in _DROPPED]
        untied = state.request.untie and _untie(graph)
        written = _last_writes(graph)
        spelled = [
            node
            for i, node in enumerate(graph.nodes)
            if node.op in _SPELLINGS and not (node.op in _COPYING and written.get(node.outputs[0], -1) > i)
        ]
        rewritten = [_SPELLINGS[node.op](graph, node) for node in spelled]
        folded = _fold(graph, _last_writes(graph, by_caller=True))
        pruned = graph.prune()
        return len(graph.nodes) != count or any((*rewritten, untied, folded, pruned))


def _untie(graph: Graph) -> bool:
    """Give every name of a shared parameter its own initializer, for the nodes of the module that has the name."""
    users = graph.users()
    separated: list[Initializer] = []
    for initializer in graph.initializers:
        for name in initializer.names[1:]:
            readers = [node for node in users.get(initializer.value, ()) if node.scope == name.rpartition(".")[0]]
            if readers and len(readers) < len(users[initializer.value]):
                value = replace(initializer.value, name=name)
                separated.append(replace(initializer, value=value, names=(name,)))
                initializer.names = tuple(other for other in initializer.names if other != name)
                for node in readers:
                    node.operands = {k: substitute(v, {initializer.value: value}) for k, v in node.operands.items()}
    graph.initializers += separated
    return bool(separated)


def _split_explicitly(graph: Graph, node: Node) -> bool:
    """chunk and split into equal parts become a split into parts of stated sizes, which may grow unequally."""
    axis = node.operands.get("dim", 0)
    first = node.outputs[0]
    sizes = [output.shape[axis] for output in node.outputs if output.shape is not None]
    if axis % max(first.rank, 1) in first.dynamic:
        return False
    operands = {"self": node.operands["self"], "split_sizes": sizes, "dim": axis}
    graph.dialect.respell(node, "aten.split_with_sizes.default", operands)
    return True


def _reshape(graph: Graph, node: Node) -> bool:
    operands = {"self": node.operands["self"], "shape": node.operands["size"]}
    graph.dialect.respell(node, "aten.reshape.default", operands)
    return True


def _explicit_scale(_: Graph, node: Node) -> bool:
    """The default scale depends on the width, which is about to change."""
    query = node.operands["query"]
    if node.operands.get("scale") is not None or query.rank - 1 in query.dynamic:
        return False
    node.operands["scale"] = float(query.shape[-1]) ** -0.5
    return True


def _explicit_onnx_scale(graph: Graph, node: Node) -> bool:
    """The default scale depends on the width, which is about to change."""
    query = node.operands["Q"]
    if node.operands.get("scale") is not None or query.rank - 1 in query.dynamic:
        return False
    width = query.shape[-1] // (node.operands["q_num_heads"] if query.rank == 3 else 1)
    graph.dialect.respell(node, node.op, {**node.operands, "scale": float(width) ** -0.5})
    return True


def _explicit_contrib_scale(graph: Graph, node: Node) -> bool:
    """The default scale, which may be spelled as 0, depends on the width, which is about to change."""
    operands = node.operands
    width = _query_width(node)
    if operands.get("scale") or width is None:
        return False
    graph.dialect.respell(node, node.op, {**operands, "scale": float(width) ** -0.5})
    return True


def _query_width(node: Node) -> int | None:
    """How wide the heads of an attention are that ONNX Runtime knows; None where that is dynamic."""
    operands, heads = node.operands, node.operands["num_heads"]
    if "weights" in operands:
        sizes = operands.get("qkv_hidden_sizes") or [operands["weights"].shape[1] // 3]
        return int(sizes[0]) // int(heads)
    query = operands["query"]
    if query.rank - 1 in query.dynamic:
        return None
    if query.rank == 5:
        return int(query.shape[-1])
    if operands.get("key") is None:
        heads += 2 * operands["kv_num_heads"]
    return int(query.shape[-1]) // int(heads)


def _split_onnx_explicitly(graph: Graph, node: Node) -> bool:
    """Equal parts become parts of stated sizes, which may grow unequally."""
    x, axis = node.operands["input"], node.operands.get("axis", 0)
    if node.operands.get("split") is not None or axis % max(x.rank, 1) in x.dynamic:
        return False
    sizes = [output.shape[axis] for output in node.outputs if output.shape is not None]
    if sum(sizes) != x.shape[axis]:  # not all parts are wanted
        return False
    operands = {name: operand for name, operand in node.operands.items() if name != "num_outputs"}
    graph.dialect.respell(node, node.op, {**operands, "split": sizes})
    return True


_SPELLINGS: Mapping[str, Callable[[Graph, Node], bool]] = {
    "aten.chunk.default": _split_explicitly,
    "aten.split.Tensor": _split_explicitly,
    "aten.view.default": _reshape,
    "aten.scaled_dot_product_attention.default": _explicit_scale,
    "onnx.Attention": _explicit_onnx_scale,
    "com.microsoft.Attention": _explicit_contrib_scale,
    "com.microsoft.MultiHeadAttention": _explicit_contrib_scale,
    "com.microsoft.GroupQueryAttention": _explicit_contrib_scale,
    "onnx.Split": _split_onnx_explicitly,
}


_COPYING = ("aten.view.default",)
"""What may be spelled in a way that copies."""


def _fold(graph: Graph, written: Collection[Value]) -> bool:
    """Compute what depends on no input and no parameter, such as tables of positions, as constants."""
    constants: dict[Value, Any] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        if _is_constant(graph, node, constants, written):
            constants.update(zip(node.outputs, _computed(graph, node, constants), strict=True))
        else:
            kept.append(node)
    read = {value for node in kept for value in node.inputs} | set(values_in([o.operand for o in graph.outputs]))
    graph.nodes = kept
    for value, data in constants.items():
        if value not in read:
            continue
        if value.is_tensor:
            value.role, value.producer = "initializer", None
            graph.initializers.append(
                Initializer(value, (f"_folded_{value.name.replace('.', '_')}",), "constant", data)
            )
        else:
            graph.replace(value, data)
    return bool(constants)


def _is_constant(graph: Graph, node: Node, constants: Mapping[Value, Any], written: Collection[Value]) -> bool:
    return (
        not graph.dialect.mutates(node)
        and not graph.dialect.is_random(node)
        and all(value in constants for value in node.inputs)
        and not any(value in written for value in node.outputs)
        and not any(output.dynamic or prod(output.shape or ()) > _LARGEST_CONSTANT for output in node.outputs)
    )


def _computed(graph: Graph, node: Node, constants: Mapping[Value, Any]) -> Any:
    operands = {name: substitute(operand, constants) for name, operand in node.operands.items()}
    return graph.dialect.run(node, operands)


def _last_writes(graph: Graph, *, by_caller: bool = False) -> dict[Value, int]:
    """For every value whose memory some node may write into, by whatever name, the place of the last that does.

    The caller may write into what is returned to it, after all nodes.
    """
    dialect, last = graph.dialect, dict[Value, int]()
    if by_caller:
        last.update((value, len(graph.nodes)) for output in graph.outputs for value in values_in(output.operand))

    def note(values: Iterable[Value], known: Iterable[Value]) -> None:
        places = [last[value] for value in known if value in last]
        last.update((value, max([*places, last.get(value, -1)])) for value in values if places)

    for place, node in reversed(list(enumerate(graph.nodes))):
        for value in dialect.writes(node):
            last.setdefault(value, place)
        if any(value in last for value in node.outputs):
            note(dialect.aliases(node), node.outputs)
    for node in graph.nodes:  # what shares memory with them, too
        if any(value in last for value in node.inputs):
            note(node.outputs, dialect.aliases(node))
    return last
