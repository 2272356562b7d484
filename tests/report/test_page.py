"""The data of a page."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import graphclone as gc
from graphclone.clones.clone import Clone
from graphclone.clones.traced import Traced
from graphclone.report import page_of_clone, tree
from graphclone.report.costs import part_of
from graphclone.report.page import Operation, Page, Part
from tests.report.models import model


def _parts(part: Part) -> list[Part]:
    return [part, *(found for item in part.items if isinstance(item, Part) for found in _parts(item))]


def test_layers_of_one_kind_are_folded(page: Page) -> None:
    (layer,) = (part for part in _parts(page.tree) if part.twins)
    assert [layer.path, *(twin.path for twin in layer.twins)] == [f"layers.{n}" for n in range(4)]


def test_every_operation_is_there_once(page: Page, traced: Traced) -> None:
    def names(part: Part) -> list[str]:
        inner = [[item.name] if isinstance(item, Operation) else names(item) for item in part.items]
        return [name for found in [*inner, *map(names, part.twins)] for name in found]

    expected = [node.name for node in traced.graph.nodes if any(output.is_tensor for output in node.outputs)]
    assert sorted(names(page.tree)) == sorted([*expected, *(value.name for value in traced.graph.inputs)])


def test_layers_that_differ_are_not_folded() -> None:
    module, args = model()
    module.layers[1].up.bias = None
    layers = [part for part in _parts(page_of_unequal(module, args).tree) if part.path.startswith("layers.")]
    assert [(part.path, len(part.twins)) for part in layers if part.path.count(".") == 1] == [
        ("layers.0", 0),
        ("layers.1", 0),
        ("layers.2", 1),
    ]


def page_of_unequal(module: object, args: tuple[object, ...]) -> Page:
    from graphclone.report import page_of

    return page_of(gc.trace(module, args))


def test_a_layout_names_the_dims(page: Page) -> None:
    tensors = {t.name: t for operation in tree.operations(page.tree) for t in operation.reads}
    text = tensors["layers.0.out.weight"].axes[1].text
    assert text == "heads*v_head_dim=3*4"
    assert [leaf.size for leaf in tensors["layers.0.qkv.weight"].axes[0].leaves] == [3, 4, 3, 4, 3, 4]


def test_a_pinned_dim_has_the_way_from_its_pin(page: Page) -> None:
    (head,) = (dim for dim in page.dims if dim.name == "head")
    assert head.pinned == "the output keeps its shape (output)"
    assert head.path[0] == head.pinned and head.freed_by == ("output",)


def test_bands_that_overlap_have_lanes_of_their_own(page: Page) -> None:
    shown = [dim for dim in page.dims if dim.last >= dim.first]
    assert shown
    for at, a in enumerate(shown):
        assert all(a.lane != b.lane or a.last < b.first or b.last < a.first for b in shown[at + 1 :])
    assert page.lanes == max(dim.lane for dim in shown) + 1


def test_costs_are_those_of_the_clones(page: Page) -> None:
    costs = {cost.factor: cost for cost in page.choices[0].costs}
    for factor in (2, 3):
        clone = gc.clone(*model(), widen=factor)
        assert sum(costs[factor].parameters) == sum(t.numel() for t in clone.state_dict().values())
    assert sum(costs[1].parameters) == page.parameters


def test_a_factor_that_is_refused_says_why(page: Page) -> None:
    cost = next(cost for cost in page.choices[0].costs if cost.factor == 1.25)
    assert not cost.parameters and "no whole number" in cost.refusal


def test_costs_of_one_group(page: Page) -> None:
    choice = next(choice for choice in page.choices if choice.name == "layers.*.up")
    clone = gc.clone(*model(), widen={"layers.*.up": 4})
    assert sum(choice.costs[-1].parameters) == sum(t.numel() for t in clone.state_dict().values())


@pytest.mark.parametrize("number", [3, 300])
def test_parts_are_few(number: int) -> None:
    names = [f"model.layers.{n}.{kind}.weight" for n in range(number) for kind in ("up", "down")] + ["head"]
    assert set(part_of(names).values()) == {"model.layers.*.up", "model.layers.*.down", "head"}
    assert len(set(part_of(f"{letter}{n}.weight" for letter in "ab" for n in range(number * 20)).values())) <= 12


def test_a_weight_before_and_after(clone_page: Page, clone: Clone) -> None:
    assert clone_page.clone is not None
    tensors, source = clone.state_dict(), model()[0].state_dict()
    for heat in clone_page.clone.heats:
        before, after = (np.array(rows) for rows in (heat.before, heat.after))
        np.testing.assert_allclose(before, source[heat.name].numpy()[:24, :24], rtol=5e-3)
        if heat.whole:
            np.testing.assert_allclose(after, tensors[heat.name].numpy(), rtol=5e-3)
    down = next(heat for heat in clone_page.clone.heats if heat.name == "layers.0.down.weight")
    assert (down.row_edges, down.column_edges, down.whole) == ((12,), (20,), True)


def test_numbers_that_are_not_finite_are_left_out() -> None:
    module, args = model()
    with torch.no_grad():
        module.head.weight[0, 0] = math.inf
    clone = page_of_clone(gc.clone(module, args, widen=2), "", None).clone
    assert clone is not None
    head = next(heat for heat in clone.heats if heat.name == "head.weight")
    assert head.before[0][0] is None and head.after[0][12] is None and head.before[0][1] is not None


def test_every_value_has_an_error(clone_page: Page) -> None:
    assert clone_page.clone is not None and clone_page.clone.verification is not None
    exact = next(check for check in clone_page.clone.verification["checks"] if check["name"] == "exact")
    assert len(exact["values"]) == exact["figures"]["values"]
    assert max(error for _, error in exact["values"]) == exact["figures"]["worst"] < clone_page.clone.tolerance


def test_new_sizes_and_scales_are_shown(clone_page: Page) -> None:
    sizes = {dim.name: (dim.size, dim.new_sizes) for dim in clone_page.dims}
    assert sizes["hidden"] == (12, (24,)) and sizes["head"] == (7, (7,))
    texts = {axis.text for operation in tree.operations(clone_page.tree) for t in operation.outputs for axis in t.axes}
    assert "hidden=12x2" in texts


def test_new_blocks_are_marked() -> None:
    clone = gc.clone(*model(), depth=6)
    page = page_of_clone(clone, "", None)
    layers = [part for part in _parts(page.tree) if part.path.startswith("layers.") and part.path.count(".") == 1]
    assert sum(1 + len(part.twins) for part in layers) == 6
    assert sum(1 + len(part.twins) for part in layers if part.is_new) == 2
    assert page.clone is not None and page.parameters == sum(page.clone.before) < sum(page.clone.after)


def test_it_becomes_json(page: Page, clone_page: Page) -> None:
    for each in (page, clone_page):
        assert json.loads(json.dumps(each.to_dict(), allow_nan=False))["model"] == each.model
