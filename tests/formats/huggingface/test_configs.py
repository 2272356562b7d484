"""Configurations that are hard to solve for: classes that check them, tables that leave one way to grow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers

from graphclone.clones.summary import clone_rows
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.plan import Plan
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import planned

_TEXT = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 1, "bos_token_id": 1, "eos_token_id": 2}
_PAD = {"pad_token_id": 0}
_STATE = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 6, "chunk_size": 16, "expand": 2}
_MIXER = {"d_ssm": 40, "n_heads": 5, "d_head": 8, "n_groups": 1, "d_state": 6, "chunk_size": 16}


def _state_space() -> Any:
    """``hidden_size * expand`` must equal ``num_heads * head_dim``."""
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**_TEXT, **_STATE, **_PAD))


def _hybrid() -> Any:
    """``mamba_d_ssm`` must equal ``mamba_n_heads * mamba_d_head``."""
    mixer = {f"mamba_{key}": value for key, value in _MIXER.items()}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    return transformers.FalconH1ForCausalLM(transformers.FalconH1Config(**_TEXT, **mixer, **heads, **_PAD))


def _sloped() -> Any:
    """The slopes of ALiBi depend on the number of heads."""
    config = transformers.MptConfig(vocab_size=61, d_model=40, n_heads=5, n_layers=1, expansion_ratio=2)
    return transformers.MptForCausalLM(config)


def _sloped_in_the_product() -> Any:
    """The same, with ``1 / sqrt(head_dim)`` as the alpha of a product."""
    return transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=61, hidden_size=40, n_layer=1, n_head=5))


def _sinusoids() -> Any:
    """The table of positions depends on the width."""
    config = transformers.CTRLConfig(vocab_size=61, n_positions=16, n_embd=40, dff=52, n_layer=1, n_head=5)
    return transformers.CTRLLMHeadModel(config)


def _with_vectors_of_heads() -> Any:
    """Vectors that every head is weighed by are as wide as a head, which has no width of its own."""
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}
    return transformers.DiffLlamaForCausalLM(transformers.DiffLlamaConfig(**{**_TEXT, **sizes, "head_dim": 6}))


def saved(module: Any, folder: Path) -> Path:
    """A model as ``save_pretrained`` leaves it, with random weights; the folder it is in."""
    randomise(module).save_pretrained(folder)
    return folder


def verified(module: Any, folder: Path, widen: int | Mapping[str, int] = 2) -> Plan:
    """The plan of a clone that has been written, loaded by the stock class and compared."""
    written = clone_checkpoint(saved(module, folder / "source"), folder / "out", widen=widen)
    assert written.verification is not None and written.verification.ok, written.verification
    return written.plan


@pytest.mark.parametrize(
    ("dim", "field"), [("layers.*.mixer.conv1d", "num_heads"), ("layers.*.mixer.conv1d#2", "head_dim")]
)
def test_a_class_that_wants_its_numbers_to_agree(dim: str, field: str, tmp_path: Path) -> None:
    """Either field makes the wider model valid; which of them it is shows in one shape, or in none."""
    changes = verified(_state_space(), tmp_path, {"hidden": 2, dim: 2}).changes
    assert changes == {"hidden_size": (32, 64), field: (8, 16)}


def test_a_number_stays_where_nothing_absorbs_what_its_growth_brings(tmp_path: Path) -> None:
    plan = verified(_state_space(), tmp_path)
    assert "state_size" not in plan.changes and plan.changes["hidden_size"] == (32, 64)
    assert any(note.startswith("state_size stays as it is: with it, ") for note in plan.notes)


def test_a_class_that_wants_some_of_its_many_numbers_to_agree(tmp_path: Path) -> None:
    changes = verified(_hybrid(), tmp_path).changes
    assert changes["mamba_d_ssm"] == (40, 80) and changes["mamba_n_heads"] == (5, 10)
    assert "mamba_d_head" not in changes and "mamba_expand" not in changes


def test_heads_grow_in_number_where_the_slopes_of_more_are_those_of_fewer_and_others(tmp_path: Path) -> None:
    """The heads of the source keep their slopes; those between begin with values of 0."""
    assert verified(_sloped(), tmp_path).changes == {"d_model": (40, 80), "n_heads": (5, 10)}


def test_heads_grow_in_size_where_a_table_keeps_their_number(tmp_path: Path) -> None:
    """As many heads with as many slopes, each twice as wide: the weights have the shapes that were asked for."""
    assert verified(_sloped_in_the_product(), tmp_path).changes == {"hidden_size": (40, 80)}


def test_heads_that_are_asked_for_by_name_do_not_grow_in_size_instead(tmp_path: Path) -> None:
    source = saved(_sloped(), tmp_path / "source")
    numbered = planned(source, {"hidden": 2, "blocks.*.attn.Wqkv": 2, "blocks.*.ffn": 2})
    assert numbered.changes == {"d_model": (40, 80), "n_heads": (5, 10)}
    sized = planned(source, {"hidden": 2, "blocks.*.attn.Wqkv#*": 2, "blocks.*.ffn": 2})
    assert sized.changes == {"d_model": (40, 80)}


def test_a_table_that_depends_on_all_that_could_grow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match="pos_encoding: the wide model computes this table from its widths"):
        planned(saved(_sinusoids(), tmp_path / "source"))


@pytest.mark.parametrize(("factor", "said"), [(2, 2), ("3/2", "3/2")])
def test_a_refusal_of_one_factor_says_which_dims_a_configuration_can_widen_by_it(
    factor: int | str, said: int | str, tmp_path: Path
) -> None:
    source = saved(_with_vectors_of_heads(), tmp_path / "source")
    with pytest.raises(GraphcloneError, match=r"no config\.json can say this") as refusal:
        clone_checkpoint(source, tmp_path / "out", widen=factor)
    assert refusal.value.remedy is not None
    assert refusal.value.remedy.parameter == "widen"
    possible = refusal.value.remedy.value
    assert {"hidden", "layers.*.mlp"} < set(possible) and set(possible.values()) == {said}
    written = clone_checkpoint(source, tmp_path / "out", widen=possible)
    assert written.verification is not None and written.verification.ok
    with pytest.raises(GraphcloneError, match="can say") as refusal:
        clone_checkpoint(source, tmp_path / "other", widen={"hidden": 2, "layers.*.self_attn": 2})
    assert refusal.value.remedy is None


@pytest.mark.slow
def test_dims_that_no_number_says_are_left_out_together(tmp_path: Path) -> None:
    """Widths of convolutions that stand in the code, in several parts; all others can grow."""
    backbone = transformers.BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=36, image_size=32, patch_size=8,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone, neck_hidden_sizes=[12, 20, 28, 44], fusion_hidden_size=24, bottleneck_features=24,
        bin_embedding_dim=14, num_attractors=[6, 4, 3, 2], num_relative_features=10, num_patch_transformer_layers=1,
    )  # fmt: skip
    source = saved(transformers.ZoeDepthForDepthEstimation(config), tmp_path / "source")
    written = clone_checkpoint(source, tmp_path / "out", widen=2)
    assert written.verification is not None and written.verification.ok
    (note,) = (note for note in written.notes if "as wide as before, since no number of the configuration" in note)
    grown = {row["name"] for row in clone_rows(written.plan.widened) if row["new_size"] != row["size"]}
    assert {"layers.*.mlp", "relative_head", "metric_head"} < grown
    assert grown.isdisjoint(note.partition(":")[0].split(", "))


def test_a_width_that_stands_in_the_code_keeps_its_size_under_one_factor(tmp_path: Path) -> None:
    """Asked for by name, it is refused."""
    config = transformers.WavLMConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=20, num_hidden_layers=1, conv_dim=[8, 8],
        num_buckets=8, conv_kernel=[10, 3], conv_stride=[5, 2], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, vocab_size=12, classifier_proj_size=12, mask_time_prob=0.0,
    )  # fmt: skip
    source = saved(transformers.WavLMForCTC(config), tmp_path / "source")
    written = clone_checkpoint(source, tmp_path / "out", widen=2)
    assert written.verification is not None and written.verification.ok
    assert written.plan.fields["hidden_size"] == 32
    (note,) = (note for note in written.notes if "gru_rel_pos_linear" in note)
    assert note.endswith(": as wide as before, since no number of the configuration says how wide")
    with pytest.raises(GraphcloneError, match="which no number of the configuration says"):
        clone_checkpoint(source, tmp_path / "other", widen={"layers.*.attention.gru_rel_pos_linear*": 2})
