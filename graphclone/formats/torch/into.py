"""Clone a model into another instance of its own code: widths and depth are read off the wide one, and its constants.

Nothing is known about the code but that it is the same: both are traced, the traces are laid side by side, and every
weight of the narrow model is widened into the wide one's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from graphclone.errors import GraphcloneError, some
from graphclone.formats.torch.export import Exported
from graphclone.formats.torch.reader import trace_alike
from graphclone.formats.torch.weightless import weightless
from graphclone.graph.ir import Graph
from graphclone.passes.matching import match
from graphclone.pipeline.runner import Pass, Timing
from graphclone.pipeline.state import Request, State
from graphclone.runtime.kernel import widen


def cloned(
    small: torch.nn.Module,
    big: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    name: str,
    request: Request,
    after: Callable[[Pass, State], None] | None = None,
) -> tuple[State, Sequence[Timing]]:
    """The narrow module widened to the widths of the wide one, whose weights are overwritten unless it has none.

    Raises:
        GraphcloneError: a module cannot be traced, or the wide one is not the narrow one at other widths.
    """
    narrow, wide = traced_alike(small, big, args, kwargs, name)
    state = State(narrow, replace(request, untie=untied(narrow, wide)))
    timings = match(state, wide, after)
    _check_deciding(state, wide, big)
    load_into(state, big)
    return state, timings


def traced_alike(
    small: torch.nn.Module, big: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, name: str
) -> tuple[Graph, Graph]:
    """Both models traced on the same inputs, whose sizes are no width of either.

    Raises:
        GraphcloneError: torch.export refuses one of them.
    """
    wide = weightless(big) if _on_meta(big) else big
    narrow, wider = trace_alike({name: small, f"the wide {name}": wide}, args, kwargs)
    return narrow, wider


def untied(small: Graph, big: Graph) -> bool:
    """Whether the wide model has a tensor of its own for each name of one that the narrow model shares."""
    whole = {names: i for i in big.initializers for names in i.names}
    return any(len({id(whole.get(name)) for name in i.names}) > 1 for i in small.initializers)


def check_wide(small: torch.nn.Module, big: object, request: Request) -> None:
    """Refuse a wide model that can be none.

    Raises:
        GraphcloneError: saying why.
    """
    if not isinstance(big, torch.nn.Module):
        raise GraphcloneError(f"into must be a torch.nn.Module, got {type(big).__name__}")
    if big is small:
        raise GraphcloneError("into is the model itself: give another, wider instance of the same code")
    if big.training != small.training:
        modes = ("train" if small.training else "eval", "train" if big.training else "eval")
        raise GraphcloneError(f"the model is in {modes[0]} mode and into in {modes[1]} mode: put both into eval mode")
    if request.widen is not None or request.sizes:
        raise GraphcloneError("widen, sizes and into do not go together: the wide model says how wide it is")
    if request.depth is not None:
        raise GraphcloneError("depth and into do not go together: the wide model says how deep it is")
    if request.untie:
        raise GraphcloneError("untie and into do not go together: the wide model says what is tied")


@torch.no_grad()
def _check_deciding(state: State, wide: Graph, big: torch.nn.Module) -> None:
    """Refuse a wide model that decides by numbers which it would lose."""
    deciding, theirs = wide.origin_as(Exported).deciding, _tensors(big)
    for initializer in state.graph.initializers:
        recipe = state.recipes[initializer.value]
        for name in set(initializer.names) & set(deciding):
            ours = widen(initializer.read().detach(), recipe)
            if ours.shape == theirs[name].shape and not torch.equal(ours, theirs[name].to(ours.device)):
                raise GraphcloneError(
                    f"into: the code decides by what {name} holds; let both models hold the same there"
                )


@torch.no_grad()
def load_into(state: State, big: torch.nn.Module) -> None:
    """Widen every weight straight into the wide model's own; one on the meta device holds nothing and gets nothing.

    What the trace does not read (a head of train mode) says not how it should grow. The wide model's own stays there,
    and a note tells of it.
    """
    theirs, read = _tensors(big), state.graph.read()
    unread: list[str] = []
    for initializer in state.graph.initializers:
        recipe = state.recipes[initializer.value]
        if initializer.kind == "constant":
            continue
        if initializer.value not in read and recipe.shape != recipe.source_shape:
            unread.append(initializer.name)
        elif not (out := theirs[initializer.name].detach()).is_meta:
            widen(initializer.read().detach().to(out.device), recipe, out)
    if unread:
        state.graph.notes.append(
            f"not reached by the example inputs, and left as the wide module has it: {some(unread)}"
        )


def _on_meta(module: torch.nn.Module) -> bool:
    return any(tensor.is_meta for tensor in _tensors(module).values())


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by every name they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
