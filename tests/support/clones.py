"""Clones to verify and to write, made once per test process, and ways to spoil them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from graphclone.api import clone
from graphclone.clones.clone import Clone
from graphclone.formats.torch.example import Example
from graphclone.formats.torch.format import torch_format
from graphclone.formats.torch.reader import trace_module
from graphclone.graph.ir import Node, Value
from graphclone.passes import default_pipeline
from graphclone.pipeline.runner import run
from graphclone.pipeline.state import Request, State
from graphclone.rules import default_rules
from graphclone.rules.site import Rule
from graphclone.runtime.tensors import widened_tensors
from tests.support.zoo import ZOO

torch.set_num_threads(1)  # with tensors this small more threads do nothing but wait for each other


@cache
def zoo_clone(name: str, widen: int = 2) -> Clone:
    """A clone of a zoo model. It is shared: do not change it."""
    built = ZOO[name].build()
    return clone(built.module, built.args, built.kwargs, widen=widen, name=name)


@cache
def perceptron() -> Clone:
    """A clone whose ONNX export is quick. It is shared: do not change it."""
    return spoilable(small())


def small() -> nn.Module:
    """(batch, 6) -> (batch, 5), every layer named."""
    return seeded(lambda: nn.Sequential(nn.Linear(6, 10), nn.LayerNorm(10), nn.Tanh(), nn.Linear(10, 5)))


def seeded(make: Any) -> Any:
    """What a function makes with a random generator that begins anew."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return make()


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def spoilable(module: nn.Module, *args: Tensor, **options: Any) -> Clone:
    """A clone of its own."""
    return clone(module.eval(), args or (features(3, 6),), name="small", **options)


def clone_by_rules(module: nn.Module, args: Sequence[Tensor], rules: Mapping[str, Rule]) -> Clone:
    """A clone made with other rules for some ops."""
    graph = trace_module(module.eval(), args, name="small")
    state = State(graph, Request(2), rules=default_rules() | dict(rules))
    return Clone(state, run(default_pipeline(), state), torch_format(Example(tuple(args))))


def node_of(made: Clone, op: str, index: int = 0) -> Node:
    """A node of the clone by its op."""
    return [node for node in made.graph.nodes if node.op == op][index]


def spoiled_tensors(made: Clone, name: str, change: float = 0.05) -> dict[Value, Tensor]:
    """The clone's initializers, one element of one of them changed."""
    tensors = widened_tensors(made.state)
    initializer = next(i for i in made.graph.initializers if name in i.names)
    tensor = tensors[initializer.value].clone()
    tensor.view(-1)[tensor.numel() // 2] += change
    return tensors | {initializer.value: tensor}


def doubled(tensors: Mapping[Value, Tensor]) -> dict[Value, Tensor]:
    """Tensors in float64."""
    return {v: t.double() if t.is_floating_point() else t for v, t in tensors.items()}


class Unsupported(nn.Module):
    """An op that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.special.bessel_j0(self.down(torch.tanh(self.up(x))))
        return y
