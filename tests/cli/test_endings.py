"""The command line: how it ends when something outside of it goes wrong."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphclone import report as pages
from graphclone.cli.__main__ import main
from tests.support.command_line import Refused, clone_args

pytestmark = pytest.mark.usefixtures("folder")

TALKING = """
import torch
from torch import nn


class Talking(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 14), nn.Linear(14, 5)

    def forward(self, x):
        print("forward")
        return self.down(self.up(x))


def make():
    print("make")
    return Talking(), (torch.ones(2, 6),)
"""

WAITING = """
import time
import torch
from torch import nn


class Waiting(nn.Linear):
    def forward(self, x):
        if not torch.compiler.is_compiling():
            open("waits", "w").close()
            time.sleep(60)
        return super().forward(x)


def make():
    return nn.Sequential(Waiting(6, 14), nn.Linear(14, 5)), (torch.ones(2, 6),)
"""


def test_what_the_model_prints_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("talking.py").write_text(TALKING)
    assert main(["clone", "talking.py:make", "-o", "wide.onnx", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verification"]["ok"]
    assert "make" in captured.err


def test_a_page_that_cannot_be_written_says_that_the_clone_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pages, "write", full)
    assert main([*clone_args(), "--html", "page.html"]) == 2
    message = "wide.safetensors is written, but then: cannot print: No space left on device"
    assert message in capsys.readouterr().err
    assert Path("wide.safetensors").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_output_says_that_the_clone_is_written() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "graphclone", *clone_args()]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("graphclone: wide.safetensors is written, but then: cannot print: No space left")


HEARING = """
import signal, sys
from graphclone.cli.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""
"""A command that hears interrupts, though what runs the tests may have been started to ignore them."""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_behind(number: int, code: int) -> None:
    Path("waiting.py").write_text(WAITING)
    before = set(Path().iterdir())
    command = [sys.executable, "-c", HEARING, "clone", "waiting.py:make", "-o", "wide.onnx"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not Path("waits").exists() and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(number)
    _, err = run.communicate(timeout=120)
    assert run.returncode == code
    assert err == "graphclone: interrupted; nothing was left behind\n"
    assert set(Path().iterdir()) - before - {Path("waits"), Path("__pycache__")} == set()


def test_what_fails_before_anything_is_written_does_not_say_so(refused: Refused) -> None:
    assert "is written" not in refused(*clone_args("my_models:broken"))
