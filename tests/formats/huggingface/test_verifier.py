"""What verification of checkpoints costs: each of the two is loaded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graphclone.formats.huggingface import verifier
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.verifier import run_source, verify_folders
from tests.support.checkpoints import saved


def test_two_folders_are_compared_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved("olmo-mini", tmp_path / "olmo")
    monkeypatch.setattr(verifier, "_loaded", None)  # nothing is loaded whole
    report = verify_folders(folder, folder, sample=True)
    assert report.ok
    assert [check.name for check in report.checks] == ["sample"]


@pytest.mark.parametrize("name", ["bart", "mixtral"])
def test_source_and_clone_are_loaded_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(name, tmp_path / name)
    folders: list[str] = []
    load = verifier._loaded

    def loaded(checkpoint: Any, path: Path, **options: Any) -> Any:
        folders.append(str(path))
        return load(checkpoint, path, **options)

    monkeypatch.setattr(verifier, "_loaded", loaded)
    assert verify_folders(folder, folder).ok
    assert len(folders) == 2


def test_runs_differ_as_their_precisions_do(tmp_path: Path) -> None:
    runs = run_source(open_checkpoint(saved("mixtral", tmp_path / "mixtral")))
    (own, *_), (exact, *_) = runs.own, runs.exact
    assert exact["logits"].dtype == torch.float64
    off = [(run["logits"].double() - exact["logits"]).abs().max() for run in (own, *(runs[0] for runs in runs.shaken))]
    assert all(0 < float(error) < 1e-4 for error in off)
    assert len({float(error) for error in off}) == len(off)
