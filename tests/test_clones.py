"""Every model of the zoo: widened as asked, really grown, and equal at every node in float64."""

from __future__ import annotations

from math import ceil

import pytest
import torch

from graphclone.algebra.growth import Kind
from graphclone.algebra.strategies import strategy
from graphclone.analysis.dims import dims
from graphclone.errors import GraphcloneError
from graphclone.passes import analysis
from graphclone.pipeline.state import Request, State
from graphclone.verification.lockstep import run_lockstep
from tests.support.tracing import RandomSizes, pipeline_by, random_pipeline, traced, widened
from tests.support.zoo import ZOO

STRATEGIES = ("symmetric", "diagonal", "noisy-symmetric", "noisy-diagonal")
REPEATING = ("symmetric", "noisy-diagonal")
EXACT = 1e-12

NORMED_AFTER = ("opt-mini", "bert-mlm", "bert-classifier", "encoder")
"""Models with a norm after each sum, whose stream has no pads."""

INSERTED = {"olmo-mini": 1}
"""Multiplications that must be put into a graph: a tied embedding whose final norm has no weight to absorb it."""


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    """Shape of every name the clone's state dict will have."""
    saved = [i for i in state.graph.initializers if i.kind != "constant"]
    return {name: state.recipes[i.value].shape for i in saved for name in i.names}


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", ZOO)
def test_clone_computes_the_same_at_every_node(factor: int, kind: str, name: str) -> None:
    """2x and 3x, by all four strategies; parameters have the shapes of the class built that much wider."""
    expected = {key: tuple(t.shape) for key, t in ZOO[name].build(factor).module.state_dict().items()}
    state = widened(name, Request(factor, strategy=strategy(kind), seed=1))
    assert shapes(state) == expected
    result = run_lockstep(state, traced(name)[1])
    assert result.first is None and result.worst <= EXACT, str(result)
    rescaled = [node for node in state.graph.nodes if "_rescaled_for_" in node.name]
    assert len(rescaled) == INSERTED.get(name, 0)
    assert not state.facts.refusals


@pytest.mark.parametrize("kind", ["tile", "interleave"])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("free", [(), ("*",)], ids=["outputs pinned", "outputs free"])
@pytest.mark.parametrize("name", ZOO)
def test_every_dim_may_grow_by_a_factor_of_its_own(seed: int, free: tuple[str, ...], name: str, kind: Kind) -> None:
    """The standing test: all free dims, head_dim included, grow at random, with outputs pinned and let grow."""
    request = Request(widen_io=free, strategy=strategy("noisy-diagonal"), seed=seed)
    state = widened(name, request, random_pipeline(seed, kind))
    assert state.growths, "nothing grew"
    result = run_lockstep(state, traced(name)[1])
    assert result.first is None and result.worst <= EXACT, str(result)


@pytest.mark.parametrize("how", [*REPEATING, pytest.param("fresh", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ZOO)
def test_every_dim_may_grow_to_a_size_of_its_own(name: str, how: str) -> None:
    """The standing test at any size: unequal copies, and pads where something averages over a dim, or everywhere."""
    kind: Kind = "interleave" if how == "noisy-diagonal" else "tile"
    request = Request(strategy=strategy(how), seed=1, kind=kind)
    state = widened(name, request, pipeline_by(RandomSizes(seed=1)))
    assert any(growth.pads or growth.extra for growth in state.growths.values()), "no growth is uneven"
    result = run_lockstep(state, traced(name)[1])
    assert result.first is None and result.worst <= EXACT, str(result)


@pytest.mark.parametrize("how", [*(pytest.param(how, marks=pytest.mark.slow) for how in REPEATING), "fresh"])
@pytest.mark.parametrize("name", [name for name in ZOO if name not in NORMED_AFTER])
def test_all_that_grows_by_default_grows_by_half(name: str, how: str) -> None:
    asked = widened(name, Request({}), analysis())
    sizes = {dim.name: ceil(1.5 * dim.size) for dim in dims(asked.facts) if dim.default}
    state = widened(name, Request({}, sizes=sizes, strategy=strategy(how), seed=1))
    assert len(state.growths) == len(sizes)
    result = run_lockstep(state, traced(name)[1])
    assert result.first is None and result.worst <= EXACT, str(result)


@pytest.mark.parametrize("name", NORMED_AFTER)
def test_a_stream_that_is_normed_after_each_sum_takes_whole_multiples_only(name: str) -> None:
    with pytest.raises(GraphcloneError, match=r"hidden cannot grow from .* to .*, which is no whole multiple"):
        widened(name, Request({"hidden": "3/2"}))


def test_tied_weights_stay_tied_and_the_norm_absorbs_the_factor() -> None:
    state = widened("opt", Request(2))
    changed = {item: scale for item, scale in state.scales.factors.items() if scale != 1.0}
    assert {str(item): scale for item, scale in changed.items()} == {
        "%model.decoder.final_layer_norm.weight": 0.5,
        "%model.decoder.final_layer_norm.bias": 0.5,
    }
    embedding = next(i for i in state.graph.initializers if "lm_head.weight" in i.names)
    assert len(embedding.names) == 2


def test_shifted_norm_weight_is_solved_for() -> None:
    """A norm that multiplies by 1 + w: its w becomes (1 + w) / 2 - 1, and the 1 stays."""
    state = widened("gemma", Request(2))
    norm = next(i for i in state.graph.initializers if i.name == "model.norm.weight")
    recipe = state.recipes[norm.value]
    assert (recipe.scale, recipe.shift) == (0.5, -0.5)


@pytest.mark.parametrize(("kind", "equal"), [("symmetric", True), ("noisy-symmetric", False)])
def test_noise_makes_copies_differ_and_symmetric_leaves_them_equal(kind: str, equal: bool) -> None:
    from graphclone.runtime.tensors import widened_tensors

    state = widened("mlp", Request(2, strategy=strategy(kind)))
    weight = next(i for i in state.graph.initializers if i.name == "3.weight")
    tensor = widened_tensors(state)[weight.value]
    half = tensor.shape[0] // 2
    assert torch.equal(tensor[:half], tensor[half:]) is equal
