"""``tensor.data`` in code that torch.export runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def data_detached() -> Iterator[None]:
    """Let ``tensor.data`` of a tensor that stands for others in a trace be ``tensor.detach()``.

    It computes the same, and it is an operator: torch.export does not see that an attribute is read, and takes what
    comes of that for a constant.
    """
    descriptor: Any = torch._C.TensorBase.data

    def read(tensor: torch.Tensor) -> torch.Tensor:
        data: torch.Tensor = tensor.detach() if isinstance(tensor, FakeTensor) else descriptor.__get__(tensor)
        return data

    torch.Tensor.data = property(read, descriptor.__set__, descriptor.__delete__)  # type: ignore[assignment]
    try:
        yield
    finally:
        del torch.Tensor.data
