"""Fixtures of the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Refused, prepare, refusal


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are run in, with files of models."""
    return prepare(tmp_path, monkeypatch)


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], folder: Path) -> Refused:
    """Runs a command that must fail; what it says."""
    return refusal(capfd, folder)
