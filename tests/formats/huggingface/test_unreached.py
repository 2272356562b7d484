"""Parts of a class that its ``forward`` never calls: what grows, what may be left out, and what shows if it is read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import graphclone as gc
from graphclone.algebra.growth import Growth, Leaf
from graphclone.algebra.recipes import Widening
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.huggingface import unreached
from graphclone.formats.huggingface.verifier import verify_folders
from graphclone.formats.huggingface.writer import clone_checkpoint
from graphclone.models.randomise import randomise
from tests.support.checkpoints import loaded

_SIZES = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "max_position_embeddings": 40}
_HEAD = {"esm.contact_head.regression.weight", "esm.contact_head.regression.bias"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a head of its own method, which reads the maps of all layers and heads."""
    config = transformers.EsmConfig(
        **_SIZES, **_HEADS, pad_token_id=1, mask_token_id=4, position_embedding_type="rotary"
    )
    folder = tmp_path_factory.mktemp("esm") / "source"
    randomise(transformers.EsmForMaskedLM(config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wide(source: Path) -> Path:
    """Its clone, without that head."""
    out = source.with_name("wide")
    written = clone_checkpoint(source, out, omit=["esm.contact_head"])
    assert written.verification is not None and written.verification.ok
    (note,) = written.notes
    assert note.startswith("left out, as you ask, and begun anew by from_pretrained: esm.contact_head.regression")
    return out


def outputs(folder: Path, count: int = 9) -> torch.Tensor:
    model, _ = loaded(folder)
    with torch.no_grad():
        result: torch.Tensor = model.double().eval()(torch.arange(5, 5 + count)[None]).logits
    return result


def test_a_part_that_is_left_out_is_the_only_one_that_is_lost(source: Path, wide: Path) -> None:
    torch.testing.assert_close(outputs(wide), outputs(source), rtol=0, atol=1e-9)
    stored = load_file(wide / "model.safetensors")
    assert load_file(source / "model.safetensors").keys() - stored.keys() == _HEAD
    assert stored.keys() < load_file(source / "model.safetensors").keys()


@pytest.mark.parametrize("sample", [False, True])
def test_folders_without_it_are_equivalent(source: Path, wide: Path, sample: bool) -> None:
    assert verify_folders(source, wide, sample=sample).ok


@pytest.mark.parametrize("sample", [False, True])
def test_a_weight_that_is_lost_and_read_shows(source: Path, wide: Path, sample: bool, tmp_path: Path) -> None:
    """Though its class begins it with the numbers that it had."""
    name, folders = "lm_head.layer_norm.bias", (tmp_path / "source", tmp_path / "wide")
    for folder, given in zip(folders, (source, wide), strict=True):
        shutil.copytree(given, folder)
        tensors = load_file(given / "model.safetensors")
        tensors[name].zero_()
        if given is wide:
            del tensors[name]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    report = verify_folders(*folders, sample=sample)
    assert not report.ok
    assert "missing" in str(report.checks[0].summary)


def test_a_clone_without_it_is_cloned_on(source: Path, wide: Path, tmp_path: Path) -> None:
    """Deeper, too, where the head would have more columns."""
    written = clone_checkpoint(wide, tmp_path / "out", widen=2, depth=3)
    assert written.notes[0].startswith("left out, as the source lacks it")
    torch.testing.assert_close(outputs(tmp_path / "out"), outputs(source), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [],
            r"of it should grow; give inputs that reach it; omit=\['esm.contact_head'\] leaves it out",
        ),
        (["esm.encoder"], "omit: .* computes with esm.encoder.layer.0.attention.self.query.weight"),
        (["esm.contact"], "omit: .* has no part 'esm.contact'"),
    ],
)
def test_what_may_not_be_left_out(source: Path, parts: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=message):
        gc.clone(source, omit=parts)
    with pytest.raises(GraphcloneError, match=message):
        clone_checkpoint(source, tmp_path / "out", omit=parts)
    assert not (tmp_path / "out").exists()


