"""Operators that no rule knows, written as what torch defines them by.

torch defines many operators by others: some in C++ (the composite ones), some in a table of Python functions
(``torch._decomp``). An operator without a rule is replaced by its definition if every operator of that has a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from graphclone.formats.torch.canonical import SPELLINGS
from graphclone.formats.torch.dialect import op_name
from graphclone.rules import default_rules, find


def decompose(program: ExportedProgram) -> None:
    """Replace the operators that no rule knows, where that helps.

    Args:
        program: as torch.export made it; changed in place.
    """
    for body in program.graph_module.modules():
        if isinstance(body, torch.fx.GraphModule):
            viewed = [_viewed(node) for node in body.graph.nodes]
            replaced = [_replaced(node) for node in list(body.graph.nodes) if _is_unknown(node)]
            if any(viewed) or any(replaced):
                body.recompile()


def _viewed(node: torch.fx.Node) -> bool:
    """Let a node that gives a tensor another shape in place (``unsqueeze_``) make a view of that shape.

    That is the same if nobody reads the tensor later than that, other than as what the node returns.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.inplace_view not in target.tags:
        return False
    source, view = node.args[0], _view(target)
    if view is None or not isinstance(source, torch.fx.Node) or source.op != "call_function":
        return False
    if any(user > node for user in source.users):
        return False
    node.target = view
    return True


@cache
def _view(target: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """The operator that makes a view of the shape that another gives a tensor in place."""
    packet = getattr(torch.ops.aten, target._opname.removesuffix("_"), None)
    overloads = [getattr(packet, name) for name in packet.overloads()] if packet is not None else []
    taken = [str(argument.type) for argument in target._schema.arguments]
    return next((o for o in overloads if o.is_view and [str(a.type) for a in o._schema.arguments] == taken), None)


def _is_unknown(node: torch.fx.Node) -> bool:
    """Whether a node is an operator that no rule knows, and a function of its operands."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or _has_rule(target) or not target._schema.returns:
        return False
    return not target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags


def _replaced(node: torch.fx.Node) -> bool:
    """Replace a node by its definition; False where there is none that rules understand."""
    definition = _steps(node, node.target, _table())  # type: ignore[arg-type]
    if definition is None or not all(_is_understood(inner) for inner in definition.nodes):
        return False
    _insert(definition, node)
    return True


def spell_out(node: torch.fx.Node, function: Callable[..., Any]) -> bool:
    """Replace a node by what a function of its operands computes; False where it cannot be traced."""
    steps = _steps(node, function, {})
    if steps is not None:
        _insert(steps, node)
    return steps is not None


def _insert(definition: torch.fx.Graph, node: torch.fx.Node) -> None:
    operands = [leaf for leaf in pytree.tree_leaves((node.args, node.kwargs)) if isinstance(leaf, torch.fx.Node)]
    copies = dict(zip(definition.find_nodes(op="placeholder"), operands, strict=True))
    graph = node.graph
    with graph.inserting_before(node):
        for inner in (inner for inner in definition.nodes if inner.op == "call_function"):
            copy = copies[inner] = graph.node_copy(inner, copies.__getitem__)
            copy.meta = {"val": inner.meta.get("val"), "nn_module_stack": node.meta.get("nn_module_stack")}
    results = pytree.tree_map_only(torch.fx.Node, copies.__getitem__, definition.output_node().args[0])
    if isinstance(results, torch.fx.Node):
        node.replace_all_uses_with(results)
    else:
        for item in list(node.users):  # what returns several is read item by item
            item.replace_all_uses_with(results[int(item.args[1])])  # type: ignore[arg-type]
            graph.erase_node(item)
    graph.erase_node(node)


def _steps(node: torch.fx.Node, function: Callable[..., Any], table: Mapping[Any, Any]) -> torch.fx.Graph | None:
    """What a function of a node's operands computes, a placeholder for each node among them; None where it fails."""
    leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.fx.Node)]
    examples = [leaves[place].meta.get("val") for place in places]

    def call(*values: Any) -> Any:
        of = dict(zip(places, values, strict=True))
        args, kwargs = pytree.tree_unflatten([of.get(place, leaf) for place, leaf in enumerate(leaves)], spec)
        result = function(*args, **kwargs)
        return tuple(result) if isinstance(result, list | tuple) else result

    mode = next((example.fake_mode for example in examples if isinstance(example, FakeTensor)), None)
    if mode is None:
        return None
    try:
        with mode:
            steps = make_fx(call, decomposition_table=dict(table))(*examples)
            graph: torch.fx.Graph = make_fx(functionalize(steps))(*examples).graph  # what is in place is so no longer
    except Exception:  # whatever a definition raises that looks at data, or at what a trace does not know
        return None
    graph.eliminate_dead_code()
    return graph


def _is_understood(node: torch.fx.Node) -> bool:
    if node.op in ("placeholder", "output"):
        return True
    if node.op != "call_function":
        return False
    return not isinstance(node.target, torch._ops.OpOverload) or _has_rule(node.target)


def _has_rule(target: torch._ops.OpOverload) -> bool:
    """Whether a rule knows an operator, or another spelling of it."""
    return op_name(target) in SPELLINGS or find(_rules(), op_name(target))[0] is not None


_rules = cache(default_rules)


@cache
def _table() -> Mapping[Any, Callable[..., Any]]:
    """Definitions of the operators that no rule knows."""
    operators = {op: function for op, function in decomposition_table.items() if isinstance(op, torch._ops.OpOverload)}
    return {op: function for op, function in {**operators, **_OWN}.items() if not _has_rule(op)}


def _var_mean(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    variance = torch.var(x, dim, correction=1 if correction is None else correction, keepdim=keepdim)
    return variance, torch.mean(x, dim, keepdim)


def _std_mean(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    deviation = torch.std(x, dim, correction=1 if correction is None else correction, keepdim=keepdim)
    return deviation, torch.mean(x, dim, keepdim)


_OWN: Mapping[Any, Callable[..., Any]] = {
    torch.ops.aten.var_mean.correction: _var_mean,
    torch.ops.aten.std_mean.correction: _std_mean,
}
"""Definitions of operators that torch's own table writes with operators below aten."""
