"""What inference learns about a graph: the axes of every value, and everything the rules stated about nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from graphclone.axes import Axes, Axis, Why
from graphclone.ir import Graph, Initializer, Node, Path, Value


@dataclass(frozen=True, eq=False)
class Literal:
    """A number written into a node that carries a scale of its own, such as the factor of an attention."""

    node: Node
    path: Path
    value: float


@dataclass(frozen=True)
class Follow:
    """A size in a node that equals the widened size of some axes, added up.

    A literal is replaced; a computed size is multiplied by the growth of its one axis.

    Attributes:
        axes: what the literal counts.
        sign: -1 where the literal counts from the end.
    """

    node: Node
    path: Path
    axes: tuple[Axis, ...]
    sign: int = 1


@dataclass(frozen=True, eq=False)
class Contraction:
    """A sum over axes that two operands share, in a linear layer, a convolution or a product of activations.

    Attributes:
        operands: the values that could absorb the multiplicity, each with the indices of its contracted axes.
        axes: the contracted axes.
    """

    node: Node
    operands: tuple[tuple[Value, tuple[int, ...]], ...]
    axes: tuple[Axis, ...]


Scaled = Value | Literal


@dataclass(frozen=True)
class Balance:
    """An equation between scales, in logarithms: of a result (``out``), or a requirement that a sum is zero.

    ``log c_out = sum of coefficient * log c + sum of coefficient * log n``, n the multiplicity of an axis.

    Attributes:
        terms: coefficient of the scale of every value or literal.
        logs: coefficient of the logarithm of the multiplicity of every axis.
        unbiased: coefficient of log (n S - 1) / ((S - 1) n), what an unbiased variance over S grows by.
        contraction: where the result is a contraction, whose axes count only if no parameter absorbs them.
        mendable: whether a multiplication may be put into the graph where nothing else balances it: on the first
            operand of a contraction, on the result of anything else.
    """

    node: Node
    out: Value | None
    terms: tuple[tuple[Fraction, Scaled], ...]
    logs: tuple[tuple[Fraction, Axis], ...] = ()
    unbiased: tuple[tuple[Fraction, Axis], ...] = ()
    contraction: Contraction | None = None
    mendable: bool = True


@dataclass(frozen=True)
class Refusal:
    """A node whose rule, or lack of one, pinned axes."""

    node: Node
    why: Why


@dataclass
class Facts:
    """Everything known about a graph after inference.

    Attributes:
        axes: the system of axes.
        of: the axes of every tensor.
        follows: literals that count a widened axis.
        contractions: every contraction.
        balances: scale equations by node.
        views: values that show another value unchanged but for the order of its axes: the value seen, and for
            each axis of the view the axis it shows (None for a new axis of size 1).
        refusals: nodes that pinned what they touch.
        shifts: values that are another value plus a number.
        labels: names that rules suggest for dims (``heads``, ``head_dim``).
    """

    graph: Graph
    axes: Axes = field(default_factory=Axes)
    of: dict[Value, tuple[Axis, ...]] = field(default_factory=dict)
    follows: list[Follow] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    balances: dict[Node, list[Balance]] = field(default_factory=dict)
    views: dict[Value, tuple[Value, tuple[int | None, ...]]] = field(default_factory=dict)
    shifts: dict[Value, tuple[Value, float]] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    labels: list[tuple[Axis, str]] = field(default_factory=list)

    def folded(self) -> dict[Value, tuple[int, ...]]:
        """Parameters that absorb the multiplicity of what they contract, with the axes they contract.

        A parameter does so if every use of it, seen through views, contracts the same of its axes. One that is
        also looked up, added or contracted over another axis is replicated as it is, and its contractions are
        balanced by scales.
        """
        users = self.graph.users()
        folded: dict[Value, tuple[int, ...]] = {}
        by_operand: dict[tuple[Node, Value], list[tuple[int, ...]]] = {}
        for contraction in self.contractions:
            for value, axes in contraction.operands:
                by_operand.setdefault((contraction.node, value), []).append(axes)
        returned = {output.operand for output in self.graph.outputs if isinstance(output.operand, Value)}
        for initializer in self.graph.initializers:
            uses = set(self._uses(initializer, users, by_operand, returned))
            if len(uses) == 1 and (axes := uses.pop()) is not None:
                folded[initializer.value] = axes
        return folded

    def _uses(
        self,
        initializer: Initializer,
        users: Mapping[Value, list[Node]],
        contracted: Mapping[tuple[Node, Value], list[tuple[int, ...]]],
        returned: Iterable[Value],
    ) -> Iterable[tuple[int, ...] | None]:
        """For each use of an initializer, the axes it contracts, in sorted order, or None for any other use."""
        pending = [(initializer.value, tuple(range(initializer.value.rank)))]
        while pending:
            value, origin = pending.pop()
            if value in returned or initializer.kind != "parameter":
                yield None
            for node in users.get(value, ()):
                shown = [out for out in node.outputs if out in self.views and self.views[out][0] is value]
                for out in shown:
                    seen = self.views[out][1]
                    pending.append((out, tuple(-1 if axis is None else origin[axis] for axis in seen)))
                axes = contracted.get((node, value), [])
                for contracted_axes in axes:
                    yield tuple(sorted(origin[axis] for axis in contracted_axes))
                if not shown and len(axes) != sum(operand is value for operand in node.inputs):
                    yield None

    def source(self, value: Value) -> Value:
        """What a value shows, seen through all views."""
        while value in self.views:
            value = self.views[value][0]
        return value
