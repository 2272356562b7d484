"""What the tests of the command line share: a folder of models to name, and a command that must fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphclone.cli.__main__ import main

MODELS = """
import torch
from torch import nn


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 5)), (torch.ones(2, 6),)


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 14), nn.Linear(14, 5)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(14), nn.Linear(14, 14)) for _ in range(2))

    def forward(self, x):
        x = self.up(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.down(x)


async def later():
    return mlp()


def blocks():
    return Blocks(), (torch.ones(2, 6),)


def keyword():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Linear(6, 14)

        def forward(self, x=None, y=None):
            return {"sum": self.up(x).relu() + y, "other": x}

    return Named(), (), {"x": torch.ones(2, 6), "y": torch.ones(2, 14)}


@torch.library.custom_op("testcli::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.cumsum(-1)


mystery.register_fake(lambda x: torch.empty_like(x))


class Mysterious(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(6, 14), nn.Linear(14, 10), nn.Linear(10, 5)

    def forward(self, x):
        return self.down(self.mid(mystery(self.up(x))).relu())


def mysterious():
    return Mysterious(), (torch.ones(2, 6),)


class Chunked(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 20), nn.Linear(10, 5)

    def forward(self, x):
        gate, up = self.up(x).chunk(2, -1)
        return self.down(gate.sigmoid() * up)


def chunked():
    return Chunked(), (torch.ones(2, 6),)


def conv():
    return nn.Sequential(nn.Conv2d(3, 14, 5), nn.ReLU(), nn.Conv2d(14, 4, 1)), (torch.ones(2, 3, 9, 9),)


def reads_its_weights():
    linear = nn.Linear(6, 14)
    scale = float(linear.weight.abs().max())
    return nn.Sequential(linear, nn.Softplus(scale), nn.Linear(14, 5)), (torch.ones(2, 6),)


def untraceable():
    class Branch(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    return Branch(), (torch.ones(2, 6),)


def nothing_grows():
    return nn.Linear(6, 5), (torch.ones(2, 6),)


def junk():
    return 42


def module_alone():
    return nn.Linear(6, 5)


def no_module():
    return "model", (torch.ones(2, 6),)


def bare_tensor():
    return nn.Linear(6, 5), torch.ones(2, 6)


def wrong_kwargs():
    return nn.Linear(6, 5), (), [torch.ones(2, 6)]


def broken():
    raise KeyError("weights")


number = 3
"""


Refused = Callable[..., str]
"""Runs a command that must fail; what it says."""


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that holds nothing but files of models; nothing of them stays imported."""
    (folder / "my_models.py").write_text(MODELS)
    (folder / "my_broken.py").write_text("import nowhere_at_all\n")
    (folder / "my_imp.py").write_text("import my_im\n")
    (folder / "my_wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for name in ("my_models", "my_broken", "my_imp", "my_wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def refusal(capfd: pytest.CaptureFixture[str], folder: Path) -> Refused:
    """Run a command that must fail: in one line, without a traceback, and leaving nothing behind."""

    def run(*argv: str, code: int = 2) -> str:
        before = set(folder.rglob("*"))
        capfd.readouterr()  # what others printed before, such as a bar of progress
        try:
            exit_code: Any = main(argv)
        except SystemExit as stop:
            exit_code = stop.code
        out, err = capfd.readouterr()
        assert exit_code == code, err
        assert "Traceback" not in out + err
        assert err.startswith("graphclone: ")
        assert err.count("\n") == 1
        assert [path for path in set(folder.rglob("*")) - before if "__pycache__" not in str(path)] == []
        return err

    return run


def run_json(capfd: pytest.CaptureFixture[str], *argv: str) -> Any:
    """Run a command that must not fail; the JSON it prints."""
    assert main([*argv, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def clone_args(model: str = "my_models:mlp", out: str = "wide.safetensors", *more: str) -> list[str]:
    return ["clone", model, "-o", out, *more]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are run in, with files of models."""
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], folder: Path) -> Refused:
    """Runs a command that must fail; what it says."""
    return refusal(capfd, folder)
