"""What passes require and ensure: conditions are tests of the state, and nothing is believed that no longer holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from graphclone.algebra.axes import Why
from graphclone.algebra.growth import Growth, rigid
from graphclone.api import clone
from graphclone.errors import GraphcloneError, InvariantError, PipelineError
from graphclone.formats.torch.reader import trace_module as trace
from graphclone.graph.ir import Graph, Value
from graphclone.passes import default_pipeline
from graphclone.passes.canonicalize import Canonicalize
from graphclone.passes.infer_dims import InferDims
from graphclone.pipeline.conditions import CLONED, CONDITIONS, defect
from graphclone.pipeline.runner import Pass, lacking, run
from graphclone.pipeline.state import Request, Scales, State, Widths

INPUTS = (torch.ones(2, 6),)


class Gated(nn.Module):
    """A chunk, which is no canonical spelling, and a sum over a hidden axis, whose factor a multiplication mends."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 20)
        self.down = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = self.up(x).chunk(2, dim=-1)
        hidden = torch.sigmoid(gate) * up
        return self.down(hidden), torch.tanh(hidden.sum(-1))


def traced() -> Graph:
    return trace(Gated().eval(), INPUTS)


def after(count: int, graph: Graph | None = None) -> State:
    """The state after some passes of the default pipeline."""
    state = State(graph or traced(), Request(widen=2))
    run(default_pipeline()[:count], state, check=True)
    return state


@dataclass(frozen=True)
class Change:
    """A pass of a user that does something to the state, and says what it likes of that."""

    change: Callable[[State], object]
    says: frozenset[str] = frozenset()
    name: ClassVar[str] = "my-pass"
    requires: ClassVar[frozenset[str]] = frozenset()

    @property
    def ensures(self) -> frozenset[str]:
        return self.says

    def __call__(self, state: State) -> bool:
        self.change(state)
        return True


def with_change(change: Callable[[State], object], place: int) -> tuple[Pass, ...]:
    """The default pipeline with a user's pass before the one of that place."""
    passes = default_pipeline()
    return (*passes[:place], Change(change), *passes[place:])


# What breaks each condition


def use_another_spelling(state: State) -> None:
    node = next(node for node in state.graph.nodes if node.op == "aten.split_with_sizes.default")
    operands = {"self": node.operands["self"], "chunks": 2, "dim": -1}
    state.graph.dialect.respell(node, "aten.chunk.default", operands)


def read_nothing(state: State) -> None:
    value = state.graph.inputs[0]
    state.graph.nodes.append(state.graph.dialect.multiply(value, 2.0, "twice"))


def insert(state: State) -> None:
    graph, value = state.graph, state.graph.nodes[0].outputs[0]
    node = graph.dialect.multiply(value, 2.0, "twice")
    graph.replace(value, node.outputs[0])
    graph.nodes.insert(1, node)


def change_a_number(state: State) -> None:
    node = next(node for node in state.graph.nodes if node.op == "aten.split_with_sizes.default")
    node.set_operand(("split_sizes", 0), 9)


def change_a_shape(state: State) -> None:
    state.graph.nodes[0].outputs[0].shape = (2, 21)


def return_less(state: State) -> None:
    del state.graph.outputs[0]


def pin_what_grows(state: State) -> None:
    state.facts.axes.pin(next(iter(state.growths)), Why("", "of my own"))


def grow_what_is_gone(state: State) -> None:
    state.widths = Widths({state.facts.axes.dim(7): Growth(7, 2)})


def grow_unevenly(state: State) -> None:
    axes, (first, second) = state.facts.axes, list(state.growths)[:2]
    axes.uniform(axes.concat([first, second]), Why("", "averaged over"))
    state.widths = Widths({first: Growth(first.size, 3), second: Growth(second.size, 2)})


def scale_by_nothing(state: State) -> None:
    state.scales.factors[state.graph.initializers[0].value] = 0.0


def scale_a_stranger(state: State) -> None:
    state.scales.factors[Value("stranger", (2,), "float32")] = 2.0


def forget_a_recipe(state: State) -> None:
    del state.recipes[state.graph.initializers[0].value]


def keep_a_weight(state: State) -> None:
    value = state.graph.initializers[0].value
    state.recipes[value] = replace(state.recipes[value], axes=(rigid(20), rigid(6)), contracted=())


def take_another_shape(state: State) -> None:
    value = state.graph.initializers[0].value
    state.recipes[value] = replace(state.recipes[value], axes=(rigid(20),), contracted=())


def drop_a_factor(state: State) -> None:
    state.graph.nodes = [node for node in state.graph.nodes if "_rescaled_for_" not in node.name]


BREAKS: Sequence[tuple[str, int, Callable[[State], object], str]] = (
    (
        "canonical",
        1,
        use_another_spelling,
        r"chunk \(aten.chunk.default\) is spelled in a way",
    ),
    ("canonical", 1, read_nothing, "nothing reads twice"),
    ("dims", 3, insert, "the graph has changed since infer-dims ran, at twice"),
    ("dims", 3, change_a_number, "the graph has changed since infer-dims ran, at chunk"),
    ("dims", 3, change_a_shape, "the graph has changed since infer-dims ran, at linear"),
    ("dims", 3, return_less, "the graph has changed since infer-dims ran, at the outputs"),
    ("widths", 4, pin_what_grows, "grows that is pinned: of my own"),
    ("widths", 4, grow_what_is_gone, "a dim of 7 grows that the graph does not have"),
    ("scales", 5, scale_by_nothing, "%up.weight is scaled by 0.0"),
    ("scales", 5, scale_a_stranger, "%stranger is scaled, which the graph does not have"),
    ("recipes", 6, forget_a_recipe, "up.weight has no recipe"),
    ("recipes", 6, keep_a_weight, r"the recipe of up.weight makes it \(20, 6\), which the widths do not"),
    ("recipes", 6, take_another_shape, r"the recipe of up.weight is for another shape, \(20,\)"),
    ("literals", 7, change_a_number, "chunk still has the size 9, where 20 is due"),
    ("literals", 7, change_a_shape, r"linear still has the shape \(2, 21\)"),
    ("literals", 7, drop_a_factor, "is not multiplied yet"),
)


@pytest.mark.parametrize(("name", "count", "change", "message"), BREAKS, ids=lambda item: getattr(item, "__name__", ""))
def test_a_condition_is_tested_on_the_state(
    name: str, count: int, change: Callable[[State], object], message: str
) -> None:
    state = after(count)
    assert defect(name, state) is None
    change(state)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(defect(name, state))


@pytest.mark.parametrize("name", CONDITIONS)
def test_no_condition_holds_of_this_model_before_any_pass(name: str) -> None:
    assert defect(name, State(traced(), Request(depth=2))) is not None


def test_a_condition_that_requires_even_growth() -> None:
    """Two dims that are averaged over together may not grow by factors of their own."""
    layers = (nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 5))
    state = after(4, trace(nn.Sequential(*layers).eval(), INPUTS))
    grow_unevenly(state)
    assert "but is averaged over an axis whose parts would be repeated unequally" in str(defect("widths", state))


# Pipelines


def test_a_graph_that_is_not_canonical_is_refused() -> None:
    """Otherwise half of a model would silently stay as narrow as it is."""
    with pytest.raises(PipelineError, match="deepen requires canonical, which no earlier pass ensures: chunk"):
        run(default_pipeline()[1:], State(traced()))
    with pytest.raises(GraphcloneError):
        clone(Gated().eval(), INPUTS, passes=default_pipeline()[1:])


def test_a_canonical_graph_need_not_be_made_so() -> None:
    graph = traced()
    run((Canonicalize(),), State(graph))
    run(default_pipeline()[1:], State(graph), goal=CLONED)


@pytest.mark.parametrize("change", [insert, change_a_number, change_a_shape, return_less])
@pytest.mark.parametrize("place", [3, 4, 5, 6])
def test_facts_are_not_believed_once_the_graph_has_changed(change: Callable[[State], object], place: int) -> None:
    with pytest.raises(PipelineError, match="requires dims, which no longer holds: the graph has changed"):
        run(with_change(change, place), State(traced(), Request(widen=2)))


def test_facts_that_are_inferred_again_are_believed() -> None:
    passes = default_pipeline()
    state = State(traced(), Request(widen=2))
    run((*passes[:3], Change(insert), *passes[2:]), state, goal=CLONED, check=True)
    assert state.growths


def test_new_facts_take_back_what_was_found_from_others() -> None:
    state = after(5)
    InferDims()(state)
    assert state.has(State.analysis)
    assert not any(state.has(stage) for stage in (State.widths, State.scales, State.recipes))
    with pytest.raises(InvariantError, match="the state has no widths yet: choose-widths has not run"):
        _ = state.growths
    with pytest.raises(PipelineError, match="balance-scales requires widths, which no earlier pass ensures: choose-w"):
        run(default_pipeline()[4:], state)


def test_widths_that_may_not_be_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"balance-scales requires widths, which no longer holds: .* is pinned"):
        run(with_change(pin_what_grows, 4), State(traced(), Request(widen=2)))


def test_a_clone_is_made_once_only() -> None:
    with pytest.raises(PipelineError, match="rewrite-literals requires dims, which no longer holds"):
        run((*default_pipeline(), default_pipeline()[-1]), State(traced(), Request(widen=2)))


def test_a_pipeline_that_makes_no_clone() -> None:
    with pytest.raises(PipelineError, match="must reach literals, recipes, which no earlier pass ensures"):
        run(default_pipeline()[:5], State(traced(), Request(widen=2)), goal=CLONED)


def test_a_pass_that_does_not_do_what_it_says() -> None:
    with pytest.raises(InvariantError, match="my-pass does not ensure dims, as it says: infer-dims has not run"):
        run((Change(lambda state: None, frozenset({"dims"})),), State(traced()))


def test_what_is_lacking_is_seen_before_anything_runs() -> None:
    passes = default_pipeline()
    assert lacking(passes, CLONED) is None
    assert lacking(passes[1:], CLONED) is None  # the graph may be canonical as it is read
    assert lacking(passes[3:], CLONED) == (passes[3], ["dims"])
    assert lacking(passes[:5], CLONED) == (None, ["literals", "recipes"])


def test_the_name_of_a_user_means_an_order() -> None:
    first = Change(lambda state: None, frozenset({"mine"}))

    @dataclass(frozen=True)
    class Second:
        """Wants the other one before it."""

        name: ClassVar[str] = "second"
        requires: ClassVar[frozenset[str]] = frozenset({"mine"})
        ensures: ClassVar[frozenset[str]] = frozenset()

        def __call__(self, state: State) -> bool:
            return False

    run((first, Second()), State(traced()))
    with pytest.raises(PipelineError, match=r"second requires mine, which no earlier pass ensures$"):
        run((Second(),), State(traced()))


def test_a_factor_that_nothing_absorbs_is_in_the_graph_at_the_end_only() -> None:
    state = after(5)
    assert state.scales.mends
    names = {mend.name for mend in state.scales.mends}
    assert names.isdisjoint(node.name for node in state.graph.nodes)
    run(default_pipeline()[5:], state)
    assert names <= {node.name for node in state.graph.nodes}
    assert isinstance(state.scales, Scales)
