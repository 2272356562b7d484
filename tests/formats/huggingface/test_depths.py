"""Checkpoints that become deeper: the configuration is solved for, and the stock class computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import loaded
from tests.support.marks import slow_but

_TEXT = {
    "vocab_size": 97,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def plain() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_TEXT))


def in_turn() -> Any:
    """Blocks of two kinds in turn, which a list of the configuration names."""
    kinds = ["sliding_attention", "full_attention"] * 2
    fields = {**_TEXT, "num_hidden_layers": 4, "layer_types": kinds, "sliding_window": 8, "head_dim": 12}
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**fields))


def in_turn_by_two_lists() -> Any:
    """The same, where another list says which blocks have rotary positions; the class wants both as long."""
    fields = {**_TEXT, "num_hidden_layers": 4, "no_rope_layer_interval": 2, "use_sliding_window": False}
    return transformers.SmolLM3ForCausalLM(transformers.SmolLM3Config(**fields))


def once_of_its_kind() -> Any:
    """One block alone has full attention: nothing else reads its table of rotations, and its mask."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    fields = {**_TEXT, "num_hidden_layers": 3, "layer_types": kinds, "sliding_window": 8}
    return transformers.Olmo3ForCausalLM(transformers.Olmo3Config(**fields))


def by_places() -> Any:
    """Lists of entries, and one of the places of blocks with experts; one block alone reads the mask of all tokens."""
    fields = {**_TEXT, "num_hidden_layers": 4, "head_dim": 12, "interleave_moe_layer_step": 2}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 64}
    return transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**fields, **experts))


def converted_in_turn() -> Any:
    """Every block hands on the table of rotations that it has moved to its device."""
    attention = {"q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 20}
    fields = {**_TEXT, "num_hidden_layers": 3, "num_key_value_heads": 4, "first_k_dense_replace": 1}
    return transformers.DeepseekV2ForCausalLM(transformers.DeepseekV2Config(**fields, **attention, **experts))


def plain_at_places() -> Any:
    """A list of the places of blocks without experts, which are as many as there are blocks."""
    fields = {**_TEXT, "moe_intermediate_size": 20, "num_experts": 4, "num_experts_per_tok": 2}
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**fields, mlp_only_layers=[0, 1], head_dim=12))


def in_stages() -> Any:
    """Stacks within a stack, whose blocks give another width than they take; a list counts the blocks of each."""
    sizes = {"image_size": 32, "patch_size": 4, "num_stages": 3, "hidden_sizes": [8, 16, 24]}
    return transformers.ConvNextForImageClassification(transformers.ConvNextConfig(**sizes, depths=[2, 1, 2]))


def two_stacks() -> Any:
    fields = {"vocab_size": 97, "d_model": 48, "d_kv": 8, "d_ff": 64, "num_heads": 4, "decoder_start_token_id": 0}
    config = transformers.T5Config(**fields, num_layers=2, num_decoder_layers=2)
    return transformers.T5ForConditionalGeneration(config)


def experts() -> Any:
    """Weights that are stored expert by expert, and joined as they are loaded."""
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**_TEXT, num_local_experts=4))


def bounded() -> Any:
    """A list of two numbers that has nothing to do with the two blocks."""
    fields = {"hidden_size": 48, "num_heads": 8, "head_dim": 12, "state_size": 16, "n_groups": 2, "chunk_size": 8}
    tokens = {name: _TEXT[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**fields, **tokens, num_hidden_layers=2))


def first_unlike() -> Any:
    """The first block has no norm in front."""
    fields = {**_TEXT, "global_attn_every_n_layers": 2, "local_attention": 16}
    del fields["num_key_value_heads"]
    return transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**fields, cls_token_id=1, sep_token_id=2))


