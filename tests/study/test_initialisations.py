"""What the ways of others to begin a wide model are, on layers whose numbers can be read off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from graphclone.algebra.growth import Growth, Leaf, rigid
from graphclone.algebra.recipes import Widening
from graphclone.errors import GraphcloneError
from graphclone.runtime.kernel import widen
from graphclone.study import Recipe, run_study
from graphclone.study.initialisations import INITIALISATIONS, aki
from graphclone.study.recipes import INEXACT
from tests.support.study_models import corpus, study

NAMES = ("embed.weight", "blocks.0.up.weight", "blocks.1.up.weight", "blocks.0.mlp.2.bias", "blocks.1.mlp.2.bias")


def test_every_name_has_one() -> None:
    assert tuple(INITIALISATIONS) == INEXACT


def test_new_outputs_come_from_the_block_above() -> None:
    matrix, vector = (Leaf(Growth(3, 2)), Leaf(Growth(2, 2))), (Leaf(Growth(3, 2)),)
    recipes = {
        name: Widening(name, *((matrix, (1,)) if name.endswith("up.weight") else (vector, ()))) for name in NAMES
    }
    recipes["embed.weight"] = Widening("embed.weight", (rigid(5), Leaf(Growth(2, 2))))
    small = {name: torch.randn(recipe.source_shape) for name, recipe in recipes.items()}
    wide = {name: widen(small[name], recipe) for name, recipe in recipes.items()}
    begun = aki(wide, recipes)
    expected = torch.cat([small["blocks.0.up.weight"], small["blocks.1.up.weight"]])
    assert torch.equal(begun["blocks.0.up.weight"], torch.cat([expected, expected], 1) / 2)
    expected = torch.cat([small["blocks.0.mlp.2.bias"], small["blocks.1.mlp.2.bias"]])
    assert torch.equal(begun["blocks.0.mlp.2.bias"], expected)
    for name in ("embed.weight", "blocks.1.up.weight", "blocks.1.mlp.2.bias"):
        assert torch.equal(begun[name], wide[name])


def test_a_study_compares_it(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    source = "tests.support.study_models:stacked"
    run_study(study(corpus(tmp_path / "text"), source, ("inexact-aki", "symmetric")), tmp_path / "out")
    runs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("out/runs/*/run.json")}
    assert runs["tiny-2x-brief-inexact-aki-s0"]["strategy"] == "inexact-aki"
    first = {
        name: json.loads((tmp_path / f"out/runs/{name}/metrics.jsonl").read_text().splitlines()[0])["loss"]
        for name in runs
    }
    assert first["tiny-2x-brief-inexact-aki-s0"] != first["tiny-2x-brief-symmetric-s0"]
    assert "inexact-aki" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"snr_db": 3.0}, "strategy inexact-aki has no noise"),
        ({"optimizer": "grown"}, "only a clone has an optimizer that was grown"),
    ],
)
def test_it_is_no_clone(fields: dict[str, object], text: str) -> None:
    with pytest.raises(GraphcloneError, match=text):
        Recipe("x", "inexact-aki", **fields)  # type: ignore[arg-type]
