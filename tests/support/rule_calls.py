"""How calls of ops are made by hand: operands by position, as in torch, and tensors that are drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.support.rule_opinfo import bound
from tests.support.rule_property import Sample, target_of


def call(op: str, *args: Any, **kwargs: Any) -> Sample:
    """A call of an op, the namespace aten where none is given, the overload default where none is given."""
    name = op if op.count(".") == 2 else f"aten.{op}" if "." in op else f"aten.{op}.default"
    operands = bound(target_of(name), args, kwargs)
    assert operands is not None, f"{op} takes no such arguments"
    return Sample(target_of(name), operands)


def floats(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return floats(*shape).abs() + 0.1


def numbers(high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape)


def flags(*shape: int) -> Tensor:
    return torch.rand(shape) > 0.5
