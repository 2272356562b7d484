"""Calls of aten ops from torch's own samples (``torch.testing``'s OpInfo)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tests.support.rule_property import Sample, graph_of, target_of

LARGEST = 4000
"""Elements of the largest tensor worth replicating."""

_LOOKED_AT, _TAKEN = 40, 8
_DTYPES = (torch.float64, torch.int64, torch.bool, torch.complex128)


def samples(op: str) -> list[Sample]:
    """A few calls of an op, spread over the first forty that torch has for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [sample for info in _infos_of(op) for sample in _calls(info, target_of(op))]
    return found[:: -(-len(found) // _TAKEN)] if found else []


def _infos_of(op: str) -> list[Any]:
    name = op.split(".")[1]
    names = (name, name.rstrip("_"), name.lstrip("_"))
    return next((_infos()[name] for name in names if name in _infos()), [])


@cache
def _infos() -> Mapping[str, list[Any]]:
    """What torch knows of each op, by the last part of all its names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    infos: dict[str, list[Any]] = {}
    for info in op_db:
        names = (info.name, info.aten_name, *(alias.name for alias in info.aliases))
        for name in {name.rpartition(".")[2] for name in names}:
            infos.setdefault(name, []).append(info)
    return infos


def _calls(info: Any, target: torch._ops.OpOverload) -> Iterator[Sample]:
    dtype = next((dtype for dtype in _DTYPES if dtype in info.dtypes), torch.float32)
    for call in islice(info.sample_inputs("cpu", dtype, requires_grad=False), _LOOKED_AT):
        operands = bound(target, (call.input, *call.args), call.kwargs)
        if operands is not None and _runs(target, operands):
            yield Sample(target, operands)


def bound(target: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a call by the names of the op's schema, as a trace has them; None if they do not fit."""
    arguments = target._schema.arguments
    operands = dict(zip((argument.name for argument in arguments), args, strict=False)) | dict(kwargs)
    if len(args) > len(arguments) or not operands.keys() <= {argument.name for argument in arguments}:
        return None
    positional = [argument for argument in arguments if not argument.kwarg_only]
    last = max((i for i, argument in enumerate(positional) if argument.name in operands), default=-1)
    for argument in positional[: last + 1]:
        operands.setdefault(argument.name, argument.default_value)
    return {a.name: _spelled(str(a.type), operands[a.name]) for a in arguments if a.name in operands}


def _spelled(kind: str, operand: Any) -> Any:
    """A number given for a list of numbers is a list of one."""
    if isinstance(operand, list | tuple):
        return list(operand)
    if "List[int]" in kind and isinstance(operand, int) and not isinstance(operand, bool):
        return [operand]
    return operand


def _runs(target: torch._ops.OpOverload, operands: Mapping[str, Any]) -> bool:
    tensors = list(_tensors(list(operands.values())))
    plain = all(tensor.layout is torch.strided and tensor.numel() <= LARGEST for tensor in tensors)
    sized = any(size > 1 for tensor in tensors for size in tensor.shape)
    takes_tensors = all(
        "Tensor" in str(argument.type)
        for argument in target._schema.arguments
        if isinstance(operands.get(argument.name), Tensor)
    )
    if not (plain and takes_tensors and (sized or not tensors)):
        return False
    try:
        graph_of(Sample(target, operands))
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return False
    return True


def _tensors(operand: Any) -> Iterator[Tensor]:
    if isinstance(operand, Tensor):
        yield operand
    elif isinstance(operand, list | tuple):
        for item in operand:
            yield from _tensors(item)
