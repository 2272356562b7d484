"""Run the user's own module, as nobody's trace: on the example inputs, or on others of their kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import _pytree as pytree

from graphclone.errors import GraphcloneError, first_line
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.export import Inputs
from graphclone.formats.torch.input_sets import call_with
from graphclone.formats.torch.untouched import untouched
from graphclone.graph.ir import Graph, Value, evaluated

SEED = 0
"""The seed of the global generator before every run, so that a model that draws numbers draws the same ones."""


class RunError(GraphcloneError):
    """The user's module cannot be run, or returns something else than its trace."""


def run_module(
    module: torch.nn.Module,
    graph: Graph,
    example: Example,
    tensors: Sequence[torch.Tensor],
    state: Mapping[str, torch.Tensor] | None = None,
    *,
    before: Sequence[Sequence[torch.Tensor]] = (),
    fast: bool = False,
) -> list[torch.Tensor]:
    """The tensors that a module returns, in the order of its graph's outputs.

    Args:
        module: is left as it is, whatever it writes to.
        graph: of its trace, or of a trace of another instance of the same code.
        example: the inputs of the trace.
        tensors: take the place of the tensors among them, one per graph input.
        state: parameters and buffers in place of the module's own.
        before: the tensors of earlier calls, whose results do not count.
        fast: whether it may take the fast path of ``torch.nn.TransformerEncoder``, as it does without gradients.

    Raises:
        RunError: the module raises, or returns other things than its trace.
    """
    call: Callable[..., Any] = module
    if state is not None:
        call = lambda *args, **kwargs: torch.func.functional_call(module, dict(state), args, kwargs)  # noqa: E731
    with untouched(module), torch.no_grad(), nullcontext() if fast else _plain_attention():
        try:
            for given in (*before, tensors):
                leaves = _called(call, call_with(graph, example, copied(given)))
        except Exception as error:  # whatever the module raises
            raise RunError(f"{graph.name} cannot be run: {type(error).__name__}: {first_line(error)}") from error
    return list(_returned(graph, leaves))


def agree(module: torch.nn.Module, *calls: Inputs) -> bool:
    """Whether a module returns the same for several inputs, but for rounding; it is left as it is.

    Args:
        module: of the user.
        calls: what it is called with, positional and by name.
    """
    returned = []
    try:
        for inputs in calls:
            with untouched(module), torch.no_grad(), _plain_attention():
                leaves, spec = pytree.tree_flatten(inputs)
                returned.append(_called(module, pytree.tree_unflatten(copied(leaves), spec)))
    except Exception:  # whatever the module raises
        return False
    first, *others = returned
    return all(len(first) == len(other) and all(map(alike, first, other)) for other in others)


def _called(function: Callable[..., Any], inputs: Inputs) -> list[Any]:
    """The results of a call, one by one, as they are then: with the same random numbers every time."""
    positional, keywords = inputs
    torch.manual_seed(SEED)
    return [_held(leaf) for leaf in pytree.tree_leaves(function(*positional, **keywords))]


def copied(leaves: Sequence[Any]) -> list[Any]:
    """Inputs that a run may write into: what is one tensor stays one."""
    copies: dict[int, torch.Tensor] = {}
    return [copies.setdefault(id(a), a.clone()) if isinstance(a, torch.Tensor) else a for a in leaves]


def alike(a: Any, b: Any) -> bool:
    """Whether two results are the same, but for rounding: tensors of one shape and dtype, or equal objects."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point() or not a.numel():
        return torch.equal(a, b)
    rounding = float(a.nan_to_num(0.0, 0.0, 0.0).abs().amax()) * torch.finfo(a.dtype).eps ** 0.5
    return torch.allclose(a, b, rtol=0.0, atol=rounding, equal_nan=True)


def _held(leaf: Any) -> Any:
    """A result as it is now: it may be a buffer, which is about to be restored."""
    return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf


def _returned(graph: Graph, leaves: Sequence[Any]) -> Iterator[torch.Tensor]:
    if len(leaves) != len(graph.outputs):
        raise RunError(f"{graph.name} returns {len(leaves)} things, its trace {len(graph.outputs)}")
    for output, leaf in zip(graph.outputs, leaves, strict=True):
        if isinstance(output.operand, Value):
            differs = output.operand.is_tensor != isinstance(leaf, torch.Tensor)
            if differs:
                raise RunError(f"{graph.name}: {output.name} is a {type(leaf).__name__}, but not in its trace")
        elif leaf is not (literal := evaluated(output.operand, {})) and leaf != literal:
            raise RunError(f"{graph.name}: {output.name} is {leaf!r}, in its trace {literal!r}")
        if isinstance(leaf, torch.Tensor):
            yield leaf


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fast path of ``torch.nn.TransformerEncoder``, which leaves out what is padding; no trace takes it."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
