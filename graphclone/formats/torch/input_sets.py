"""Input sets to compare two models on: the example inputs, and random ones of other sizes.

Only an axis that the trace left dynamic changes its size, and axes whose sizes are equal change together.
Integers are rearranged examples, so that they are valid whatever they mean; floats are drawn anew with the mean
and the spread of the example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import Exported, Inputs, input_leaves
from graphclone.graph.ir import Graph
from graphclone.pipeline.state import State
from graphclone.runtime.drawing import drawn_like
from graphclone.runtime.maps import widened_inputs


@dataclass(frozen=True)
class InputSet:
    """One tensor per graph input.

    Attributes:
        tensors: in the order of the graph's inputs.
        seed: they were drawn with; None for the example inputs themselves.
    """

    tensors: tuple[torch.Tensor, ...]
    seed: int | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(tensor.shape) for tensor in self.tensors)

    def copies(self) -> list[torch.Tensor]:
        """The tensors for a run that may write into them."""
        return [tensor.clone() for tensor in self.tensors]

    def __str__(self) -> str:
        shapes = ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)
        return f"{shapes} ({'example' if self.seed is None else f'seed {self.seed}'})"


def example_tensors(graph: Graph, example: Example) -> tuple[torch.Tensor, ...]:
    """The tensors among the example inputs, in the order of the graph's inputs.

    Raises:
        GraphcloneError: the inputs do not fit the graph.
    """
    exported = graph.origin_as(Exported)
    leaves = input_leaves(exported.program, example.args, example.kwargs)
    violation = next(exported.guards.violations(leaves), None)
    if violation is not None:
        raise GraphcloneError(f"{graph.name}: the example inputs are not those it was traced with: {violation.message}")
    return tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def call_with(graph: Graph, example: Example, tensors: Iterable[torch.Tensor]) -> Inputs:
    """The example inputs with other tensors in place of theirs, positional and by name.

    Args:
        graph: traced with the example inputs.
        example: these inputs.
        tensors: one per graph input.
    """
    new, program = iter(tensors), graph.origin_as(Exported).program
    leaves = input_leaves(program, example.args, example.kwargs)
    leaves = [next(new) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    positional, keywords = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    return tuple(positional), dict(keywords)


def clone_examples(state: State, example: Example) -> Inputs:
    """The example inputs of the clone, positional and by name: replicated where its inputs grew."""
    tensors = widened_inputs(state, example_tensors(state.graph, example))
    return call_with(state.graph, example, tensors)


def varying_lengths(graph: Graph, args: Sequence[Any], kwargs: Mapping[str, Any]) -> set[int]:
    """The sizes of the axes of float inputs that a trace left dynamic, their batch apart.

    Args:
        graph: of the trace.
        args: positional example inputs.
        kwargs: example inputs by name.
    """
    leaves = input_leaves(graph.origin_as(Exported).program, args, kwargs)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    axes = zip(graph.inputs, _dynamic(graph, tensors), strict=True)
    return {size for value, sizes in axes if value.is_float for axis, size in sizes.items() if axis}


def candidates(graph: Graph, examples: Sequence[torch.Tensor], index: int, seed: int) -> Iterator[InputSet]:
    """Input sets of other sizes, boldest first; the last has the sizes of the example.

    Args:
        graph: the source.
        examples: one tensor per graph input.
        index: which set it is, from 1; odd ones get larger, even ones smaller.
        seed: of the values.
    """
    groups = list(dict.fromkeys(size for axes in _dynamic(graph, examples) for size in axes.values()))
    drawn = [_drawn(graph, examples, sizes, seed) for sizes in _shapes(groups, index)]
    padded = [_with_padding(tensors, seed) for tensors in drawn] if index == 1 else []
    hiding = [b for a, b in zip(drawn, padded, strict=False) if any(x is not y for x, y in zip(a, b, strict=True))]
    yield from (InputSet(tensors, seed) for tensors in (*hiding, *drawn))


def _shapes(groups: Sequence[int], index: int) -> Iterator[dict[int, int]]:
    """Other sizes for the dynamic axes of each size, boldest first, at the end the same."""
    known_sizes: set[tuple[int, ...]] = set()
    for least in (1, 2, None):
        sizes = {size: _new_size(size, index, order, least) for order, size in enumerate(groups)}
        if tuple(sizes.values()) not in known_sizes:
            known_sizes.add(tuple(sizes.values()))
            yield sizes


def _with_padding(tensors: Sequence[torch.Tensor], seed: int) -> tuple[torch.Tensor, ...]:
    """The inputs, masks that hide nothing replaced by others: a trace may be wrong of what no example shows.

    A mask is what is no float, and 1 or 0 throughout. Of every row the first and the last element stay as they are.
    """
    generator = torch.Generator().manual_seed(seed)

    def other(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() or tensor.is_complex() or tensor.ndim < 2 or not tensor.numel():
            return tensor
        if not (tensor == tensor.flatten()[0]).all() or tensor.flatten()[0] not in (0, 1):
            return tensor
        hidden = torch.rand(tensor.shape, generator=generator) < 1 / 3
        hidden[..., [0, -1]] = False
        return torch.where(hidden.to(tensor.device), 1 - tensor.to(torch.int64), tensor).to(tensor.dtype)

    return tuple(other(tensor) for tensor in tensors)


def _new_size(size: int, index: int, order: int, least: int | None) -> int:
    """Another size for the dynamic axes of one size; ``order`` keeps different sizes different."""
    if least is None:
        return size
    return size + index + 1 + order if index % 2 else max(least, size - index - order)


def _dynamic(graph: Graph, examples: Sequence[torch.Tensor]) -> list[dict[int, int]]:
    """The size of every dynamic axis of every input. An axis that export found to be fixed has a number for
    a symbol.
    """
    return [
        {axis: tensor.shape[axis] for axis, symbol in value.dynamic.items() if not symbol.isdigit()}
        for value, tensor in zip(graph.inputs, examples, strict=True)
    ]


def _drawn(
    graph: Graph, examples: Sequence[torch.Tensor], sizes: Mapping[int, int], seed: int
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        drawn_like(tensor, {axis: sizes[size] for axis, size in axes.items()}, generator)
        for tensor, axes in zip(examples, _dynamic(graph, examples), strict=True)
    )
