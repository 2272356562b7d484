"""Outputs that a model computes with: they may be wider, and else are what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.writer import Written, clone_checkpoint
from graphclone.models.randomise import randomise

_CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput
from dataclasses import dataclass


@dataclass
class Result(ModelOutput):
    logits: torch.Tensor = None
    confidence: torch.Tensor = None
    states: torch.Tensor = None


class RatedConfig(PretrainedConfig):
    model_type = "rated"

    def __init__(self, vocab_size=50, hidden_size=16, way="divided", **others):
        self.vocab_size, self.hidden_size, self.way = vocab_size, hidden_size, way
        super().__init__(**others)


class Rated(PreTrainedModel):
    config_class = RatedConfig

    def __init__(self, config):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.hidden_size)
        self.inner = nn.Linear(config.hidden_size, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(self, input_ids):
        h = self.table(input_ids)
        way = self.config.way
        h = h + (torch.tanh if way == "bounded" else torch.relu)(self.inner(h))
        size = h.norm(dim=-1)
        if way in ("divided", "bounded"):
            return Result(self.head(h / size[..., None]), size)
        if way == "written":
            written = torch.zeros(size.shape, dtype=size.dtype)
            written[0] = size[0]
            return Result(self.head(h), written)
        if way == "written wide":
            written = torch.zeros(h.shape, dtype=h.dtype)
            written[0] = h[0]
            return Result(self.head(h), states=written)
        if way == "kept":
            return Result(self.head(h), h.mean(-1), h)
        unit = h / size[..., None]
        return Result(self.head(unit), states=unit)
"""


def _cloned(way: str, tmp_path: Path, **request: Any) -> tuple[Written, Any, Any]:
    """A clone, and what source and clone return for the same tokens."""
    (tmp_path / "rated.py").write_text(_CODE)
    module = transformers.dynamic_module_utils.get_class_in_module("Rated", tmp_path / "rated.py")
    made = randomise(module(module.config_class(way=way)).double())
    made.config.auto_map = {"AutoConfig": "rated.RatedConfig", "AutoModel": "rated.Rated"}
    made.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "rated.py").write_text(_CODE)
    written = clone_checkpoint(tmp_path / "source", tmp_path / "wide", trust_remote_code=True, **request)
    assert written.verification is not None
    assert written.verification.ok
    tokens = torch.randint(0, 50, (3, 7))
    with torch.no_grad():
        small, wide = (module.from_pretrained(tmp_path / name, dtype="auto")(tokens) for name in ("source", "wide"))
    return written, small, wide


@pytest.mark.parametrize("strategy", ["symmetric", "fresh"])
@pytest.mark.parametrize("way", ["divided", "written"])
def test_what_keeps_its_shape_keeps_its_numbers(way: str, strategy: str, tmp_path: Path) -> None:
    written, small, wide = _cloned(way, tmp_path, strategy=strategy)
    assert written.plan.changes == {"hidden_size": (16, 32)}
    for name in ("logits", "confidence"):
        torch.testing.assert_close(wide[name], small[name], rtol=1e-9, atol=1e-9)


def test_what_cannot_keep_its_numbers_stays(tmp_path: Path) -> None:
    """A function that is not linear leaves no weight that could take the factor."""
    written, *_ = _cloned("bounded", tmp_path, strategy="symmetric")
    assert written.plan.changes == {}
    (note,) = written.notes
    assert note.startswith("hidden_size stays as it is: with it, confidence would be 1.414")


def test_what_is_only_written_to_keeps_its_shape(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=r"the output keeps its shape \(states\)"):
        _cloned("written wide", tmp_path, strategy="symmetric")


def test_what_has_pads_is_not_compared(tmp_path: Path) -> None:
    written, small, wide = _cloned("kept", tmp_path, strategy="fresh")
    (note,) = written.notes
    assert note.startswith("states, which the model returns besides, is wider than the source's and has numbers of its")
    assert note.endswith("so that it is not compared")
    torch.testing.assert_close(wide.logits, small.logits, rtol=1e-9, atol=1e-9)


def test_what_is_wider_holds_copies_and_is_named(tmp_path: Path) -> None:
    written, small, wide = _cloned("kept", tmp_path, strategy="symmetric")
    assert written.notes == ["states, which the model returns besides, is wider than the source's"]
    torch.testing.assert_close(wide.states, torch.cat([small.states] * 2, -1), rtol=1e-9, atol=1e-9)


def test_what_cannot_keep_its_scale_is_named(tmp_path: Path) -> None:
    """A vector of length 1 in twice as many dims."""
    written, small, wide = _cloned("of length one", tmp_path, strategy="symmetric")
    note = "states, which the model returns besides, is wider than the source's and is 0.707 times as large"
    assert written.notes == [f"{note}, so that it is not compared"]
    torch.testing.assert_close(wide.states * 2**0.5, torch.cat([small.states] * 2, -1), rtol=1e-9, atol=1e-9)
