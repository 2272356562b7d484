"""What graphclone says where an extra is not installed: one line that names it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from graphclone.errors import GraphcloneError
from graphclone.extras import MissingExtraError, required
from graphclone.report import html
from graphclone.runtime import sessions
from tests.support.command_line import Refused, prepare, refusal


def hide(monkeypatch: pytest.MonkeyPatch, *libraries: str) -> None:
    """Make libraries impossible to import, whatever is loaded of them."""
    for name in [*sys.modules]:
        if name.partition(".")[0] in libraries:
            monkeypatch.delitem(sys.modules, name)
    for library in libraries:
        monkeypatch.setitem(sys.modules, library, None)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    folder = prepare(tmp_path, monkeypatch)
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": torch.ones(1)}, folder / "checkpoint" / "model.safetensors")
    return refusal(capfd, folder)


CHECKPOINT = "a Hugging Face checkpoint needs transformers"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("inspect checkpoint", CHECKPOINT),
        ("clone checkpoint -o wide", CHECKPOINT),
        ("clone checkpoint -o wide --like checkpoint", CHECKPOINT),
        ("verify checkpoint checkpoint", CHECKPOINT),
        ("inspect opt-mini", "this model needs transformers"),
        ("clone opt-mini -o wide.onnx", "this model needs transformers"),
        ("inspect some/model", "a hub id needs huggingface_hub"),
    ],
)
def test_without_hf(command: str, what: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "transformers", "huggingface_hub")
    message = f"graphclone: {what}, which is not installed: pip install 'graphclone[hf]'\n"
    assert refused(*command.split()) == message


@pytest.mark.parametrize("argv", [["inspect", "my_models:mlp"], ["clone", "my_models:mlp", "-o", "wide.safetensors"]])
def test_without_report(argv: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_PACKAGE", "a-package-that-is-not-there")
    message = refused(*argv, "--html", "page.html")
    assert message.endswith("which is not installed: pip install 'graphclone[report]'\n")


def test_without_study(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "accelerate")
    message = "graphclone: a study needs accelerate, which is not installed: pip install 'graphclone[study]'\n"
    assert refused("study", "mini") == message


def test_without_eval(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "lm_eval")
    Path("checkpoint/task.yaml").touch()
    message = "graphclone: a score needs lm_eval, which is not installed: pip install 'graphclone[eval]'\n"
    assert refused("score", "checkpoint", "--tasks", "checkpoint") == message


def test_a_callback_without_study(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "accelerate")
    monkeypatch.delitem(sys.modules, "graphclone.callbacks", raising=False)
    with pytest.raises(ImportError, match=r"a callback needs .*: pip install 'graphclone\[study\]'"):
        importlib.import_module("graphclone.callbacks")


def test_without_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There is a GPU, and ONNX Runtime does not find the libraries that it takes."""
    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr(sessions, "_providers", lambda provider: [provider])
    monkeypatch.setattr(sessions, "_load", lambda *_, **__: SimpleNamespace(get_providers=lambda: ["CPU"]))
    with pytest.raises(GraphcloneError, match=r"fell back to CPU; pip install 'graphclone\[cuda\]'"):
        sessions.Session(tmp_path / "model.onnx", "cuda")


def test_a_library_that_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_library.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError) as refusal:
        required("broken_library", "hf", "this")
    why = "cannot be imported (ModuleNotFoundError: No module named 'nowhere_at_all')"
    assert str(refusal.value) == f"this needs broken_library, which {why}: pip install 'graphclone[hf]'"
