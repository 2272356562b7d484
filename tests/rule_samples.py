"""Calls of ops to test rules on: torch's own samples."""
from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tests.rule_property import Sample

LARGEST = 4000

def target_of(op: str) -> torch._ops.OpOverload:
    namespace, name, overload = op.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)

@cache
def _infos() -> Mapping[str, list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
    infos: dict[str, list[Any]] = {}
    for info in op_db:
        names = {info.name, info.aten_name, *(alias.name for alias in info.aliases)}
        for name in {name.rpartition(".")[2] for name in names}:
            infos.setdefault(name, []).append(info)
    return infos

def opinfo_samples(op: str) -> Iterator[Sample]:
    target = target_of(op)
    name = op.split(".")[1]
    infos = _infos().get(name) or _infos().get(name.removesuffix("_")) or _infos().get(name.removeprefix("_")) or []
    for info in infos:
        dtypes = [dtype for dtype in (torch.float64, torch.int64, torch.bool) if dtype in info.dtypes]
        for dtype in dtypes[:1]:
            for call in islice(info.sample_inputs("cpu", dtype, requires_grad=False), 40):
                operands = bound(target, (call.input, *call.args), call.kwargs)
                if operands is not None and usable(target, operands):
                    yield Sample(target, operands)

def bound(target, args, kwargs):
    if len(args)==2 and isinstance(args[0], (list,tuple)) : pass
    arguments = target._schema.arguments
    if len(args) > len(arguments):
        return None
    operands = dict(zip([a.name for a in arguments], args, strict=False)) | kwargs
    by_name = {a.name: a for a in arguments}
    if any(name not in by_name for name in operands):
        return None
    return {name: normal(by_name[name], operands[name]) for name in by_name if name in operands}

def normal(argument, operand):
    if isinstance(operand, (list, tuple)):
        return [o for o in operand]
    if "[]" in str(argument.type) and isinstance(operand, int) and not isinstance(operand, bool):
        return [operand]
    return operand

def tensors_in(op):
    if isinstance(op, Tensor): return [op]
    if isinstance(op, (list,tuple)): return [t for o in op for t in tensors_in(o)]
    return []

def usable(target, operands):
    tensors = tensors_in(list(operands.values()))
    if any(t.layout is not torch.strided or t.numel()>LARGEST for t in tensors): return False
    try:
        from tests.rule_property import graph_of
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph_of(Sample(target, operands))
    except Exception as e:
        return False
    return True
