"""A hub id in place of a folder, with huggingface_hub's own client and a hub that is on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from graphclone.formats.huggingface.writer import clone_checkpoint
from tests.support.checkpoints import contents, saved
from tests.support.hub import Hub, serving


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with what repositories hold besides."""
    folder = saved("gpt2", tmp_path_factory.mktemp("hub") / "source")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights once more")
    (folder / "tf_model.h5").write_bytes(b"and again")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"and again")
    return folder


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    with serving({"some/model": source}) as found:
        yield found


def command(hub: Hub, cache: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own: the client reads its settings when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
    arguments = [sys.executable, "-W", "ignore", "-m", "graphclone.cli", *argv]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_a_hub_id_is_downloaded_once_and_widened(hub: Hub, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = command(hub, tmp_path / "cache", "clone", "some/model", "-o", str(out), "--no-verify")
    assert done.returncode == 0, done.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.sent)
    assert not {"pytorch_model.bin", "tf_model.h5", "onnx/model.safetensors"} & set(hub.sent)
    assert (out / "tokenizer.json").exists()
    assert "some/model" in (out / "README.md").read_text()
    sent = len(hub.sent)
    hub.close()
    again = command(hub, tmp_path / "cache", "clone", "some/model", "-o", str(tmp_path / "again"), "--no-verify")
    assert again.returncode == 0, again.stderr
    assert len(set(hub.sent)) == len(hub.sent) == sent
    clone_checkpoint(source, tmp_path / "same", verify=False)
    for folder in ("again", "same"):
        assert contents(out)["model.safetensors"] == contents(tmp_path / folder)["model.safetensors"]
    model = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    wide = transformers.AutoModelForCausalLM.from_pretrained(out).eval()
    tokens = torch.randint(61, (2, 9))
    torch.testing.assert_close(wide(tokens).logits, model(tokens).logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_to_inspect_a_hub_id_no_weights_are_downloaded(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, tmp_path / "cache", "inspect", "some/model")
    assert done.returncode == 0, done.stderr
    assert "no weights are here" in done.stdout
    assert "config.json" in hub.sent
    assert not [name for name in hub.sent if name.endswith((".safetensors", ".bin", ".h5"))]


def test_a_repository_that_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    done = command(hub, tmp_path / "cache", "clone", "no/model", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("graphclone: no/model: no such folder, and the hub gives none")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.slow
def test_pickled_weights_are_downloaded_where_there_are_no_others(tmp_path: Path) -> None:
    source = saved("gpt2", tmp_path / "source")
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    torch.save(model.state_dict(), source / "pytorch_model.bin")
    with serving({"some/model": source}) as hub:
        done = command(hub, tmp_path / "cache", "clone", "some/model", "-o", str(tmp_path / "out"), "--no-verify")
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" in hub.sent
    assert (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.slow
def test_weights_of_a_variant_are_named_and_not_downloaded(tmp_path: Path) -> None:
    source = saved("gpt2", tmp_path / "source")
    (source / "model.safetensors").rename(source / "model.fp16.safetensors")
    with serving({"some/model": source}) as hub:
        done = command(hub, tmp_path / "cache", "clone", "some/model", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "some/model: weights of a variant" in done.stderr and "(model.fp16.safetensors)" in done.stderr
    assert "model.fp16.safetensors" not in hub.sent


@pytest.mark.slow
def test_the_modules_of_a_sentence_encoder_are_downloaded(tmp_path: Path) -> None:
    source = saved("bert-headless", tmp_path / "source")
    kind = "sentence_transformers.models.Pooling"
    (source / "modules.json").write_text(json.dumps([{"path": "1_Pooling", "type": kind}]))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 40}')
    with serving({"some/model": source}) as hub:
        io = ("--widen-io", "last_hidden_state,pooler_output")
        done = command(hub, tmp_path / "cache", "clone", "some/model", "-o", str(tmp_path / "out"), "--no-verify", *io)
    assert done.returncode == 0, done.stderr
    assert '"word_embedding_dimension": 80' in (tmp_path / "out" / "1_Pooling" / "config.json").read_text()
