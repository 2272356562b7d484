"""Reductions and transforms that torch.export spells in several ways have one spelling for rules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphclone.formats.torch.reader import trace_module
from graphclone.passes.canonicalize import Canonicalize
from graphclone.pipeline.state import Request, State
from tests.support.rule_calls import call, floats
from tests.support.rule_property import Sample, graph_of, run

X = floats(4, 6, 5)

SPELLED: list[tuple[Sample, str, dict[str, Any]]] = [
    (call("var", X), "var.correction", {"dim": None, "correction": 1, "keepdim": False}),
    (call("var.dim", X, [1], False, True), "var.correction", {"dim": [1], "correction": 0, "keepdim": True}),
    (call("std.dim", X, [1]), "std.correction", {"dim": [1], "correction": 1, "keepdim": False}),
    (call("linalg_norm", X), "linalg_vector_norm.default", {"ord": 2}),
    (call("linalg_norm", X, 3, [1], True), "linalg_vector_norm.default", {"ord": 3, "dim": [1], "keepdim": True}),
    (call("linalg_norm", X, None, [1, 2]), "linalg_vector_norm.default", {"ord": 2, "dim": [1, 2]}),
    (call("linalg_norm", X, 1, [1, 2]), "linalg_norm.default", {"ord": 1, "dim": [1, 2]}),
    (call("fft_fft", X), "fft_fft.default", {"dim": -1}),
    (call("fft_rfft", X, 4, 1), "fft_rfft.default", {"n": 4, "dim": 1}),
    (call("fft_fft2", X), "fft_fft2.default", {"dim": [1, 2]}),
    (call("fft_fftn", X), "fft_fftn.default", {"dim": [0, 1, 2]}),
    (call("fft_ifftn", X, [3, 4]), "fft_ifftn.default", {"s": [3, 4], "dim": [1, 2]}),
    (call("fft_fftn", X, None, [0]), "fft_fftn.default", {"dim": [0]}),
]


@pytest.mark.parametrize(("sample", "op", "options"), SPELLED, ids=[f"{s}"[:60] for s, _, _ in SPELLED])
def test_a_reduction_has_one_spelling_and_the_same_result(sample: Sample, op: str, options: dict[str, Any]) -> None:
    graph, tensors, (expected,) = graph_of(sample)
    Canonicalize()(State(graph, Request()))
    (node,) = graph.nodes
    assert node.op == f"aten.{op}"
    given = {name: operand for name, operand in node.operands.items() if name != "self"}
    assert {name: given.get(name) for name in options} == options
    assert not {name for name, operand in given.items() if operand is not None} - options.keys()
    (result,) = run(node, tensors)
    assert (result == expected).all()
    assert result.shape == expected.shape


def test_what_is_converted_block_after_block_is_converted_once() -> None:
    class Handed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            table = x.cumsum(0)
            for layer in self.layers:
                table = table.to(torch.float64)
                x = layer(x) + table
            return x

    graph = trace_module(Handed().eval(), (floats(4, 6),))
    Canonicalize()(State(graph, Request()))
    moved = {node.operands["self"] for node in graph.nodes if node.op == "aten.to.dtype"}
    assert len(moved) == 1