def test_the_command_line(source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["clone", str(source), "-o", str(tmp_path / "out"), "--no-verify"]
    assert main(command) == 2
    assert "--omit esm.contact_head leaves it out" in capfd.readouterr().err
    assert main([*command, "--omit", "esm.contact_head.*"]) == 0
    assert "--omit 'esm.contact_head.*'" in (tmp_path / "out" / "README.md").read_text()


def test_the_state_of_what_is_left_out_is_refused(source: Path, tmp_path: Path) -> None:
    model, _ = loaded(source)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(GraphcloneError, match="may have a state of esm"):
        clone_checkpoint(source, tmp_path / "out", omit=["esm.contact_head"], optimizer=tmp_path / "optimizer.pt")


def saved(folder: Path, model: Any) -> Path:
    randomise(model).save_pretrained(folder)
    return folder


def test_zeros_that_nobody_reads_are_zeros(tmp_path: Path) -> None:
    """Places for numbers that are computed once the model is quantised, as wide as its weights."""
    config = transformers.IBertConfig(**_SIZES, **_HEADS)
    model = transformers.IBertForMaskedLM(config)
    source, out = saved(tmp_path / "source", model), tmp_path / "out"
    tensors = load_file(source / "model.safetensors")
    save_file(
        {n: torch.zeros_like(t) if n.endswith("_integer") else t for n, t in tensors.items()},
        source / "model.safetensors",
        {"format": "pt"},
    )
    written = clone_checkpoint(source, out)
    assert written.verification is not None and written.verification.ok
    name = "ibert.embeddings.word_embeddings.weight_integer"
    assert load_file(out / "model.safetensors")[name].shape == (61, 48)
    assert not load_file(out / "model.safetensors")[name].any()


def test_rows_for_longer_texts_are_no_dim(tmp_path: Path) -> None:
    """The trace leaves them out, as its texts are short; the clone reads them as its source does."""
    config = transformers.DebertaConfig(**_SIZES, **_HEADS, relative_attention=True, pos_att_type=["c2p", "p2c"])
    source, out = saved(tmp_path / "source", transformers.DebertaForMaskedLM(config)), tmp_path / "out"
    written = clone_checkpoint(source, out)
    assert written.verification is not None and written.verification.ok
    assert load_file(out / "model.safetensors")["deberta.encoder.rel_embeddings.weight"].shape == (80, 48)
    torch.testing.assert_close(outputs(out, 37), outputs(source, 37), rtol=0, atol=1e-5)


def test_layers_that_grow_in_several_ways_say_nothing_of_one_beside_them() -> None:
    plain = Widening("", (Leaf(Growth(4, 2)), Leaf(Growth(6, 1))))
    halved = replace(plain, scale=0.5)
    assert unreached._common([plain, replace(plain)]) == plain
    assert unreached._common([plain, halved]) is None
    assert unreached._common([]) is None


@pytest.fixture(scope="module")
def in_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a table of its heads that only a second block of tokens reads, and that its class computes."""
    config = transformers.MiniMaxConfig(
        **_SIZES,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        num_local_experts=2,
        num_experts_per_tok=1,
        layer_types=["linear_attention", "full_attention"],
        block_size=8,
    )
    folder = tmp_path_factory.mktemp("minimax") / "source"
    randomise(transformers.MiniMaxForCausalLM(config)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("omit", "stored", "text"),
    [
        ([], True, r"key_decay is not reached by the example inputs.*give inputs that reach it$"),
        (["model.layers.0.self_attn.key_decay"], True, "key_decay .* its class computes it anew from widths that grew"),
        ([], False, "key_decay .* its class computes it anew from widths that grew"),
    ],
)
def test_a_table_of_widths_is_not_begun_anew(
    in_blocks: Path, tmp_path: Path, omit: list[str], stored: bool, text: str
) -> None:
    source = Path(shutil.copytree(in_blocks, tmp_path / "source"))
    if not stored:
        tensors = load_file(source / "model.safetensors")
        del tensors["model.layers.0.self_attn.key_decay"]
        save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(GraphcloneError, match=text):
        clone_checkpoint(source, tmp_path / "wide", widen=2, omit=omit)
    assert not (tmp_path / "wide").exists()


@pytest.fixture(scope="module")
def with_loss_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a second head, whose classes nothing but a loss reads."""
    config = transformers.BeitConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=36, image_size=64, patch_size=16,
        out_indices=[1, 2, 3, 4], num_labels=5, auxiliary_channels=12, pool_scales=[1], auxiliary_num_convs=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("beit") / "source"
    randomise(transformers.BeitForSemanticSegmentation(config)).save_pretrained(folder)
    return folder


def test_what_only_a_loss_reads_keeps_its_classes(with_loss_head: Path) -> None:
    wide = with_loss_head.with_name("wide")
    written = clone_checkpoint(with_loss_head, wide, widen=2)
    assert written.verification is not None and written.verification.ok
    weights = load_file(wide / "model.safetensors")
    assert weights["auxiliary_head.classifier.weight"].shape == (5, 24, 1, 1)
    pictures, labels = torch.randn(2, 3, 64, 64), torch.randint(5, (2, 64, 64))
    losses = [
        loaded(folder)[0].double().eval()(pictures.double(), labels=labels).loss for folder in (with_loss_head, wide)
    ]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)  # weights are of 32 bits


def test_classes_that_are_asked_for_are_refused(with_loss_head: Path) -> None:
    with pytest.raises(GraphcloneError, match=r"auxiliary_head\.classifier\.weight would be 10 instead of 5"):
        gc.clone(with_loss_head, widen={"auxiliary_head.classifier": 2})
