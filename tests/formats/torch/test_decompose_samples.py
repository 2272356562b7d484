"""Operators of torch's own samples that no rule knows, and that torch defines by others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.export import export

pytestmark = pytest.mark.slow

OPERATORS = """
    special.entr special.ndtr special.log_ndtr mvlgamma.mvlgamma_p_1 aminmax var_mean std_mean
    var_mean.unbiased quantile nanquantile nansum nanmean count_nonzero renorm logaddexp2 ldexp float_power
    take_along_dim nn.functional.pairwise_distance diag_embed msort dist trace cross linalg.cross rot90 fliplr flipud
    narrow_copy slice_scatter select_scatter trapezoid cumulative_trapezoid gradient deg2rad rad2deg isreal
    expand_copy column_stack hstack dstack vstack
"""


class Call(nn.Module):
    """A call of an operator on inputs, the first of which is multiplied by a parameter of its shape."""

    def __init__(self, function: Callable[..., Any], first: Tensor, others: tuple[Any, ...], options: Any) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand_like(first) + 0.5)
        self.function, self.others, self.options = function, others, options

    def forward(self, x: Tensor, *tensors: Tensor) -> Any:
        rest = iter(tensors)
        others = [next(rest) if isinstance(other, Tensor) else other for other in self.others]
        return self.function(x * self.factor, *others, **self.options)


@cache
def infos() -> dict[str, Any]:
    return {".".join(filter(None, (info.name, info.variant_test_name))): info for info in op_db}


def calls(name: str) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """A few calls of an operator on float64, with all tensors that it takes as inputs."""
    info = infos()[name]
    for sample in islice(info.sample_inputs("cpu", torch.float64, requires_grad=False), 12):
        first, tensors = sample.input, tuple(arg for arg in sample.args if isinstance(arg, Tensor))
        if isinstance(first, Tensor) and 1 < first.numel() < 3000 and min(first.shape) > 1:
            yield Call(info.op, first, sample.args, sample.kwargs).eval(), (first, *tensors)


def outcome(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """What verification says of a clone, inputs and outputs grown; or why nothing can grow."""
    try:
        return gc.clone(model, inputs, widen=2, widen_io=("*",)).verify(onnx=False).verdict
    except GraphcloneError as refusal:
        return str(refusal)


@pytest.mark.parametrize("name", sorted(OPERATORS.split()))
@pytest.mark.filterwarnings("ignore")
def test_the_clone_of_a_definition_is_what_the_operator_is(name: str) -> None:
    for model, inputs in islice(calls(name), 3):
        targets = {str(node.target) for node in export(model, inputs, {}, name).program.graph.nodes}
        assert f"aten.{name.rsplit('.', maxsplit=1)[-1]}.default" not in targets
        found = outcome(model, inputs)
        assert found in ("equivalent", "cannot be judged") or found.startswith("nothing to widen")
        assert "no rule" not in found
