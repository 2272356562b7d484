"""Graphs that are stored and restored say the same, and nothing that is stored names other functions than operators."""

from __future__ import annotations

import json

import pytest
import torch

from graphclone.formats.torch.reader import trace_module
from graphclone.formats.torch.stored_graph import NotStorable, restored, stored, target
from graphclone.graph.ir import Graph, Opaque
from graphclone.pipeline.printer import print_graph
from graphclone.runtime.tensors import data_of
from tests.support.zoo import ZOO


def again(graph: Graph) -> Graph:
    return restored(json.loads(json.dumps(stored(graph))), graph.name)


@pytest.mark.parametrize("name", ["gpt2", "t5", "resnet-basic", "lstm"])
def test_a_graph_comes_back_as_it_was(name: str) -> None:
    source = ZOO[name].build()
    graph = trace_module(source.module, source.args, source.kwargs)
    graph.notes.clear()
    other = again(graph)
    assert print_graph(other) == print_graph(graph)
    assert [node.target for node in other.nodes] == [node.target for node in graph.nodes]
    for old, new in zip(graph.nodes, other.nodes, strict=True):
        assert repr(old.operands) == repr(new.operands)
        assert (old.scope, old.several) == (new.scope, new.several)
        for before, after in zip(old.outputs, new.outputs, strict=True):
            assert (before.shape, before.dtype, before.dynamic) == (after.shape, after.dtype, after.dynamic)
            assert after.producer is new


def test_weights_keep_their_data_only_where_they_have_any() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 4, device="meta"))
            self.register_buffer("table", torch.tensor([float("nan"), -0.0, 1e-45]), persistent=False)
            self.register_buffer("low", torch.randn(3).bfloat16(), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.table) * self.low.float()

    graph = trace_module(Model().eval(), (torch.randn(2, 3),))
    for old, new in zip(graph.initializers, again(graph).initializers, strict=True):
        assert (old.names, old.kind) == (new.names, new.kind)
        before, after = data_of(old), data_of(new)
        if before is None:
            assert after is None
        else:
            assert after is not None
            assert before.dtype == after.dtype
            assert before.view(torch.uint8).equal(after.view(torch.uint8))


@pytest.mark.parametrize(
    "name", ["py.os.system", "py.torch.load", "py.builtins.eval", "aten.nothing.default", "hop.nothing", "relu", "py.x"]
)
def test_only_operators_are_found(name: str) -> None:
    with pytest.raises(NotStorable):
        target(name)


def test_a_literal_that_has_no_name_is_not_stored() -> None:
    graph = trace_module(torch.nn.Linear(3, 4).eval(), (torch.randn(2, 3),))
    graph.nodes[0].operands["other"] = Opaque(object())
    with pytest.raises(NotStorable):
        stored(graph)


def test_a_tree_of_another_form_is_refused() -> None:
    plain = stored(trace_module(torch.nn.Linear(3, 4).eval(), (torch.randn(2, 3),)))
    for other in ({}, [], {**plain, "nodes": [[]]}, {**plain, "outputs": [["y", {"value": 99}]]}, None):
        with pytest.raises(NotStorable):
            restored(other, "model")
