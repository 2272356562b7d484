"""Inputs whose numbers are sizes: what a trace has to know of them, and what may not be changed beside them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses import fake_tensor
from torch.fx.experimental import proxy_tensor

from graphclone.errors import GraphcloneError, Remedy, one_line

NamedInputs = dict[str, Any]
"""What a model is fed, by the names of its parameters."""

GIVE = Remedy("inputs", "says what to feed it", {"NAME": "array or shape"})
"""What to do where no inputs can be made."""

SIZES = re.compile(r".*(grid|sizes?|shapes?)(_thw|_hws)?")
"""Names of inputs whose numbers are sizes."""

_LIMIT, _KNOWN = "CONSTANT_NUMEL_LIMIT", 1 << 16
"""Elements of a tensor of sizes that a trace may look into."""


def structured(inputs: Mapping[str, Any], tokens: Mapping[str, int]) -> bool:
    """Whether sizes of inputs depend on each other: some are given as numbers, or texts have places for features."""
    ids, places = inputs.get("input_ids"), torch.tensor(list(tokens.values()))
    return bool(sizes(inputs)) or (isinstance(ids, torch.Tensor) and bool(torch.isin(ids, places).any()))


def sizes(inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The inputs whose numbers are sizes; a trace and its widths hold for these numbers only."""
    return {
        name: value
        for name, value in inputs.items()
        if isinstance(value, torch.Tensor) and not value.is_floating_point() and SIZES.fullmatch(name)
    }


def traceable(module: Any, inputs: NamedInputs) -> NamedInputs:
    """Inputs as a trace takes them: places in a text that follow from sizes are counted before it."""
    count = method_of(module, "get_rope_index")
    if not sizes(inputs) or count is None or "position_ids" in inputs:
        return inputs
    names = inspect.signature(count).parameters
    try:
        positions, *_ = count(**{name: value for name, value in inputs.items() if name in names})
    except Exception as error:  # code of the class, which may want another configuration or other inputs
        reason = f"get_rope_index failed: {one_line(error)}"
        raise GraphcloneError(f"{type(module).__name__}: {reason}", GIVE) from error
    return {**inputs, "position_ids": positions}


def method_of(module: Any, name: str) -> Any:
    """A method of a module, or of the first of its parts that has one of the name."""
    return next((method for part in module.modules() if (method := getattr(part, name, None)) is not None), None)


@contextmanager
def sizes_known(inputs: NamedInputs) -> Iterator[Callable[[], NamedInputs]]:
    """Take the sizes out of inputs. What makes them anew, within a run or a trace, as tensors it can look into.

    torch keeps the numbers of small tensors that the code makes from literals, and computes with them while it traces.
    Here small is what a grid of pictures may come to, and what counts up is made from literals as well.
    """
    literals = {name: inputs.pop(name).tolist() for name in sizes(inputs)}
    with counts_known() if literals else nullcontext():
        yield lambda: {name: torch.tensor(numbers) for name, numbers in literals.items()}


@contextmanager
def counts_known() -> Iterator[None]:
    """Let a run or a trace look into tensors that count up, such as places of tokens, and into what comes of them."""
    with ExitStack() as stack:
        for module in (module for module in (fake_tensor, proxy_tensor) if hasattr(module, _LIMIT)):
            stack.enter_context(patch.object(module, _LIMIT, _KNOWN))
        stack.enter_context(patch.object(torch, "arange", partial(_counted, torch.arange)))
        yield


def _counted(arange: Callable[..., torch.Tensor], *bounds: Any, **options: Any) -> torch.Tensor:
    """``torch.arange``, of whole numbers that are known from literals."""
    if all(type(bound) is int for bound in bounds) and {*options} <= {"device"} and len(range(*bounds)) <= _KNOWN:
        return torch.tensor([*range(*bounds)], **options)
    return arange(*bounds, **options)
