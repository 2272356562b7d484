"""Classes that want what most do not: a mask, boxes, states and rewards, patches in rows, pictures in pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.model_inputs import InputMaker
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import loaded
from tests.support.marks import slow_but

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


def boxed() -> tuple[nn.Module, dict[str, Any]]:
    """Every word has a box; the class names it where it is missing."""
    config = transformers.BrosConfig(**{**_SIZES, "hidden_size": 64}, vocab_size=71, intermediate_size=40)
    boxes = torch.rand(3, 5, 4)
    return transformers.BrosForTokenClassification(config), {"input_ids": torch.arange(15).view(3, 5), "bbox": boxes}


def rewarded() -> tuple[nn.Module, dict[str, Any]]:
    """What is fed are parameters without a default, with sizes that the configuration names."""
    config = transformers.DecisionTransformerConfig(
        state_dim=5, act_dim=3, hidden_size=24, n_layer=1, n_head=4, max_ep_len=64, n_inner=40
    )
    said = {"states": torch.randn(1, 4, 5), "actions": torch.randn(1, 4, 3), "timesteps": torch.arange(4)[None]}
    said |= {"rewards": torch.randn(1, 4, 1), "returns_to_go": torch.randn(1, 4, 1)}
    return transformers.DecisionTransformerModel(config), said | {"attention_mask": torch.ones(1, 4)}


def rowed() -> tuple[nn.Module, dict[str, Any]]:
    """Patches of each picture come in a row, with how many there are in each direction."""
    vision = {**_SIZES, "intermediate_size": 40, "patch_size": 4, "num_patches": 16}
    text = {**_SIZES, "intermediate_size": 40, "vocab_size": 71, "max_position_embeddings": 16, "projection_size": 24}
    text |= {"bos_token_id": 1, "eos_token_id": 2}
    said = {"pixel_values": torch.randn(2, 12, 48), "spatial_shapes": torch.tensor([[3, 4], [2, 4]])}
    said |= {"pixel_attention_mask": torch.ones(2, 12, dtype=torch.long), "input_ids": torch.arange(10).view(2, 5)}
    said["pixel_attention_mask"][1, 8:] = 0
    return transformers.Siglip2Model(transformers.Siglip2Config(text_config=text, vision_config=vision)), said


def encoded() -> tuple[nn.Module, dict[str, Any]]:
    """The part of the configuration that says how many features a sound has is called after the encoder alone."""
    encoder = {**_SIZES, "intermediate_size": 40, "subsampling_conv_channels": 6, "num_mel_bins": 16}
    encoder |= {"subsampling_factor": 4, "conv_kernel_size": 5}
    config = transformers.ParakeetCTCConfig(vocab_size=40, encoder_config=encoder)
    return transformers.ParakeetForCTC(config), {"input_features": torch.randn(1, 96, 16)}


def laid_out() -> tuple[nn.Module, dict[str, Any]]:
    """A picture of a page has the size of an input."""
    boxes = {"coordinate_size": 4, "shape_size": 4, "max_2d_position_embeddings": 64, "input_size": 28}
    config = transformers.LayoutLMv3Config(
        **_SIZES, **boxes, vocab_size=71, intermediate_size=40, patch_size=14, num_labels=3, max_position_embeddings=40
    )
    said = {"input_ids": torch.arange(10).view(2, 5), "bbox": torch.randint(0, 30, (2, 5, 4)).sort(-1).values}
    return transformers.LayoutLMv3ForTokenClassification(config), said | {"pixel_values": torch.randn(2, 3, 28, 28)}


def chosen() -> tuple[nn.Module, dict[str, Any]]:
    """A text for each choice."""
    config = transformers.BertConfig(**_SIZES, vocab_size=71, intermediate_size=40, max_position_embeddings=40)
    return transformers.BertForMultipleChoice(config), {"input_ids": torch.arange(24).view(2, 4, 3)}


@pytest.mark.parametrize(
    "make", slow_but((boxed, rewarded, rowed), (boxed, rewarded, rowed, encoded, laid_out, chosen))
)
def test_a_class_is_fed_with_what_it_asks_for(
    make: Callable[[], tuple[nn.Module, dict[str, Any]]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, said = make()
    source = _saved(module, tmp_path / "source")
    written = clone_checkpoint(source, tmp_path / "wide", widen=2)
    assert written.verification is not None and written.verification.ok
    with torch.no_grad():
        small, wide = (loaded(folder)[0].eval()(**said) for folder in (source, tmp_path / "wide"))
    tensors = {name: value for name, value in small.items() if isinstance(value, torch.Tensor)}
    same = [name for name, value in tensors.items() if value.shape == wide[name].shape]
    assert same
    for name in same:
        torch.testing.assert_close(wide[name], small[name], rtol=0, atol=1e-5)


def paired() -> nn.Module:
    widths = {"hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 8, "out_features": [8, 8, 16, 32]}
    blocks = {"stage_num_blocks": [1, 1, 1, 1], "num_attention_layers": 1, "stage_stride": [2, 1, 2, 2]}
    return transformers.EfficientLoFTRModel(transformers.EfficientLoFTRConfig(**widths, **blocks))


def test_pictures_come_in_pairs_if_a_class_wants_them_so(tmp_path: Path) -> None:
    pictures = open_checkpoint(_saved(paired(), tmp_path)).example_inputs["pixel_values"]
    assert pictures.shape[1:] == (2, 3, 64, 64)


class Choosing(transformers.PreTrainedModel):
    """Chooses a hundred places of those that a picture has."""

    config_class = transformers.ResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.cut = nn.Conv2d(3, 5, 8, 8)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        places: torch.Tensor = self.cut(pixel_values)
        return places.sum(1).flatten(1).topk(100).values


def test_pictures_have_room_for_all_that_is_chosen() -> None:
    maker = InputMaker(Choosing(transformers.ResNetConfig()), {}, torch.float32, ())
    inputs = maker.inputs()
    assert inputs is not None and not maker.runs(inputs)
    assert maker.others(inputs)["pixel_values"].shape == (2, 3, 256, 256)


def stretched(**rope: Any) -> nn.Module:
    """Frequencies that the class computes anew where a text is longer than those it was trained on."""
    said = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0} | rope
    config = transformers.LlamaConfig(
        **_SIZES, num_key_value_heads=2, vocab_size=71, intermediate_size=40, max_position_embeddings=16,
        rope_parameters=said,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def test_a_class_decides_by_the_places_of_tokens(tmp_path: Path) -> None:
    source = _saved(stretched(), tmp_path / "source")
    for number in range(2):  # the second time from the cache
        written = clone_checkpoint(source, tmp_path / f"wide{number}", widen=2)
        assert written.verification is not None and written.verification.ok
        assert any("decides by the places of tokens" in note for note in written.notes)
        for length in (5, 33, 9):
            ids = torch.arange(2 * length).remainder(71).view(2, length)
            small, wide = (
                loaded(folder)[0].eval()(input_ids=ids).logits for folder in (source, tmp_path / f"wide{number}")
            )
            torch.testing.assert_close(wide, small, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["default", "dynamic"])
def test_what_is_computed_anew_for_other_places_may_not_grow(kind: str, tmp_path: Path) -> None:
    """Heads of twice the size turn by a table that begins as the narrow one, if it is the same for all texts."""
    source, out = _saved(stretched(rope_type=kind), tmp_path / "source"), tmp_path / "wide"
    like = tmp_path / "like.json"
    like.write_text(json.dumps(json.loads((source / "config.json").read_text()) | {"head_dim": 12}))
    if kind == "default":
        written = clone_checkpoint(source, out, like=str(like))
        assert written.verification is not None and written.verification.ok
        return
    with pytest.raises(GraphcloneError, match="inv_freq would grow, which the class computes anew for other places"):
        clone_checkpoint(source, out, like=str(like))
    assert not out.exists()
