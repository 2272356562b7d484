"""Clone a model into another instance of its own code: the widths are read off the wide one, and so are its constants.

Nothing is known about the code but that it is the same: both are traced, the traces are laid side by side, and every
weight of the narrow model is widened into the wide one's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from graphclone.errors import GraphcloneError
from graphclone.formats.torch.reader import trace_alike
from graphclone.graph.ir import Graph
from graphclone.passes.balance_scales import BalanceScales, Unbalanced
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.infer_dims import InferDims
from graphclone.passes.match_widths import MatchWidths
from graphclone.passes.rewrite_literals import RewriteLiterals
from graphclone.passes.widen_initializers import WidenInitializers
from graphclone.pipeline.conditions import CLONED
from graphclone.pipeline.runner import Pass, Timing, run
from graphclone.pipeline.state import Request, State
from graphclone.runtime.kernel import widen


def match(state: State, target: Graph, after: Callable[[Pass, State], None] | None = None) -> Sequence[Timing]:
    """Run the pipeline that grows a source into a target, given the target's trace.

    Raises:
        Unbalanced: the target's code multiplies by what no weight of its can absorb.
        GraphcloneError: the target is not the source at other widths.
    """
    wide = State(target, Request(untie=state.request.untie))
    run((Canonicalize(),), wide)
    match_widths = MatchWidths(wide.graph)
    passes = (Canonicalize(), InferDims(), match_widths, BalanceScales(), WidenInitializers(), RewriteLiterals())
    try:
        return run(passes, state, goal=CLONED, after=after)
    except Unbalanced as error:
        tied = next((i.names for i in state.graph.initializers if i.kind == "parameter" and len(i.names) > 1), ())
        hint = f"; a wide model in which {' and '.join(tied)} are not tied can be cloned into" if tied else ""
        raise Unbalanced(f"{error}{hint}") from None


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


def check_into(small: torch.nn.Module, big: object, request: Request) -> None:
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
    if request.untie:
        raise GraphcloneError("untie and into do not go together: the wide model says what is tied")


@torch.no_grad()
def load(state: State, big: torch.nn.Module) -> None:
    """Widen every weight straight into the wide model's own; one on the meta device holds nothing and gets nothing."""
    theirs = _tensors(big)
    for initializer in state.graph.initializers:
        if initializer.kind != "constant" and not (out := theirs[initializer.name].detach()).is_meta:
            widen(initializer.read().detach().to(out.device), state.recipes[initializer.value], out)


def weightless(module: torch.nn.Module, mode: FakeTensorMode | None = None) -> torch.nn.Module:
    """A copy of a module on the meta device that can be traced with inputs on the CPU: its weights are fake there.

    Args:
        module: to be copied.
        mode: of its fake weights.
    """
    made = copy.deepcopy(module)
    _fill_tables(made)
    swap: dict[int, torch.Tensor] = {}
    with mode or FakeTensorMode():
        for owner in made.modules():
            for held in (owner._parameters, owner._buffers):
                for name, tensor in held.items():
                    if tensor is not None and tensor.is_meta:
                        held[name] = swap.setdefault(id(tensor), _fake(tensor))  # type: ignore[assignment]
    return made


def _fill_tables(module: Any) -> None:
    """Let a module of transformers fill the buffers that are not saved, as it does when it is loaded.

    They are part of what it computes (rotary frequencies, say), and on the meta device they hold nothing.
    """
    named = getattr(module, "named_non_persistent_buffers", None)
    empty = [(name, table) for name, table in named() if table.is_meta] if named else []
    if not empty:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        tensor._is_hf_initialized = True  # so that nothing but the tables is filled
    for name, table in empty:
        owner, _, leaf = name.rpartition(".")
        module.get_submodule(owner)._buffers[leaf] = torch.empty(table.shape, dtype=table.dtype, device="cpu")
    module.initialize_weights()


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    return torch.nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else made


def _on_meta(module: torch.nn.Module) -> bool:
    return any(tensor.is_meta for tensor in _tensors(module).values())


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by every name they have."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }
