"""Why a dim is pinned, and what hangs together."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import graphclone as gc
from graphclone.analysis.dims import Dim, dims
from graphclone.analysis.flow import components, flow_graph, path, why_pinned
from graphclone.clones.traced import Traced


class Chain(nn.Module):
    """A hidden dim that reaches the output by way of two additions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return torch.tanh(h + self.second(h))


def traced() -> tuple[Traced, dict[str, Dim]]:
    found = gc.trace(Chain().eval(), (torch.randn(3, 5),))
    return found, {dim.name: dim for dim in dims(found.state.facts)}


def test_the_way_from_a_parameter_to_what_pins_it() -> None:
    found, named = traced()
    reasons = why_pinned(found.state.facts, named["first"])
    assert [reason.node for reason in reasons] == ["linear", "relu", "add", "tanh", "output"]
    assert reasons[-1].text == "the output keeps its shape"


def test_a_free_dim_has_no_pin() -> None:
    found = gc.trace(Chain().eval(), (torch.randn(3, 5),), widen_io=("output",))
    (hidden,) = [dim for dim in dims(found.state.facts) if dim.size == 8]
    assert hidden.pin is None
    assert why_pinned(found.state.facts, hidden) == []


def test_a_path_between_two_parameters() -> None:
    found, _ = traced()
    facts = found.state.facts
    axes = {initializer.name: facts.of[initializer.value] for initializer in found.graph.initializers}
    steps = path(facts, axes["first.weight"][0], axes["second.weight"][1])
    assert [why.node for why in steps] == ["linear", "relu", "linear_1"]
    assert path(facts, axes["first.weight"][0], axes["first.weight"][1]) == []


def test_components_gather_what_must_grow_together() -> None:
    found, _ = traced()
    largest = components(found.state.facts)[0]
    assert {("first.weight", 0), ("first.bias", 0), ("second.weight", 0), ("second.weight", 1), ("tanh", 1)} <= set(
        largest
    )
    assert ("first.weight", 1) not in largest
    assert flow_graph(found.state.facts).number_of_nodes() > len(largest)
