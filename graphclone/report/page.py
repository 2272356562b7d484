"""The content of a page as plain data: dataclasses that become JSON as they are.

Nothing here knows HTML; whoever wants another page, or a figure of a paper, reads the same data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_DIM = -1
"""The number of a leaf that is no dim."""


@dataclass(frozen=True)
class Leaf:
    """One indivisible part of an axis.

    Attributes:
        dim: the number of its dim among those of the page; ``NO_DIM`` where it touches no parameter.
        size: in the source.
        new_size: in the clone; that of the source where nothing was cloned.
    """

    dim: int
    size: int
    new_size: int


@dataclass(frozen=True)
class AxisLayout:
    """One axis of a tensor.

    Attributes:
        text: its layout, as ``heads*head_dim=12x2*64``.
        leaves: what it is made of, in order.
    """

    text: str
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model.

    Attributes:
        name: of the value, or of the parameter.
        kind: ``parameter``, ``buffer``, ``constant``, ``input`` or ``value``.
        dtype: such as ``float32``.
        axes: the layout of every axis.
        scale: what the clone's elements are multiplied by, compared with the source's.
        contracted: the axes that a parameter is contracted over, where its clone is shared out.
    """

    name: str
    kind: str
    dtype: str
    axes: tuple[AxisLayout, ...]
    scale: float = 1.0
    contracted: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operation:
    """A node of the graph.

    Attributes:
        name: of the node.
        op: what it runs.
        rule: the pattern that its rule states, or what kind of rule it is; says so where there is none.
        outputs: what it computes.
        reads: the initializers that it is the first to read.
        shares: names of the initializers that it reads and that another has read before.
        place: its position among all rows of the folded tree.
    """

    name: str
    op: str
    rule: str
    outputs: tuple[Tensor, ...]
    reads: tuple[Tensor, ...]
    shares: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class Part:
    """A module of the model, with what it holds.

    Attributes:
        name: the last words of its path.
        path: dotted.
        items: parts and operations, in graph order.
        twins: parts beside it that are the same but for names, where it stands for all of them.
        is_new: whether the source does not have it.
        place: its position among all rows of the folded tree.
        end: the position of its last row.
    """

    name: str
    path: str
    items: tuple[Part | Operation, ...]
    twins: tuple[Part, ...]
    is_new: bool
    place: int
    end: int


@dataclass(frozen=True)
class DimGroup:
    """Dims that differ by the number of their layer only.

    Attributes:
        name: with layer numbers starred.
        short: the last words of it that tell it apart, for where there is little room.
        size: of each in the source.
        new_sizes: of them in the clone, each once; the source's where nothing was cloned.
        count: how many there are.
        default: whether they grow when only a factor is asked for.
        pinned: what keeps them from growing, if anything does.
        path: of the first of them: how the pin reached it, the pin first, in words with the name of a node each.
        freed_by: inputs and outputs that would let it grow, if they grew as well.
        parameters: names of what has the first of them.
        doubled: the parameters of the whole model if this group alone were twice as wide; None where it cannot be.
        matters: whether it can grow, or could if an operator were understood or an input or output grew.
        lane: the column in which its band is drawn, if it matters.
        first: the first row of the band.
        last: the last; before the first where there is no band.
    """

    name: str
    short: str
    size: int
    new_sizes: tuple[int, ...]
    count: int
    default: bool
    pinned: str | None
    path: tuple[str, ...]
    freed_by: tuple[str, ...]
    parameters: tuple[str, ...]
    doubled: int | None
    matters: bool
    lane: int
    first: int
    last: int


@dataclass(frozen=True)
class Cost:
    """The number of parameters at one factor.

    Attributes:
        factor: as a number.
        parameters: by part of the model, in the order of ``Page.parts``; none where the factor is refused.
        refusal: why it is, else empty.
    """

    factor: float
    parameters: tuple[int, ...]
    refusal: str = ""


@dataclass(frozen=True)
class Choice:
    """A group of dims that can be chosen to grow.

    Attributes:
        name: of a group of dims, or empty for all that grow by default.
        costs: of the factors, ascending, the first of which is 1.
    """

    name: str
    costs: tuple[Cost, ...]


@dataclass(frozen=True)
class Heat:
    """One weight before and after, or a corner of it with all copies of what is there.

    Attributes:
        name: of the parameter.
        shape: in the source.
        new_shape: in the clone.
        before: rows of the source; None where a number is not finite.
        after: rows of the clone that repeat those.
        row_edges: rows of ``after`` at which another copy begins.
        column_edges: columns at which one does.
        whole: whether it is all of the weight.
    """

    name: str
    shape: tuple[int, ...]
    new_shape: tuple[int, ...]
    before: tuple[tuple[float | None, ...], ...]
    after: tuple[tuple[float | None, ...], ...]
    row_edges: tuple[int, ...]
    column_edges: tuple[int, ...]
    whole: bool


@dataclass(frozen=True)
class Cloned:
    """The additional content of a page about a clone.

    Attributes:
        command: that makes the clone again.
        strategy: by which weights were shared out.
        seed: of its noise.
        before: parameters of the source, by part.
        after: parameters of the clone, by part.
        heats: weights before and after.
        verification: the report, as ``Report.to_dict`` gives it; None where the clone was not verified.
        tolerance: what the relative error of a value may be in float64.
        config: old and new values of the fields of a configuration that changed.
    """

    command: str
    strategy: str
    seed: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    heats: tuple[Heat, ...]
    verification: Mapping[str, Any] | None
    tolerance: float
    config: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Page:
    """Everything on a page.

    Attributes:
        model: its name.
        version: of graphclone.
        nodes: how many operations the model has.
        parameters: how many numbers its parameters hold.
        dims: the groups, in the order of the parameters.
        lanes: how many columns the bands take.
        tree: the model.
        parts: names of the parts of the model that parameters are counted by.
        choices: what can be chosen to grow, and what it costs; the first is all that grows by default.
        refusals: nodes in the way, each with its op and the reason.
        notes: on how the model was traced.
        clone: what was cloned; None of a model that was only looked at.
    """

    model: str
    version: str
    nodes: int
    parameters: int
    dims: tuple[DimGroup, ...]
    lanes: int
    tree: Part
    parts: tuple[str, ...]
    choices: tuple[Choice, ...]
    refusals: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]
    clone: Cloned | None = None

    def to_dict(self) -> dict[str, Any]:
        """The page in types that JSON has."""
        return dataclasses.asdict(self)
