"""The property of a rule: replicate the operands of one op through their maps, run it, compare the results.

Everything a rule states is used, and nothing else: axes are refined at random and grow by random maps, scales are
drawn from the solutions of the rule's equations, literals are rewritten as it says. If the results are then not the
source's results, replicated and scaled as stated, the rule is wrong.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphclone.algebra.axes import Axes, Axis, Why
from graphclone.algebra.growth import PAD, Fill, Growth
from graphclone.algebra.strategies import STRATEGIES
from graphclone.analysis.facts import Balance, Facts, Literal
from graphclone.analysis.fills import Inference
from graphclone.analysis.places import Place, Unfillable
from graphclone.analysis.settling import grown as grown_to
from graphclone.analysis.settling import settle
from graphclone.formats.torch.dialect import TorchDialect, op_name
from graphclone.formats.torch.reader import literal
from graphclone.graph.ir import Graph, Initializer, Node, Operand, Output, Value, evaluated
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.rewrite_literals import RewriteLiterals
from graphclone.passes.widen_initializers import WidenInitializers
from graphclone.pipeline.state import Request, Scales, State, Widths
from graphclone.rules import default_rules, find
from graphclone.rules.site import Rule, Site
from graphclone.runtime.kernel import widen
from graphclone.runtime.maps import Maps, filled

TOLERANCES = {torch.float64: 1e-12, torch.complex128: 1e-12, torch.float32: 1e-6, torch.complex64: 1e-6}
"""Of the greatest error, relative to the greatest element."""

UNINITIALISED = ("aten.empty", "aten.new_empty")
RESPELLED = (
    "aten.scaled_dot_product_attention.default",
    "aten.linalg_norm.default",
    *(f"aten.{op}.{overload}" for op in ("var", "std") for overload in ("default", "dim")),
    *(f"aten.fft_{kind}fft{axes}.default" for kind in ("", "i", "r", "ir") for axes in ("", "2", "n")),
)
"""Ops whose rules count on what ``canonicalize`` makes of them."""

_REFUSALS = (RuntimeError, IndexError, ValueError)
"""What torch raises where operands do not fit each other."""

torch.set_num_threads(1)


class Disproved(AssertionError):
    """Shown to be wrong: what a rule states, or what an operator was to give. Other errors are those of the trial."""


_DIALECT = TorchDialect()
_REFINED = Why("", "refined by the test")


@dataclass(frozen=True)
class Sample:
    """One call of an op.

    Attributes:
        operands: tensors and literals by the names of the op's schema.
    """

    target: torch._ops.OpOverload
    operands: Mapping[str, Any]

    @property
    def op(self) -> str:
        return op_name(self.target)

    def __str__(self) -> str:
        return f"{self.op}({', '.join(f'{name}={_short(operand)}' for name, operand in self.operands.items())})"


@dataclass(frozen=True)
class Trial:
    """How a sample is grown.

    Attributes:
        kind: whether dims are tiled or interleaved.
        factors: what the factor of every free dim is drawn from.
        before: whether the axes of the operands are products and concats before the rule sees them.
        after: whether axes are refined once the rule has spoken.
        scaled: whether scales are drawn from all solutions, or the one nearest to no scaling at all.
        padded: whether dims grow to any size, with pads where something averages over them; results hold a fill there
            wherever a fill of the operands is said to make them.
        parameters: which of the inputs are parameters, by position.
        strategy: how their copies share a weight.
    """

    kind: Any = "tile"
    factors: Sequence[int] = (1, 2, 3)
    before: bool = False
    after: bool = False
    scaled: bool = False
    padded: bool = False
    parameters: Sequence[int] = ()
    strategy: str = "symmetric"
    seed: int = 0


def _short(operand: Any) -> str:
    if isinstance(operand, Tensor):
        return f"{str(operand.dtype).removeprefix('torch.')}{list(operand.shape)}"
    if isinstance(operand, list):
        return f"[{', '.join(map(_short, operand))}]"
    return repr(operand)


PLAIN_TRIALS = (
    Trial(),
    Trial(factors=(2,)),
    Trial(kind="interleave", scaled=True, seed=1),
    Trial(before=True, scaled=True, seed=2),
    Trial(kind="interleave", before=True, after=True, seed=3),
    Trial(after=True, scaled=True, seed=4),
)


# Graphs of one node


def target_of(op: str) -> torch._ops.OpOverload:
    """The op of a qualified name."""
    namespace, name, overload = op.split(".")
    target: torch._ops.OpOverload = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return target


def graph_of(sample: Sample) -> tuple[Graph, dict[Value, Tensor], Sequence[Any]]:
    """A graph that calls the op on its own inputs, their data, and the results."""
    data: dict[int, tuple[Value, Tensor]] = {}

    def lifted(operand: Any) -> Operand:
        if isinstance(operand, list | tuple):
            return [lifted(item) for item in operand]
        if not isinstance(operand, Tensor):
            return literal(operand)
        return data.setdefault(id(operand), (_value(f"x{len(data)}", operand, "input"), operand))[0]

    operands = {name: lifted(operand) for name, operand in sample.operands.items()}
    node = Node("op", sample.op, operands, [], sample.target)
    tensors = dict(data.values())
    results = run(node, {value: tensor.clone() for value, tensor in tensors.items()})
    node.outputs = [_value(f"y{i}", result, "node") for i, result in enumerate(results)]
    for output in node.outputs:
        output.producer = node
    outputs = [Output(output.name, output) for output in node.outputs]
    return Graph("sample", list(tensors), [], [node], outputs, _DIALECT), tensors, results


def _value(name: str, data: Any, role: Any) -> Value:
    if not isinstance(data, Tensor):
        return Value(name, None, "", role=role)
    return Value(name, tuple(data.shape), str(data.dtype).removeprefix("torch."), role=role)


def run(node: Node, tensors: Mapping[Value, Tensor]) -> Sequence[Any]:
    """The results of a node, and in ``tensors`` what it wrote into its operands."""
    torch.default_generator.manual_seed(0)
    operands = {name: evaluated(operand, tensors) for name, operand in node.operands.items()}
    return _DIALECT.run(node, operands)


def make_parameters(graph: Graph, tensors: Mapping[Value, Tensor], chosen: Sequence[Value]) -> None:
    """Make inputs of a graph its parameters."""
    for value in chosen:
        graph.inputs.remove(value)
        value.role = "initializer"
        graph.initializers.append(Initializer(value, (value.name,), "parameter", tensors[value]))


# Growth


@dataclass
class Grown:
    """A sample, inferred and grown."""

    state: State
    source: dict[Value, Any]
    tensors: dict[Value, Tensor]
    logs: dict[Value | Literal, float] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        return self.state.facts

    @property
    def grows(self) -> bool:
        return bool(self.state.growths)

    def replicated(self, value: Value, data: Tensor) -> Tensor:
        """The data of a value, replicated through its maps and scaled; anything at all at free pads."""
        if self.state.widths.fills or any(growth.pads for growth in self.state.growths.values()):
            data = self._filled(value, data)
        else:
            for i, axis in enumerate(self.facts.of[value]):
                data = data.index_select(i, torch.from_numpy(self.state.layout(axis).index_map))
        log = self.logs.get(value, 0.0)
        return data * math.exp(log) if log else data.clone()

    def _filled(self, value: Value, data: Tensor) -> Tensor:
        wide = Maps(self.state).widened(value, data)
        if not value.is_float:
            return wide
        marks = Maps(self.state).compared(value, data, torch.arange(wide.numel()).reshape(wide.shape)).flatten()
        free = torch.ones(wide.numel(), dtype=torch.bool).index_fill(0, marks, False).reshape(wide.shape)
        free &= ~self._demanded(value, data)
        return torch.where(free, torch.rand(wide.shape, dtype=torch.float64).to(wide.dtype) + 0.5, wide)

    def _demanded(self, value: Value, data: Tensor) -> Tensor:
        """Where a pad of one dim holds a fill, whatever other dims have there."""
        layouts = self.state.facts.of[value]
        held = torch.zeros([self.state.layout(axis).new_size for axis in layouts], dtype=torch.bool)
        for at in range(data.ndim):
            layout = filled(self.state, value, at)
            held.index_fill_(at, torch.from_numpy(np.flatnonzero(layout.index_map == PAD)), True)
        return held

    def compared(self, value: Value, wide: Tensor) -> Tensor:
        """What of a result is not free to be anything."""
        return Maps(self.state).compared(value, self.source[value], wide)


def grow(sample: Sample, trial: Trial, rules: Mapping[str, Rule] | None = None) -> Grown:
    """Infer the axes of a sample, choose growths and scales, and rewrite its graph."""
    rng = random.Random(trial.seed)
    rules = default_rules() if rules is None else rules
    graph, tensors, results = graph_of(sample)
    source = {**tensors, **dict(zip(graph.nodes[0].outputs, results, strict=True))}
    make_parameters(graph, tensors, [graph.inputs[position] for position in trial.parameters])
    request = Request(widen_io=("*",), strategy=STRATEGIES[trial.strategy])
    state = inferred(State(graph, request, rules), lambda rule: _refining(rule, trial, rng))
    leaves = free_leaves(state.facts)
    if trial.padded:
        state.widths = _padded(state.facts, {leaf: rng.randrange(leaf.size, 3 * leaf.size) for leaf in leaves}, rng)
    else:
        wanted = {leaf: Growth(leaf.size, rng.choice(trial.factors), trial.kind) for leaf in leaves}
        state.widths = Widths(settle(state.facts, wanted)[0])
    grown = Grown(state, source, tensors)
    grown.logs = log_scales(state, random.Random(trial.seed) if trial.scaled else None)
    state.scales = Scales({item: math.exp(log) for item, log in grown.logs.items() if _rewritten(item)})
    WidenInitializers()(state)
    RewriteLiterals()(state)
    return grown


class _AnyInputs(Inference):
    """Fills of a graph whose inputs hold whatever is demanded of them."""

    def implied(self, place: Place, fill: Fill) -> list[tuple[Place, Fill]]:
        return [] if place.value.role == "input" and place.value.is_float else super().implied(place, fill)


def _padded(facts: Facts, sizes: Mapping[Axis, int], rng: random.Random) -> Widths:
    """Growths to any sizes, and the fills of a run in which each result holds one where it can."""
    wanted = {dim: _perhaps_padded(growth, rng) for dim, growth in grown_to(facts, sizes).items()}
    growths = settle(facts, wanted)[0]
    fills = _AnyInputs(facts)
    for dim in [dim for dim, growth in growths.items() if growth.pads]:
        try:
            fills.fill(dim)
        except Unfillable:
            del growths[dim]
            continue
        for result in facts.graph.nodes[0].outputs:
            wanted = rng.sample([Fill.ZERO, Fill.MEAN, Fill.MEAN.weighted(_vector(dim, rng))], 3)
            any(fills.tried(place, fill) for place in fills.places(result, dim) for fill in wanted)
    held = settle(facts, growths)[0]
    return Widths(held, fills={place: fill for place, fill in fills.fills.items() if place.dim in held})


def _vector(dim: Axis, rng: random.Random) -> Initializer:
    """A weight for every index of a dim."""
    data = torch.tensor([rng.uniform(-2, 2) for _ in range(dim.size)], dtype=torch.float64)
    return Initializer(_value("weights", data, "initializer"), ("weights",), "parameter", data)


def _perhaps_padded(growth: Growth, rng: random.Random) -> Growth:
    """The growth, or one with pads in place of more copies, as if another node averaged over the dim."""
    return replace(growth, extra=0, pads=growth.extra) if growth.extra and rng.random() < 0.5 else growth


def _rewritten(item: Value | Literal) -> bool:
    return item.role == "initializer" if isinstance(item, Value) else bool(item.value)


def inferred(state: State, around: Callable[[Rule], Rule] = lambda rule: rule) -> State:
    """The state after inference, with something around the rule of its one node."""
    node = state.graph.nodes[0]
    if node.op in RESPELLED:
        Canonicalize()(state)
    rule, _ = find(state.rules, node.op)
    state.rules = {name: around(known) if known is rule else known for name, known in state.rules.items()}
    InferDims()(state)
    return state


def infer(sample: Sample, rules: Mapping[str, Rule] | None = None) -> Facts:
    """What is known about a sample all of whose axes may grow."""
    rules = default_rules() if rules is None else rules
    return inferred(State(graph_of(sample)[0], Request(widen_io=("*",)), rules)).facts


def contracted_values(sample: Sample, rules: Mapping[str, Rule] | None = None) -> list[int]:
    """The inputs that a contraction of the sample could take as parameters, by position."""
    facts = infer(sample, rules)
    operands = {value for contraction in facts.contractions for value, _ in contraction.operands}
    return [i for i, value in enumerate(facts.graph.inputs) if value in operands and value.dtype == "float64"]


def free_leaves(facts: Facts) -> list[Axis]:
    """Every dim of every tensor that may grow."""
    leaves = (leaf for axes in facts.of.values() for axis in axes for leaf in facts.axes.leaves(axis))
    return list(dict.fromkeys(leaf for leaf in leaves if leaf.pin is None and leaf.size > 1))


def _refining(rule: Rule, trial: Trial, rng: random.Random) -> Rule:
    """A rule with axes refined at random around it."""

    def refined(site: Site) -> None:
        if trial.before:
            _refine(site.system, (site.axes(value) for value in site.tensors), rng)
        rule(site)
        if trial.after:
            outputs = [value for value in site.node.outputs if value.is_tensor]
            _refine(site.system, (site.axes(value) for value in (*outputs, *site.tensors)), rng)

    return refined


def _refine(axes: Axes, tensors: Iterator[tuple[Axis, ...]], rng: random.Random) -> None:
    """Make some axes products and some concats."""
    for axis in [axis for tensor in tensors for axis in tensor if axis.size > 1]:
        factor = rng.choice([n for n in range(1, axis.size) if axis.size % n == 0])
        cut = rng.randrange(1, axis.size)
        draw = rng.random()
        if draw < 0.4 and factor > 1:
            axes.unify(axis, axes.product([axes.dim(factor), axes.dim(axis.size // factor)]), _REFINED)
        elif draw < 0.7:
            axes.unify(axis, axes.concat([axes.dim(cut), axes.dim(axis.size - cut)]), _REFINED)


# Scales


def log_scales(state: State, rng: random.Random | None) -> dict[Value | Literal, float]:
    """A solution of all scale equations, in logarithms: the least one, or any one."""
    rows = [({}, 0.0), *(row for node in state.graph.nodes for row in _equations(state, node))]
    operands = (value for node in state.graph.nodes for value in node.inputs if value.is_float)
    unknowns = list(dict.fromkeys([*operands, *(item for terms, _ in rows for item in terms)]))
    if not unknowns:
        expect(not any(constant for _, constant in rows), "no scales satisfy the rule's equations")
        return {}
    matrix = np.array([[terms.get(item, 0.0) for item in unknowns] for terms, _ in rows])
    constants = np.array([constant for _, constant in rows])
    solution = np.linalg.lstsq(matrix, constants, rcond=None)[0]
    expect(np.allclose(matrix @ solution, constants, atol=1e-9), "no scales satisfy the rule's equations")
    if rng is not None:
        _, values, space = np.linalg.svd(matrix)
        free = space[np.count_nonzero(values > 1e-9) :]
        solution = solution + sum(rng.uniform(-2, 2) * direction for direction in free)
    return {item: float(log) for item, log in zip(unknowns, solution, strict=True) if abs(log) > 1e-9}


def _equations(state: State, node: Node) -> Iterator[tuple[dict[Value | Literal, float], float]]:
    """Every equation of a node as the coefficients of its unknowns and their sum."""
    balances = state.facts.balances.get(node)
    stated = {balance.out for balance in balances or ()}
    for value in (*node.outputs, *(node.inputs if balances is None else ())):
        if value.is_float and value not in stated:
            yield {value: 1.0}, 0.0
    for balance in balances or ():
        terms: dict[Value | Literal, float] = {}
        for coefficient, item in [*balance.terms, *([(-1, balance.out)] if balance.out else [])]:
            if isinstance(item, Literal) or item.is_float:
                terms[item] = terms.get(item, 0.0) + float(coefficient)
        yield terms, -_copies(state, balance)


def _copies(state: State, balance: Balance) -> float:
    """The logarithm of the copies that an equation counts."""
    total = sum(float(coefficient) * _multiplicity(state, axis) for coefficient, axis in balance.logs)
    for coefficient, axis in balance.unbiased:
        layout = state.layout(axis)
        old, new = layout.size, layout.new_size
        total += float(coefficient) * math.log((new - 1) * old / ((old - 1) * new))
    for coefficient, axis, averaged in balance.averages:
        for part in state.facts.axes.factors(axis):
            layout, leaves = state.layout(part), state.facts.axes.leaves(part)
            fills = state.widths.fills.items()
            held = {fill for place, fill in fills if place.value is averaged and place.dim in leaves}
            if layout.padded and Fill.MEAN not in held:
                total += float(coefficient) * (_multiplicity(state, part) + math.log(layout.size / layout.new_size))
    if balance.contraction is not None and not state.facts.absorbed(balance.contraction):
        total += sum(_multiplicity(state, axis) for axis in balance.contraction.axes)
    return total


def _multiplicity(state: State, axis: Axis) -> float:
    copies = state.layout(axis).even
    if copies is None:
        raise Disproved("the rule counts the copies of an axis that is not repeated evenly")
    return math.log(copies)


# The property


def expect(holds: bool, otherwise: str) -> None:
    """Fails, as a rule that is disproved, where something does not hold."""
    if not holds:
        raise Disproved(otherwise)


def check(sample: Sample, trial: Trial, rules: Mapping[str, Rule] | None = None) -> Grown:
    """The property. Raises Disproved if what the rule states is not what the op does."""
    try:
        grown = grow(sample, trial, rules)
        _compare_results(grown)
    except Exception as error:
        error.add_note(f"{sample}\n{trial}")
        raise
    return grown


def _compare_results(grown: Grown) -> None:
    node = grown.state.graph.nodes[0]
    tensors = {value: _operand(grown, value, data) for value, data in grown.tensors.items()}
    try:
        results = run(node, tensors)
    except _REFUSALS as error:
        raise Disproved(f"the op does not take its operands as they grew: {error}") from error
    expect(len(results) == len(node.outputs), f"{len(results)} results, not {len(node.outputs)}")
    for output, result in zip(node.outputs, results, strict=True):
        if not isinstance(result, Tensor):
            expect(result == grown.source[output], f"{output} is {result}, not {grown.source[output]}")
            continue
        shape = tuple(result.shape)
        expect(shape == output.shape, f"{output} is {shape}, not {output.shape}")
        if not node.op.startswith(UNINITIALISED):
            wide = grown.replicated(output, grown.source[output])
            compare(grown.compared(output, result), grown.compared(output, wide), str(output))
    for value in _written(node):
        compare(tensors[value], grown.replicated(value, grown.source[node.outputs[0]]), f"{value}, written into,")


def _operand(grown: Grown, value: Value, data: Tensor) -> Tensor:
    if value.role == "initializer":
        return widen(data, grown.state.recipes[value])
    return grown.replicated(value, data)


def _written(node: Node) -> list[Value]:
    """The operand that an in-place op wrote its result into."""
    first = next(iter(node.target._schema.arguments), None)
    is_written = first is not None and first.alias_info is not None and first.alias_info.is_write
    return [node.operands[first.name]] if is_written else []


def compare(found: Tensor, expected: Tensor, what: str) -> None:
    """Equal up to rounding of the greatest element."""
    expect(found.dtype == expected.dtype, f"{what} is {found.dtype}, not {expected.dtype}")
    expect(found.shape == expected.shape, f"{what} is {tuple(found.shape)}, not {tuple(expected.shape)}")
    if not found.is_floating_point() and not found.is_complex():
        expect(torch.equal(found, expected), f"{what} differs")
        return
    tolerance = TOLERANCES[found.dtype]
    found, expected = found.to(torch.complex128), expected.to(torch.complex128)
    finite = expected.isfinite()
    odd = found[~finite].nan_to_num(nan=0.0), expected[~finite].nan_to_num(nan=0.0)
    expect(torch.equal(*odd), f"{what} differs in what is not finite")
    greatest = float(expected[finite].abs().max()) if finite.any() else 0.0
    error = float((found - expected)[finite].abs().max()) if finite.any() else 0.0
    expect(error <= tolerance * greatest, f"{what} differs by {error:.1e}; its greatest element is {greatest:.1e}")
