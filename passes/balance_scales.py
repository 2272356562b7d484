"""Solve for the scale of every tensor, and let parameters and literals absorb what does not cancel.

Doubling a width doubles a sum over it. Where the sum is a contraction with a weight of its own the weight takes
the factor. Elsewhere (a tied embedding, the product of queries and keys, a plain sum) the factor is an unknown in
a linear system over logarithms (see ``graphclone.algebra.scales``): norms swallow it, linear operators carry it,
non-linear ones and the outputs need it to be 1. Every parameter and literal has a scale that may be changed; the
cheapest change that solves the system is made, and a multiplication put into the graph where nothing else will do.

A number near the end of what its dtype holds stands for infinity, as in masks, and keeps its value: scaled, it would
overflow, or what it is added to would.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import ClassVar

from graphclone.algebra.axes import Axis, Kind
from graphclone.algebra.growth import Fill
from graphclone.algebra.scales import Expression, Infeasible, System, add, exp, log
from graphclone.analysis.facts import Balance, Facts, Literal, Scaled
from graphclone.errors import GraphcloneError
from graphclone.graph.ir import Graph, Initializer, Node, Value, values_in
from graphclone.pipeline.state import Mend, Scales, State

_ONE: Expression = {}
_HEADROOM = 16
"""How many times a number must fit into its dtype not to stand for infinity."""

_COSTS = {"scale": 1, "eps": 7, "epsilon": 7}
"""What changing a literal costs, by operand; other literals cost 4."""


class Unbalanced(GraphcloneError):
    """A factor that nothing can absorb."""


@dataclass(frozen=True)
class Shift:
    """The scale of ``w + b``, w a parameter read only here: ``w' = s w + (s - 1) b``."""

    value: Value


@dataclass(frozen=True)
class BalanceScales:
    """Find the scale of every tensor and number."""

    name: ClassVar[str] = "balance-scales"
    requires: ClassVar[frozenset[str]] = frozenset({"dims", "widths"})
    ensures: ClassVar[frozenset[str]] = frozenset({"scales"})

    def __call__(self, state: State) -> bool:
        scales = state.scales = _solved(state).scales()
        return bool(scales.mends) or any(scale != 1.0 for scale in scales.factors.values())


def _solved(state: State) -> _Solver:
    """The scales, found anew with those numbers left alone that turn out to be too large for theirs."""
    fixed: set[Hashable] = set()
    while True:
        solver = _Solver(state, fixed)
        solver.solve()
        too_large = {key for key in solver.unknowns if _is_too_large(solver, key)}
        if not too_large:
            return solver
        fixed |= too_large


def _is_too_large(solver: _Solver, key: Hashable) -> bool:
    """Whether a number to be scaled, or one in a tensor, stands for infinity, or would overflow."""
    if not isinstance(key, Value | Literal) or (scale := solver.factor(key)) == 1.0:
        return False
    if isinstance(key, Value) and not key.is_float:  # sums of integers were made to fit
        return False
    if isinstance(key, Literal):
        dtype = next((value.dtype for value in (*key.node.outputs, *key.node.inputs) if value.is_float), "")
        greatest = abs(key.value) if isfinite(key.value) else 0.0
    else:
        dtype, greatest = key.dtype, _greatest(solver.initializers[key])
    return bool(dtype) and greatest * max(scale, _HEADROOM) > _limit(dtype)


def _limit(dtype: str) -> float:
    import torch

    return torch.finfo(getattr(torch, dtype)).max


def _greatest(initializer: Initializer) -> float:
    """The greatest finite magnitude in a tensor; 0 where there are no data to look at."""
    import torch

    from graphclone.runtime.tensors import data_of

    tensor = data_of(initializer)
    if tensor is None or not tensor.numel():
        return 0.0
    return float(torch.nan_to_num(tensor.abs(), nan=0.0, posinf=0.0).max())


def _at_result(balance: Balance, out: Value) -> Mend:
    """A multiplication of a result; of the operand where n copies add up in float16, which ends at 65,504."""
    (coefficient, operand), *others = balance.terms or [(0, None)]
    if out.dtype == "float16" and coefficient == 1 and isinstance(operand, Value) and not others:
        return Mend(operand, balance.node, on_operand=True)
    return Mend(out, balance.node, on_operand=False)


