"""States of optimizers in files and in DCP folders, in every layout that torch has for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.optimizer_states import read_state
from tests.support.sharded_models import Decoder, source
from tests.support.torchrun import torchrun


def _stepped() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model, and its optimizer in two groups with options of their own, a step in."""
    model, args = source()
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1]}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    model(*args).square().sum().backward()
    optimizer.step()
    return model, optimizer


def _named(model: nn.Module, optimizer: torch.optim.Optimizer, *, flat: bool = False) -> dict[str, Any]:
    return get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat))


def _same(state: Any, expected: Any) -> bool:
    """Whether every parameter has the entries and the options that it should have, whatever its group."""

    def options(groups: Any) -> dict[Any, dict[str, Any]]:
        return {name: {k: v for k, v in group.items() if k != "params"} for group in groups for name in group["params"]}

    entries = {name: {key: value.tolist() for key, value in entry.items()} for name, entry in state["state"].items()}
    wanted = {name: {k: value.tolist() for k, value in entry.items()} for name, entry in expected["state"].items()}
    return entries == wanted and options(state["param_groups"]) == options(expected["param_groups"])


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(
    "around", [lambda state: state, lambda state: {"model": {"x": torch.ones(2)}, "app": {"optimizer": state}}]
)
def test_a_state_by_names_is_read_and_written_as_it_was(
    flat: bool, around: Callable[[Any], dict[str, Any]], tmp_path: Path
) -> None:
    model, optimizer = _stepped()
    checkpoint.save(around(_named(model, optimizer, flat=flat)), checkpoint_id=tmp_path / "in", no_dist=True)
    stored = read_state(tmp_path / "in")
    assert _same(stored.state, _named(model, optimizer))
    stored.write(stored.state, tmp_path / "out")
    names = [
        {
            name
            for name in checkpoint.FileSystemReader(folder).read_metadata().state_dict_metadata
            if "model" not in name
        }
        for folder in (tmp_path / "in", tmp_path / "out")
    ]
    assert names[0] == names[1] and _same(read_state(tmp_path / "out").state, stored.state)


def test_a_state_by_numbers(tmp_path: Path) -> None:
    _, optimizer = _stepped()
    checkpoint.save({"optimizer": optimizer.state_dict()}, checkpoint_id=tmp_path / "in", no_dist=True)
    assert _same(read_state(tmp_path / "in").state, optimizer.state_dict())


@pytest.mark.parametrize(
    "state",
    [
        {"state": [], "param_groups": []},
        {"state": {0: 1.0}, "param_groups": []},
        {"state": {}, "param_groups": [{}]},
        7,
    ],
)
def test_a_file_with_something_else(state: Any, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(GraphcloneError, match=r"state\.pt: is no state of an optimizer, which has"):
        read_state(tmp_path / "state.pt")


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"model": {"x": torch.ones(2)}}, "holds no state of an optimizer: nothing in it is called param_groups"),
        (
            {name: {"state": {}, "param_groups": [{"lr": 1.0, "params": []}]} for name in ("a", "b")},
            r"holds the states of several optimizers: a\., b\.",
        ),
        (
            {"state": {}, "param_groups": [{"lr": Harmful(), "params": []}]},
            r"in: cannot be read: Weights only load failed",
        ),
    ],
)
def test_a_folder_without_a_state(
    state: dict[str, Any], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint.save(state, checkpoint_id=tmp_path / "in", no_dist=True)
    with pytest.raises(GraphcloneError, match=text):
        read_state(tmp_path / "in")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("how", ["file", "flat"])
def test_the_command_line_writes_it_beside_the_model(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wide model and its optimizer read both, whether the state was by numbers or by names."""
    monkeypatch.chdir(tmp_path)
    model, optimizer = _stepped()
    if how == "file":
        ordered = torch.optim.AdamW(model.parameters(), lr=1e-3)
        ordered.step()
        optimizer = ordered
        torch.save(ordered.state_dict(), "state")
    else:
        checkpoint.save(_named(model, optimizer, flat=True), checkpoint_id="state", no_dist=True)
    (tmp_path / "mine.py").write_text("from tests.support.sharded_models import source\nmodel = source\n")
    words = ["clone", "mine.py:model", "-o", "out", "--format", "dcp", "--no-verify", "--optimizer"]
    assert main([*words, "state"]) == 0
    expected = gc.clone(*source()).optimizer_state_dict(_named(model, optimizer), rule="same")
    assert _same(read_state(tmp_path / "out").state, expected)
    big = Decoder(2)
    theirs = torch.optim.AdamW([{"params": group} for group in _split(big, optimizer)], lr=1.0)
    state = {"model": big.state_dict(), "optimizer": _named(big, theirs, flat=how == "flat")}
    checkpoint.load(state, checkpoint_id="out", no_dist=True)
    options = StateDictOptions(flatten_optimizer_state_dict=how == "flat")
    set_optimizer_state_dict(big, theirs, state["optimizer"], options=options)
    assert _same(_named(big, theirs), expected)
    torch.save({"state": {}, "param_groups": [{"lr": 1.0, "params": [0]}]}, "other")
    assert main([*words, "other", "--force"]) == 2
    assert "other: the state is of 1 parameters, which are not those of the model" in capfd.readouterr().err


def _split(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    """The parameters of a module in as many groups as an optimizer has."""
    if len(optimizer.param_groups) == 1:
        return [list(module.parameters())]
    return [[p for p in module.parameters() if (p.dim() > 1) == matrix] for matrix in (True, False)]


@pytest.mark.slow
def test_processes_that_share_a_model_save_and_load_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from tests.support.sharded_models import source\nmodel = source\n")
    done = torchrun(2, "tests.support.sharded_optimizers", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
