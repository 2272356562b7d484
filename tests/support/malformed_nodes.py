"""Nodes as a file that is wrong might have them: seeded changes of their operands, which no rule may break on."""

from __future__ import annotations

import random
from collections.abc import Callable

from graphclone.analysis.facts import Facts
from graphclone.graph.ir import Graph, Node, Operand, Value, items_of
from graphclone.passes.infer_dims import _declare
from graphclone.rules import Rules, apply

NUMBERS = (-9, -1, 0, 1, 2, 3, 7, 1 << 40, 0.5, float("nan"), True)
TEXTS = ("", "unknown", "CRD")

Change = Callable[[Node, random.Random], None]


def reshape_value(node: Node, rng: random.Random) -> None:
    """A tensor with more axes, fewer, or others."""
    tensors = [value for value in (*node.inputs, *node.outputs) if value.shape is not None]
    if tensors:
        value = rng.choice(tensors)
        assert value.shape is not None
        shapes = [(*value.shape, 2), value.shape[1:], value.shape[:-1], value.shape[::-1], (), (0,), (3, 5)]
        shapes.append(tuple(rng.choice([0, 1, 2, size]) for size in value.shape))
        value.shape, value.dynamic = rng.choice(shapes), {}


def change_literal(node: Node, rng: random.Random) -> None:
    """A number or a text that means something else, a longer list or a shorter one."""
    operands = node.operands
    literals = [name for name, operand in operands.items() if not isinstance(operand, Value)]
    if literals:
        name = rng.choice(literals)
        operands[name] = _another(operands[name], rng)


def _another(operand: Operand, rng: random.Random) -> Operand:
    if isinstance(operand, list | tuple):
        items = list(operand)
        literal = [rng.choice(NUMBERS) if rng.random() < 0.4 else item for item in items]
        return rng.choice([[], items[:-1], [*items, *items[:1]], literal, 3, [items]])
    return rng.choice(TEXTS) if isinstance(operand, str) else rng.choice([*NUMBERS, [], [2, 2], "text"])


def drop_operand(node: Node, rng: random.Random) -> None:
    """An operand that is missing, by being left out or by being None."""
    operands = node.operands
    if operands:
        name = rng.choice(list(operands))
        if rng.random() < 0.5:
            del operands[name]
        else:
            operands[name] = None


def exchange_operands(node: Node, rng: random.Random) -> None:
    """Two operands in each other's place, or one in the place of another too."""
    operands = node.operands
    if len(operands) > 1:
        a, b = rng.sample(list(operands), 2)
        operands[a] = operands[b]


def change_results(node: Node, rng: random.Random) -> None:
    """Fewer results, or more."""
    outputs = node.outputs
    if len(outputs) > 1 and rng.random() < 0.7:
        del outputs[rng.randrange(1, len(outputs)) :]
    else:
        outputs.append(Value("more", (2, 3), "float32", producer=node))


def compute_literal(node: Node, rng: random.Random) -> None:
    """A number that is computed, by itself or in a list."""
    operands = node.operands
    literals = [name for name, operand in operands.items() if isinstance(operand, list | tuple | int)]
    if literals:
        number, name = Value("number", None, ""), rng.choice(literals)
        items = list(items_of(operands[name]))
        if items:
            items[rng.randrange(len(items))] = number
        operands[name] = items or number


CHANGES: tuple[Change, ...] = (
    *(reshape_value, reshape_value, change_literal, compute_literal),
    *(drop_operand, exchange_operands, change_results),
)


def apply_malformed(graph: Graph, op: str, rules: Rules, seed: int) -> Facts:
    """What its rule says of the last node of an operator in a graph, changed at random."""
    rng = random.Random(seed)
    graph = graph.copy()
    node = [node for node in graph.nodes if node.op.startswith(op)][-1]
    for _ in range(rng.choice([1, 1, 2])):
        rng.choice(CHANGES)(node, rng)
    facts = Facts(graph)
    for value in (*graph.inputs, *(i.value for i in graph.initializers), *(v for n in graph.nodes for v in n.outputs)):
        _declare(facts, value)
    apply(node, facts, rules)
    return facts
