"""Classes that refuse what most are content with: a text without a mask, a picture that is a square."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from torch import nn

from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import loaded

_SIZES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}


def _saved(module: nn.Module, folder: Path) -> Path:
    randomise(module).save_pretrained(folder)
    return folder


def test_a_class_that_wants_a_mask_is_given_one(tmp_path: Path) -> None:
    config = transformers.VisualBertConfig(
        **_SIZES, vocab_size=71, intermediate_size=40, visual_embedding_dim=10, max_position_embeddings=64
    )
    source = _saved(transformers.VisualBertForQuestionAnswering(config), tmp_path / "source")
    assert open_checkpoint(source).example_inputs["attention_mask"].all()
    written = clone_checkpoint(source, tmp_path / "wide", widen=2, omit=["visual_bert.embeddings.visual_projection"])
    assert written.verification is not None and written.verification.ok
    ids = torch.arange(12).view(2, 6)
    mask = (ids % 4 != 3).long()
    small, wide = (
        loaded(folder)[0].eval()(input_ids=ids, attention_mask=mask).logits for folder in (source, tmp_path / "wide")
    )
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


def test_a_class_that_makes_its_mask_where_it_is_not_traced_is_given_one(tmp_path: Path) -> None:
    config = transformers.LongT5Config(
        vocab_size=71, d_model=24, d_kv=6, d_ff=40, num_layers=1, num_heads=4, local_radius=3, decoder_start_token_id=0
    )
    source = _saved(transformers.LongT5ForConditionalGeneration(config), tmp_path / "source")
    written = clone_checkpoint(source, tmp_path / "wide", widen=2)
    assert written.verification is not None and written.verification.ok
    fed = {"input_ids": torch.arange(22).view(2, 11), "decoder_input_ids": torch.arange(8).view(2, 4)}
    small, wide = (loaded(folder)[0].eval()(**fed).logits for folder in (source, tmp_path / "wide"))
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-4)


def test_a_picture_has_the_sides_that_the_backbone_wants(tmp_path: Path) -> None:
    backbone = transformers.VitPoseBackboneConfig(**_SIZES, image_size=[32, 16], patch_size=[8, 8], out_indices=[1])
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=5)
    source = _saved(transformers.VitPoseForPoseEstimation(config), tmp_path / "source")
    written = clone_checkpoint(source, tmp_path / "wide", widen=2)
    assert written.verification is not None and written.verification.ok
    pixels = torch.randn(3, 3, 32, 16)
    small, wide = (loaded(folder)[0].eval()(pixel_values=pixels).heatmaps for folder in (source, tmp_path / "wide"))
    torch.testing.assert_close(wide, small, rtol=0, atol=1e-4)