def normed_after() -> Any:
    fields = {name: _TEXT[name] for name in ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers")}
    return transformers.BertForMaskedLM(transformers.BertConfig(**fields, intermediate_size=80))


CASES: dict[str, tuple[Callable[[], Any], Any, Any, dict[str, tuple[Any, Any]]]] = {
    "plain": (plain, 5, None, {"num_hidden_layers": (2, 5)}),
    "in turn": (
        in_turn,
        6,
        None,
        {
            "num_hidden_layers": (4, 6),
            "layer_types": (
                ["sliding_attention", "full_attention"] * 2,
                ["sliding_attention", "full_attention"] * 3,
            ),
        },
    ),
    "in turn by two lists": (
        in_turn_by_two_lists,
        6,
        None,
        {
            "num_hidden_layers": (4, 6),
            "layer_types": (["full_attention"] * 4, ["full_attention"] * 6),
            "no_rope_layers": ([1, 0] * 2, [1, 0] * 3),
        },
    ),
    "once of its kind": (
        once_of_its_kind,
        5,
        None,
        {
            "num_hidden_layers": (3, 5),
            "layer_types": (
                ["sliding_attention", "full_attention", "sliding_attention"],
                ["sliding_attention", *["full_attention"] * 2, *["sliding_attention"] * 2],
            ),
        },
    ),
    "by places": (
        by_places,
        8,
        None,
        {
            "num_hidden_layers": (4, 8),
            "layer_types": (
                ["chunked_attention"] * 3 + ["full_attention"],
                ["chunked_attention"] * 6 + ["full_attention"] * 2,
            ),
            "no_rope_layers": ([1, 1, 1, 0], [1] * 6 + [0, 0]),
            "moe_layers": ([1, 3], [2, 3, 6, 7]),
        },
    ),
    "converted in turn": (converted_in_turn, 5, None, {"num_hidden_layers": (3, 5)}),
    "the first of another kind": (
        converted_in_turn,
        6,
        None,
        {"num_hidden_layers": (3, 6), "first_k_dense_replace": (1, 2)},
    ),
    "as many places as blocks": (
        plain_at_places,
        4,
        None,
        {"num_hidden_layers": (2, 4), "mlp_only_layers": ([0, 1], [0, 1, 2, 3])},
    ),
    "in stages": (
        in_stages,
        {"convnext.encoder.stages.*.layers": 3},
        None,
        {"depths.0": (2, 3), "depths.1": (1, 3), "depths.2": (2, 3)},
    ),
    "two stacks": (
        two_stacks,
        {"encoder.block": 3, "decoder.block": 4},
        None,
        {"num_layers": (2, 3), "num_decoder_layers": (2, 4)},
    ),
    "experts, wider as well": (
        experts,
        3,
        2,
        {
            "hidden_size": (48, 96),
            "intermediate_size": (80, 160),
            "num_hidden_layers": (2, 3),
            "num_attention_heads": (4, 8),
            "num_key_value_heads": (2, 4),
        },
    ),
    "bounded": (bounded, 3, None, {"num_hidden_layers": (2, 3)}),
}


@pytest.mark.parametrize(
    "name", slow_but(("plain", "in turn", "once of its kind", "by places", "converted in turn", "in stages"), CASES)
)
def test_a_deeper_checkpoint_computes_the_same(name: str, tmp_path: Path) -> None:
    make, depth, widen, changes = CASES[name]
    randomise(make()).save_pretrained(tmp_path / "source")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=depth, widen=widen)
    assert written.plan.changes == changes
    assert written.verification is not None
    assert written.verification.ok
    _, problems = loaded(tmp_path / "deep")
    assert not problems


def test_blocks_keep_their_data_and_new_ones_are_closed(tmp_path: Path) -> None:
    randomise(plain()).save_pretrained(tmp_path / "source")
    clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=4, new_blocks="end", new_from="random")
    (small, _), (deep, _) = loaded(tmp_path / "source"), loaded(tmp_path / "deep")
    for old, new in zip(small.model.layers, deep.model.layers, strict=False):
        for name, tensor in old.state_dict().items():
            torch.testing.assert_close(new.state_dict()[name], tensor, rtol=0, atol=0)
    for block in deep.model.layers[2:]:
        assert not block.self_attn.o_proj.weight.any()
        assert not block.mlp.down_proj.weight.any()
        assert block.mlp.up_proj.weight.any()


def test_a_depth_that_no_configuration_says_is_refused_by_what_differs(tmp_path: Path) -> None:
    randomise(first_unlike()).save_pretrained(tmp_path / "source")
    with pytest.raises(
        GraphcloneError, match=r"with num_hidden_layers = 4 in config.json the class has model\.layers\.1"
    ):
        clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=4, new_blocks="start")


@pytest.mark.parametrize(
    ("make", "depth", "message"),
    [
        (plain, 1, "the depth is a whole number of at least 2, the source's"),
        (normed_after, 4, "cannot be repeated: .*norm"),
        (two_stacks, 4, "there are several stacks of blocks"),
        (plain, {"nothing": 4}, "no stack of blocks is called 'nothing'"),
    ],
)
def test_what_cannot_be_made_deeper(make: Callable[[], Any], depth: Any, message: str, tmp_path: Path) -> None:
    randomise(make()).save_pretrained(tmp_path / "source")
    with pytest.raises(GraphcloneError, match=message):
        clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=depth)
    assert not (tmp_path / "deep").exists()


def test_new_blocks_behind_all_others_are_named_where_they_work(tmp_path: Path) -> None:
    """The first block lacks a norm, and so would its copy."""
    fields = {**_TEXT, "num_hidden_layers": 3, "local_attention": 8, "cls_token_id": 3, "sep_token_id": 4}
    del fields["num_key_value_heads"]
    model = transformers.ModernBertDecoderForCausalLM(transformers.ModernBertDecoderConfig(**fields))
    randomise(model).save_pretrained(tmp_path / "source")
    with pytest.raises(GraphcloneError, match=r"1.attn_norm.weight, which no block would have; new_blocks='end' works"):
        clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=6)
    written = clone_checkpoint(tmp_path / "source", tmp_path / "deep", depth=6, new_blocks="end")
    assert written.verification is not None and written.verification.ok