class _Solver:
    def __init__(self, state: State, fixed: Collection[Hashable] = ()) -> None:
        self.state = state
        self.fixed = fixed
        self.facts: Facts = state.facts
        self.given = state.widths.given
        self.graph: Graph = state.graph
        self.initializers: dict[Value, Initializer] = self.graph.initializer_of()
        self.shiftable = set(self._shiftable())
        self.expressions: dict[Value, Expression] = {}
        self.unknowns: dict[Hashable, None] = {}
        self.system = System(self.cost)
        self.multiplicities: dict[Axis, Expression] = {}

    # Unknowns

    def cost(self, unknown: Hashable) -> tuple[int, ...]:
        """Norm weights and biases are cheapest to change, then contracted weights, literals, embeddings."""
        if isinstance(unknown, Literal):
            return (_COSTS.get(str(unknown.path[0]), 4) if unknown.value else 0,)
        if isinstance(unknown, Mend):
            return (6,)
        if isinstance(unknown, Shift):
            return (2,)
        assert isinstance(unknown, Value)
        initializer = self.initializers[unknown]
        if initializer.kind != "parameter":
            return (8,)
        return (2 if unknown.rank < 2 else 3 if unknown in self.facts.folded else 5,)

    def unknown(self, key: Hashable) -> Expression:
        if key in self.fixed:
            return {}
        if self.given is not None and isinstance(key, Value | Literal) and self.is_code(key):
            return dict(self.given.get(key, {}))
        self.unknowns.setdefault(key)
        return {key: Fraction(1)}

    def is_code(self, key: Value | Literal) -> bool:
        """Whether it is the code that holds a number, and no weight. A literal zero is the same at any scale."""
        return key.value != 0 if isinstance(key, Literal) else self.initializers[key].kind == "constant"

    def _shiftable(self) -> list[Value]:
        """Results ``w + b`` of parameters that nothing else reads, the caller included."""
        users = self.graph.users()
        returned = {value for output in self.graph.outputs for value in values_in(output.operand)}
        shiftable = []
        for out in self.facts.shifts:
            chain = self._chain(self.facts.shifts[out][0])
            alone = all(len(users.get(value, ())) == 1 for value in chain) and returned.isdisjoint(chain)
            if chain[-1] in self.initializers and self.initializers[chain[-1]].kind == "parameter" and alone:
                shiftable.append(out)
        return shiftable

    def _chain(self, value: Value) -> list[Value]:
        chain = [value]
        while chain[-1] in self.facts.views:
            chain.append(self.facts.views[chain[-1]][0])
        return chain

    # Equations

    def expression(self, item: Scaled) -> Expression:
        if isinstance(item, Literal):
            return self.unknown(item)
        if not self.facts.is_scaled(item):
            return _ONE
        if item not in self.expressions:
            own = item in self.initializers and self.initializers[item].value is item
            self.expressions[item] = self.unknown(item) if own else {}
        return self.expressions[item]

    def multiplicity(self, axis: Axis) -> Expression:
        axis = self.facts.axes.find(axis)
        if axis not in self.multiplicities:
            copies = self.state.layout(axis).even
            assert copies is not None, f"{axis} is not repeated evenly"
            self.multiplicities[axis] = log(copies)
        return self.multiplicities[axis]

    def constants(self, balance: Balance) -> Expression:
        """The logarithms of the copies an equation counts."""
        total: Expression = {}
        for coefficient, axis in balance.logs:
            add(total, self.multiplicity(axis), coefficient)
        for coefficient, axis in balance.unbiased:
            layout = self.state.layout(axis)
            old, new = layout.size, layout.new_size
            add(total, log(Fraction((new - 1) * old, (old - 1) * new)), coefficient)
        for coefficient, axis, averaged in balance.averages:
            add(total, self.thinned(axis, averaged), coefficient)
        if balance.contraction is not None and not self.facts.absorbed(balance.contraction):
            for axis in balance.contraction.axes:
                add(total, self.multiplicity(axis), 1)
        return total

    def thinned(self, axis: Axis, averaged: Value | None) -> Expression:
        """The factor that pads of 0 bring to an average over an axis, each factor of it by itself."""
        axis = self.facts.axes.find(axis)
        total: Expression = {}
        if axis.kind is Kind.PRODUCT:
            for part in axis.parts:
                add(total, self.thinned(part, averaged), 1)
            return total
        layout = self.state.layout(axis)
        if layout.padded and not self._holds_mean(averaged, axis):
            add(total, self.multiplicity(axis), 1)
            add(total, log(Fraction(layout.size, layout.new_size)), 1)
        return total

    def _holds_mean(self, averaged: Value | None, axis: Axis) -> bool:
        """Whether the pads of an axis that is averaged over hold the mean, and so count."""
        leaves = self.facts.axes.leaves(axis)
        fills = (
            fill for place, fill in self.state.widths.fills.items() if place.value is averaged and place.dim in leaves
        )
        return averaged is not None and Fill.MEAN in fills

    def solve(self) -> None:
        for node in self.graph.nodes:
            try:
                self.node(node)
            except Infeasible as problem:
                raise Unbalanced(
                    f"{node.name} ({node.op}) would be {problem} times too large and nothing can absorb it"
                    + ("; ask for other dims by name" if self.given is None else "")
                ) from None
        for output in sorted(self.graph.outputs, key=lambda output: output.free):
            for value in values_in(output.operand):
                try:
                    self.system.zero(self.expression(value))
                except Infeasible as problem:
                    if output.free and any(self.state.layout(axis).grows for axis in self.facts.of.get(value, ())):
                        continue  # nobody relies on its numbers, either
                    raise Unbalanced(
                        f"{output.name} would be {problem} times too large and nothing can absorb it"
                    ) from None

    def node(self, node: Node) -> None:
        balances = self.facts.balances.get(node)
        if balances is None:
            for value in node.inputs:
                self.system.zero(self.expression(value))
            return
        for balance in balances:
            self.balance(balance)

    def balance(self, balance: Balance) -> None:
        total = self.constants(balance)
        mend = self._mend(balance) if total else None
        for coefficient, item in balance.terms:
            add(total, self.expression(item), coefficient)
        if mend is not None:
            add(total, self.unknown(mend))
        if balance.out is None or not self.facts.is_scaled(balance.out):
            self.system.zero(total)
        elif balance.out in self.shiftable:
            self.system.zero(total)
            self.expressions[balance.out] = self.unknown(Shift(balance.out))
        elif balance.out in self.expressions:  # a rule that states a result twice states an equality
            add(total, self.expressions[balance.out], -1)
            self.system.zero(total)
        else:
            self.expressions[balance.out] = self.system.reduce(total)

    def _mend(self, balance: Balance) -> Mend | None:
        if not balance.mendable or self.given is not None:
            return None
        if balance.out is not None and not balance.out.is_float:  # integers are not multiplied by fractions
            return None
        if balance.contraction is None:
            return None if balance.out is None else _at_result(balance, balance.out)
        factor = next(item for _, item in balance.terms if isinstance(item, Value))
        return Mend(factor, balance.node, on_operand=True)

    # Results

    def factor(self, key: Hashable) -> float:
        return exp(self.system.value(key))

    def scales(self) -> Scales:
        """Everything that is rescaled, and how."""
        scales = Scales(self.factors(), values=self.value_scales(), mends=self.mends())
        for shift in (key for key in self.unknowns if isinstance(key, Shift)):
            self.absorb_shift(shift, scales)
        for mend, factor in scales.mends.items():
            if not mend.on_operand:  # the value itself is as it was before it is multiplied
                scales.values[mend.value] = scales.values.get(mend.value, 1.0) / factor
        return scales

    def factors(self) -> dict[Value | Literal, float]:
        """The factor of every parameter and literal; a literal zero is the same at any scale."""
        changed = (key for key in self.unknowns if isinstance(key, Value) or (isinstance(key, Literal) and key.value))
        given = {key: exp(expression) for key, expression in (self.given or {}).items()}
        return {**given, **{key: self.factor(key) for key in changed}}

    def value_scales(self) -> dict[Value, float]:
        """The scale of every value that is not the source's own."""
        scales = {value: exp(self.system.constant(e)) for value, e in self.expressions.items() if e}
        return {value: scale for value, scale in scales.items() if scale != 1.0}

    def mends(self) -> dict[Mend, float]:
        """The multiplications that do anything."""
        factors = {key: self.factor(key) for key in self.unknowns if isinstance(key, Mend)}
        return {mend: factor for mend, factor in factors.items() if factor != 1.0}

    def absorb_shift(self, shift: Shift, scales: Scales) -> None:
        """Scale ``w + b`` by way of w, so that b, which the code may hold, stays."""
        source, number = self.facts.shifts[shift.value]
        scale = self.factor(shift)
        if scale != 1.0:
            *views, parameter = self._chain(source)
            scales.factors[parameter] = scale
            for value in (*views, parameter):
                scales.values[value] = scale
                scales.shifts[value] = (scale - 1) * number
