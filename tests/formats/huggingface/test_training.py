"""The state of a run of training, grown with the checkpoint that it was saved with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

import graphclone as gc
from graphclone.errors import GraphcloneError
from graphclone.formats.torch.optimizer_states import Layout, read_state
from tests.support.trainers import decoder, losses, trainer

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    """A checkpoint at step 3 of a run of 6, and the losses of the run."""
    folder = tmp_path_factory.mktemp("run")
    made = trainer(decoder(), folder, 6, save_strategy="steps", save_steps=3)
    made.train()
    return folder / "checkpoint-3", losses(made)


@pytest.fixture
def grown(run: tuple[Path, dict[int, float]], tmp_path: Path) -> Path:
    gc.clone_checkpoint(run[0], tmp_path / "wide", optimizer=run[0] / "optimizer.pt", verify=False)
    return tmp_path / "wide"


def test_a_trainer_goes_on_from_the_clone(run: tuple[Path, dict[int, float]], grown: Path, tmp_path: Path) -> None:
    """At the step, on the batches, and with the loss that come next."""
    wide = transformers.AutoModelForCausalLM.from_pretrained(grown, dtype=torch.float32)
    resumed = trainer(wide, tmp_path / "out", 6)
    resumed.train(resume_from_checkpoint=str(grown))
    expected, actual = run[1], losses(resumed)
    assert set(actual) - set(expected) == set() and {4, 5, 6} <= set(actual)
    assert actual[4] == pytest.approx(expected[4], rel=1e-5)
    assert actual[6] != expected[6]  # it learns at its own pace


def test_the_state_is_what_python_makes_of_it(run: tuple[Path, dict[int, float]], grown: Path, tmp_path: Path) -> None:
    """By names that are known, and not by order: every tensor is that of the grown optimizer."""
    before, after = (torch.load(f / "optimizer.pt", weights_only=True) for f in (run[0], grown))
    assert [len(g["params"]) for g in before["param_groups"]] == [len(g["params"]) for g in after["param_groups"]]
    small, wide = (transformers.AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (run[0], grown))
    decaying = transformers.Trainer.get_decay_parameter_names(None, small)
    order = sorted((name for name, _ in small.named_parameters()), key=lambda name: name not in decaying)
    tokens = {"input_ids": torch.arange(10).view(2, 5)}
    clone = gc.clone(small.eval(), kwargs=tokens, into=wide.eval())
    expected = clone.optimizer_state_dict(before, names=order, rule="same")
    for number, entry in expected["state"].items():
        assert all(torch.equal(value, after["state"][number][key]) for key, value in entry.items()), order[number]
    split = clone.optimizer_state_dict(before, names=order, rule="function")
    assert len(split["param_groups"]) > 2  # which is why a file keeps its rates
    with pytest.raises(ValueError, match="different number of parameter groups"):
        trainer(wide, tmp_path, 1).create_optimizer().load_state_dict(split)


def test_schedules_and_random_states_come_along(run: tuple[Path, dict[int, float]], grown: Path) -> None:
    for name in ("scheduler.pt", "rng_state.pth", "trainer_state.json"):
        assert (grown / name).read_bytes() == (run[0] / name).read_bytes()
    assert not (grown / "training_args.bin").exists()


def test_accelerate_s_own_file(run: tuple[Path, dict[int, float]], tmp_path: Path) -> None:
    """It has all parameters in one group."""
    model = transformers.AutoModelForCausalLM.from_pretrained(run[0], dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(input_ids=torch.arange(10).view(2, 5), labels=torch.arange(10).view(2, 5)).loss.backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.bin")
    gc.clone_checkpoint(run[0], tmp_path / "wide", optimizer=tmp_path / "optimizer.bin", verify=False)
    after = torch.load(tmp_path / "wide" / "optimizer.bin", weights_only=True)
    wide = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=torch.float32)
    for parameter, number in zip(wide.parameters(), after["param_groups"][0]["params"], strict=True):
        assert after["state"][number]["momentum_buffer"].shape == parameter.shape


@pytest.mark.parametrize("by_parameter", [False, True])
def test_the_folder_that_fsdp_leaves(
    by_parameter: bool, run: tuple[Path, dict[int, float]], grown: Path, tmp_path: Path
) -> None:
    """It has names where the file has numbers, and grows to the same."""

    def named(folder: Path) -> dict[str, Any]:
        """The state in the file of a checkpoint, by names."""
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        decaying = transformers.Trainer.get_decay_parameter_names(None, model)
        groups = [{"params": [p for n, p in model.named_parameters() if (n in decaying) == d]} for d in (True, False)]
        optimizer = torch.optim.AdamW(groups)
        optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
        return get_optimizer_state_dict(model, optimizer)

    layout = Layout(("optimizer",), by_parameter=by_parameter)
    checkpoint.save(layout.tree(named(run[0])), checkpoint_id=tmp_path / "optimizer_0", no_dist=True)
    (tmp_path / "scheduler.bin").write_bytes(b"s")
    gc.clone_checkpoint(run[0], tmp_path / "fsdp", optimizer=tmp_path / "optimizer_0", verify=False)
    stored, expected = read_state(tmp_path / "fsdp" / "optimizer_0"), named(grown)
    assert stored.layout == layout
    assert (tmp_path / "fsdp" / "scheduler.bin").read_bytes() == b"s"
    assert stored.state["state"].keys() == expected["state"].keys()
    for name, entry in expected["state"].items():
        assert all(torch.equal(value, stored.state["state"][name][key]) for key, value in entry.items()), name
    decays = {name: group["weight_decay"] for group in stored.state["param_groups"] for name in group["params"]}
    assert decays == {name: group["weight_decay"] for group in expected["param_groups"] for name in group["params"]}


def _fewer(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()


def _swapped(state: dict[str, Any]) -> None:
    first, second = state["param_groups"][0]["params"][:2]
    state["state"][first], state["state"][second] = state["state"][second], state["state"][first]


def _quantised(state: dict[str, Any]) -> None:
    for entry in state["state"].values():
        entry["absmax1"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_fewer, r"optimizer\.pt: its groups have \[8, 3\] parameters, but those of the model are \[12\] or \[9, 3\]"),
        (
            _swapped,
            r"optimizer\.pt: the state of model\.embed_tokens\.weight has exp_avg of \(24, 24\), but it is \(37, 24",
        ),
        (_quantised, r"optimizer\.pt: how a state of absmax1, .* grows is not known; take one of Adam"),
        (dict.clear, r"optimizer\.pt: is no state of an optimizer"),
    ],
)
def test_a_state_of_something_else_is_refused_before_anything_is_written(
    run: tuple[Path, dict[int, float]], tmp_path: Path, change: Callable[[dict[str, Any]], None], text: str
) -> None:
    state = torch.load(run[0] / "optimizer.pt", weights_only=True)
    change(state)
    torch.save(state, tmp_path / "optimizer.pt")
    with pytest.raises(GraphcloneError, match=text):
        gc.clone_checkpoint(run[0], tmp_path / "wide", optimizer=tmp_path / "optimizer.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["optimizer.pt"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.mkdir(), r"not a DCP checkpoint, since it has no file \.metadata"),
        (lambda path: path.write_bytes(b"no"), "cannot be read as the state of an optimizer"),
        (lambda path: torch.save({"state": {}, "param_groups": Path("x")}, path), "cannot be read as the state"),
    ],
)
def test_a_file_that_is_none(
    run: tuple[Path, dict[int, float]], tmp_path: Path, make: Callable[[Path], None], text: str
) -> None:
    make(tmp_path / "state.pt")
    with pytest.raises(GraphcloneError, match=text):
        gc.clone_checkpoint(run[0], tmp_path / "wide", optimizer=tmp_path / "state.pt")


def test_noise_leaves_no_state_to_go_on_from(run: tuple[Path, dict[int, float]], tmp_path: Path) -> None:
    options = {"strategy": "noisy-symmetric", "optimizer": run[0] / "optimizer.pt"}
    with pytest.raises(GraphcloneError, match=r"no multiple of the source's: .* through noise$"):
        gc.clone_checkpoint(run[0], tmp_path / "wide", **options)
