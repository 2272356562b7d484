"""What the ways of others to begin a wide model are, on layers whose numbers can be read off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.study import Model, Recipe, initialisations, run_study
from graphclone.study.config import DEPTH
from graphclone.study.initialisations import INITIALISATIONS, Beginning, aki, ligo, merge, stack
from graphclone.study.recipes import INEXACT
from tests.support.marks import slow_but
from tests.support.study_models import corpus, study


def test_every_name_has_one() -> None:
    assert INITIALISATIONS.keys() == INEXACT.keys()


class Stack(nn.Module):
    """Blocks between an embedding and a layer that is tied to it."""

    def __init__(self, hidden: int, inner: int, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, inner), nn.GELU(), nn.Linear(inner, hidden)) for _ in range(blocks)
        )
        self.head = nn.Linear(hidden, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def beginning(small: Stack) -> Beginning:
    """What the initialisations of a model twice as wide draw on; what it learns is to repeat a token."""
    tokens = torch.arange(10).view(2, 5) % 5
    clone = gc.clone(small.eval(), (tokens,), widen=2)
    wide = clone.module()

    def loss(tensors: Mapping[str, torch.Tensor], number: int) -> torch.Tensor:
        logits = functional_call(wide, dict(tensors), (tokens.roll(number, 0),), tie_weights=False)
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens.roll(number, 0).flatten())

    return Beginning(clone, small.state_dict(), clone.state_dict(), loss)


def test_new_outputs_come_from_the_block_above() -> None:
    torch.manual_seed(0)
    start = beginning(Stack(3, 4))
    wide, begun = start.wide, aki(start)
    expected = torch.cat([wide["blocks.0.0.weight"][:4], wide["blocks.1.0.weight"][4:]])
    assert torch.equal(begun["blocks.0.0.weight"], expected)
    expected = torch.cat([wide["blocks.0.2.bias"][:3], wide["blocks.1.2.bias"][3:]])
    assert torch.equal(begun["blocks.0.2.bias"], expected)
    for name in ("embed.weight", "blocks.1.0.weight", "blocks.1.2.bias"):
        assert torch.equal(begun[name], wide[name])


def test_growth_is_learned() -> None:
    torch.manual_seed(0)
    start = beginning(Stack(3, 4))
    begun = ligo(start)
    assert {name: tensor.shape for name, tensor in begun.items()} == {n: t.shape for n, t in start.wide.items()}
    assert start.loss(begun, 0) < start.loss(start.wide, 0)
    assert torch.equal(begun["head.weight"], begun["embed.weight"])
    # W' = B W C with the same B and C in both blocks: what maps one block's weight maps the other's, too
    weights = [(start.small[f"blocks.{i}.2.weight"], begun[f"blocks.{i}.2.weight"]) for i in range(2)]
    both = torch.cat([new for _, new in weights], 1)
    assert torch.linalg.matrix_rank(both, rtol=1e-4) == 3  # that of B, shape (6, 3)


def test_growth_begins_as_a_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initialisations, "_LEARNING_STEPS", 0)
    monkeypatch.setattr(initialisations, "_SPREAD", 0.0)
    start = beginning(Stack(3, 4))
    for name, tensor in ligo(start).items():
        torch.testing.assert_close(tensor, start.wide[name], rtol=1e-6, atol=0)


def test_two_bases_are_laid_side_by_side() -> None:
    """Without a norm that takes them together, the wide model gives the mean of both outputs."""
    torch.manual_seed(0)
    one, two = Stack(3, 4), Stack(3, 4)
    for small in (one, two):  # not tied, so that no weight is scaled
        small.head = nn.Linear(3, 5, bias=False)
    tokens = torch.arange(10).view(2, 5) % 5
    clones = [gc.clone(small.eval(), (tokens,), widen=2, strategy="staged") for small in (one, two)]
    wide, other = (clone.state_dict() for clone in clones)
    start = Beginning(clones[0], one.state_dict(), wide, lambda *_: torch.zeros(()), other=other)
    begun = merge(start)
    assert torch.equal(begun["embed.weight"][:, 3:], two.embed.weight)
    first, second = (small.state_dict()["blocks.1.0.weight"] for small in (one, two))
    assert torch.equal(begun["blocks.1.0.weight"], torch.block_diag(first, second))
    merged = functional_call(clones[0].module(), begun, (tokens,), tie_weights=False)
    torch.testing.assert_close(merged, (one(tokens) + two(tokens)) / 2)


def test_blocks_are_stacked_again() -> None:
    torch.manual_seed(0)
    small, wide = Stack(3, 4), Stack(3, 4, blocks=6)
    tokens = torch.arange(10).view(2, 5) % 5
    clone = gc.clone(small.eval(), (tokens,), into=wide.eval())
    begun = stack(Beginning(clone, small.state_dict(), wide.state_dict(), lambda *_: torch.zeros(())))
    assert begun.keys() == wide.state_dict().keys()
    for block in range(6):
        assert torch.equal(begun[f"blocks.{block}.0.weight"], small.state_dict()[f"blocks.{block % 2}.0.weight"])
    assert torch.equal(begun["embed.weight"], small.embed.weight)


def test_only_a_deeper_model_is_stacked() -> None:
    with pytest.raises(GraphcloneError, match="grows = 'depth'"):
        stack(beginning(Stack(3, 4)))


def test_a_study_in_depth(tmp_path: Path) -> None:
    """The clone begins where its base ended; blocks that are stacked again do not."""
    (tmp_path / "text").mkdir()
    plan = study(corpus(tmp_path / "text"), recipes=("symmetric", "inexact-stack"))
    plan = replace(plan, model=(Model("tiny", "tests.support.study_models:deeper", grows=DEPTH),))
    run_study(plan, tmp_path / "out")
    runs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("out/runs/*/run.json")}
    assert {run["grows"] for run in runs.values()} == {DEPTH}
    base, clone = runs["tiny-1x-brief-base-s0"], runs["tiny-2x-brief-symmetric-s0"]
    per_block = 2 * 12 + (12 + 1) * 20 + (20 + 1) * 12
    assert clone["parameters"] - base["parameters"] == 2 * per_block

    def losses(run: str) -> list[float]:
        lines = (tmp_path / f"out/runs/{run}/metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    last = losses("tiny-1x-brief-base-s0")[-1]
    assert losses("tiny-2x-brief-symmetric-s0")[0] == pytest.approx(last, rel=1e-5)
    assert losses("tiny-2x-brief-inexact-stack-s0")[0] != pytest.approx(last, rel=1e-5)


def test_a_function_of_a_model_in_depth_takes_deepen(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    plan = study(corpus(tmp_path / "text"))
    plan = replace(plan, model=(Model("tiny", "tests.support.study_models:tiny", grows=DEPTH),))
    with pytest.raises(GraphcloneError, match="must take deepen="):
        run_study(plan, tmp_path / "out")


@pytest.mark.parametrize("name", slow_but(("inexact-merge",), sorted(INEXACT.keys() - {"inexact-stack"})))
def test_a_study_compares_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    source = "tests.support.study_models:stacked"
    run_study(study(corpus(tmp_path / "text"), source, (name, "symmetric")), tmp_path / "out")
    runs = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("out/runs/*/run.json")}
    assert runs[f"tiny-2x-brief-{name}-s0"]["strategy"] == name
    first = {
        run: json.loads((tmp_path / f"out/runs/{run}/metrics.jsonl").read_text().splitlines()[0])["loss"]
        for run in runs
    }
    assert first[f"tiny-2x-brief-{name}-s0"] != first["tiny-2x-brief-symmetric-s0"]
    assert name in (tmp_path / "out" / "report.md").read_text()


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
