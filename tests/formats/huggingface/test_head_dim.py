"""Heads that grow in size in the stock class, which computes its rotary tables anew: tables are compared, not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from graphclone.verification.lockstep import run_lockstep
from tests.support.marks import slow_but

EXACT = 1e-12


def maker(cls: Any, **fields: Any) -> Callable[..., Any]:
    """Makes small models of a class, with fields changed."""
    return lambda **changes: cls(cls.config_class(**{**fields, **changes}))


_TEXT = {"vocab_size": 97, "hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 80, "num_hidden_layers": 2}
_GPT = {"vocab_size": 97, "n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 64}

llama = maker(transformers.LlamaForCausalLM, **_TEXT, num_key_value_heads=2, head_dim=12)
qwen = maker(transformers.Qwen3ForCausalLM, **_TEXT, num_key_value_heads=2, head_dim=12)
neox = maker(transformers.GPTNeoXForCausalLM, **_TEXT, rotary_pct=0.5)
gptj = maker(transformers.GPTJForCausalLM, **_GPT, rotary_dim=8)
gpt2 = maker(transformers.GPT2LMHeadModel, **_GPT)


def rotary(theta: float = 10000.0, kind: str = "default", **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **more}}


BY_PARTS = {"factor": 4.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

LEGAL: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "same base, every second pair": (llama, {}, {"head_dim": 24}),
    "three times": (llama, {}, {"head_dim": 36}),
    "with heads and width": (
        llama,
        {},
        {"head_dim": 24, "hidden_size": 66, "num_attention_heads": 6, "num_key_value_heads": 3},
    ),
    "a base that keeps the first pairs": (llama, {}, {"head_dim": 18, **rotary(1e6)}),
    "normed heads": (qwen, {}, {"head_dim": 24}),
    "part of the head": (neox, {}, {"hidden_size": 96}),
    "pairs side by side": (gptj, {}, {"n_embd": 96, "rotary_dim": 16}),
    "what is not turned": (gptj, {}, {"n_embd": 64}),
    "no table": (gpt2, {}, {"n_embd": 64}),
    "scaled by parts": (llama, rotary(kind="llama3", **BY_PARTS), {"head_dim": 24}),
}


QUICK = ("same base, every second pair", "part of the head", "no table")


@pytest.mark.parametrize("name", slow_but(QUICK, LEGAL))
def test_a_larger_head_has_the_pairs_of_the_smaller_one(name: str) -> None:
    make, own, wider = LEGAL[name]
    small, big = randomise(make(**own)).eval(), make(**{**own, **wider}).eval()
    tokens = {"input_ids": torch.randint(0, 97, (2, 7)), "use_cache": False}
    clone = gc.clone(small, (), tokens, into=big)
    result = run_lockstep(clone.state, [tokens["input_ids"]])
    assert result.first is None, result
    assert result.worst <= EXACT, result
    longer = torch.randint(0, 97, (3, 29))
    with torch.no_grad():
        expected, found = (model(longer).logits for model in (small, big))
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_pads_of_a_head_can_learn() -> None:
    """Zeros in the queries meet keys that are not 0, so that a gradient reaches them."""
    small, big = randomise(llama()).eval(), llama(head_dim=24).eval()
    tokens = torch.randint(0, 97, (2, 7))
    gc.clone(small, (), {"input_ids": tokens, "use_cache": False}, into=big)
    big(tokens).logits.square().sum().backward()
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weight = getattr(big.model.layers[0].self_attn, name).weight
        rows = 0 if name != "o_proj" else 1
        if name == "k_proj":  # behind queries of 0 for one step
            assert (weight.abs().sum(1 - rows) > 0).all()
        else:
            assert (weight.grad.abs().sum(1 - rows) > 0).all(), name


ILLEGAL = {
    "no whole multiple of a pair": (llama, {}, {"head_dim": 18}),
    "another base": (llama, {}, {"head_dim": 24, **rotary(5e4)}),
    "a ramp over the size": (
        llama,
        rotary(kind="yarn", factor=4.0, original_max_position_embeddings=32),
        {"head_dim": 24, **rotary(kind="yarn", factor=4.0, original_max_position_embeddings=32)},
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_tables_that_lack_a_pair_are_refused(name: str) -> None:
    make, own, wider = ILLEGAL[name]
    tokens = {"input_ids": torch.randint(0, 97, (2, 7)), "use_cache": False}
    with pytest.raises(GraphcloneError, match=r"inv_freq: the wide model computes this table from its widths"):
        gc.clone(make(**own).eval(), (), tokens, into=make(**{**own, **wider}).eval())


HEAD = "model.layers.head_dim"
VALUES = "layers.*.self_attn.v_head_dim"

ASKED: dict[str, tuple[Callable[..., Any], Mapping[str, Any], dict[str, tuple[Any, Any]]]] = {
    "twice": (llama, {HEAD: 2, VALUES: 2}, {"head_dim": (12, 24)}),
    "by 3/2": (
        llama,
        {HEAD: "3/2", VALUES: "3/2"},
        {"rope_parameters.rope_theta": (1e4, 1e6), "head_dim": (12, 18)},
    ),
    "fused": (
        neox,
        {
            "hidden": 2,
            "gpt_neox.layers.head_dim": 2,
            "layers.*.attention.query_key_value": 2,
            "layers.*.attention.v_head_dim": 2,
        },
        {"hidden_size": (48, 96)},
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_the_configuration_of_a_larger_head_is_solved_for(name: str, tmp_path: Path) -> None:
    make, widen, changes = ASKED[name]
    randomise(make()).save_pretrained(tmp_path / "source")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "wide", widen=widen)
    assert written.plan.changes == changes
    assert written.verification is not None
    assert written.verification.ok


@pytest.mark.parametrize("width", [5, 7, 11])
def test_heads_grow_in_number_whatever_their_width(width: int, tmp_path: Path) -> None:
    """Twice or three times as many do not share the source's width, but half of them do."""
    sizes = {"vocab_size": 61, "hidden_size": 4 * width, "word_embed_proj_dim": 4 * width, "ffn_dim": 36}
    config = transformers.OPTConfig(**sizes, num_attention_heads=4, num_hidden_layers=1, max_position_embeddings=40)
    randomise(transformers.OPTForCausalLM(config)).save_pretrained(tmp_path / "source")
    written = clone_checkpoint(tmp_path / "source", tmp_path / "out", widen=2)
    assert written.plan.changes["num_attention_heads"] == (4, 8)
    assert written.verification is not None and written.verification.ok
