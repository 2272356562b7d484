"""What can go wrong with checkpoints: nothing half-written is ever taken for a result, the source stays as it is."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError, NotEquivalentError
from graphclone.formats.huggingface import staging
from graphclone.formats.huggingface.plan import Plan
from graphclone.formats.huggingface.reader import open_checkpoint
from graphclone.formats.huggingface.writer import clone_checkpoint, write_checkpoint
from graphclone.runtime import shards
from tests.support.checkpoints import contents, copied, planned, saved

SHARD = 40_000
"""Bytes, so that there are several files."""

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("gpt2", tmp_path_factory.mktemp("gpt2") / "source")


@pytest.fixture(scope="module")
def plan(source: Path) -> Plan:
    return planned(source, 2, "noisy-symmetric", max_shard_size=SHARD)


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    """A source to be damaged."""
    return copied(source, tmp_path / "source")


def write(plan: Plan, out: Path, **options: Any) -> None:
    write_checkpoint(plan, out, verify=False, **options)


# Killed


def killed(plan: Plan, out: Path, at: int, resume: bool = False) -> bool:
    """Write in another process that is killed at its n-th step. Whether it got that far."""
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    try:
        steps = _counted_steps()

        def step(*_: Any) -> None:
            if next(steps) >= at:
                os.kill(os.getpid(), signal.SIGKILL)

        for module, name in ((shards, "_write_at"), (staging, "write_text")):
            setattr(module, name, _after(step, getattr(module, name)))
        write(plan, out, resume=resume)
    finally:
        os._exit(0)


def _counted_steps() -> Iterator[int]:
    yield from range(1_000_000)


def _after(step: Callable[..., None], work: Callable[..., Any]) -> Callable[..., Any]:
    def both(*args: Any) -> Any:
        result = work(*args)
        step()
        return result

    return both


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_is_killed_at_random_is_resumed_to_the_same_bytes(seed: int, plan: Plan, tmp_path: Path) -> None:
    write(plan, tmp_path / "whole")
    whole, out, partial = contents(tmp_path / "whole"), tmp_path / "out", tmp_path / "out.partial"
    rng = random.Random(seed)
    while killed(plan, out, rng.randrange(4, 60), resume=partial.exists()):
        assert not out.exists()
        assert partial.exists()
    if not out.exists():
        write(plan, out, resume=True)
    assert contents(out) == whole
    assert not partial.exists()


def test_finished_shards_are_not_written_again(plan: Plan, tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    assert killed(plan, out, 40)
    finished = {path.name: path.stat().st_ino for path in partial.glob("*.safetensors")}
    assert finished
    write(plan, out, resume=True)
    assert {name: (out / name).stat().st_ino for name in finished} == finished


def test_without_resume_a_run_begins_anew(plan: Plan, tmp_path: Path) -> None:
    assert killed(plan, tmp_path / "out", 40)
    write(plan, tmp_path / "out")
    write(plan, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_another_command_began_is_not_resumed(plan: Plan, source: Path, tmp_path: Path) -> None:
    assert killed(plan, tmp_path / "out", 40)
    with pytest.raises(GraphcloneError, match=r"another command, or from a source that has changed; leave out resume="):
        write(planned(source, 3, max_shard_size=SHARD), tmp_path / "out", resume=True)
    assert (tmp_path / "out.partial").exists()


def test_two_runs_do_not_write_to_one_place(plan: Plan, tmp_path: Path) -> None:
    refused = pytest.raises(GraphcloneError, match="another run is writing it")
    with staging.staged(tmp_path / "out", "", resume=False), refused:
        write(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupt_says_what_is_left(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphclone.formats.huggingface.writer._complete", interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"interrupted; \d+ finished shards are left in "):
        write(plan, tmp_path / "out")
    monkeypatch.undo()
    write(plan, tmp_path / "out", resume=True)


# The disk


@pytest.mark.parametrize("after", [0, 2])
def test_a_full_disk(after: int, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.posix_fallocate, iter(range(1_000_000))

    def full(*args: Any) -> None:
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*args)

    monkeypatch.setattr(os, "posix_fallocate", full)
    left = "finished shards are left in" if after else "nothing was left behind"
    with pytest.raises(GraphcloneError, match=f"cannot write .*out: No space left on device; .*{left}"):
        write(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    if after:
        write(plan, tmp_path / "out", resume=True)


def test_too_little_room_is_seen_before_anything_is_written(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.terminal_size((0, 0)) and type("", (), {"free": 1000}))
    with pytest.raises(GraphcloneError, match=r"needs [\d.]+ kB of disk, and 1.00 kB are free; make room"):
        write(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_clone_that_fails_verification_is_removed(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(folder: Path, config: Any) -> None:
        staging.write_text(folder / "config.json", json.dumps({**config, "layer_norm_epsilon": 0.1}))

    monkeypatch.setattr(staging, "write_config", spoiled)
    with pytest.raises(NotEquivalentError, match="the clone is not equivalent: logits: error"):
        clone_checkpoint(copy, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("force", "message"),
    [(False, "exists already; force=True"), (True, "is not a checkpoint, so it is not overwritten")],
)
def test_what_is_no_checkpoint_is_never_replaced(force: bool, message: str, plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(GraphcloneError, match=message):
        write(plan, out, force=force)
    assert contents(out) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize("name", ["out.partial", "out.replaced"])
def test_folders_of_others_are_in_the_way(name: str, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("mine")
    with pytest.raises(GraphcloneError, match=f"{name}: is in the way"):
        write(plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert contents(tmp_path / name) == {"thesis.txt": b"mine"}


def test_the_source_is_never_replaced(plan: Plan) -> None:
    with pytest.raises(GraphcloneError, match="is where the source is"):
        write(plan, plan.checkpoint.folder, force=True)


# Damaged sources


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garbage(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all, at all")


def edited(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def indexed(weight_map: dict[str, str] | None) -> Damage:
    """The weights in a file of an index, which maps them so; None for as they are."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        listed = dict.fromkeys(tensors, "a.safetensors") | (weight_map or {})
        index = {"metadata": {}, "weight_map": listed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def config(**fields: Any) -> Damage:
    def damage(folder: Path) -> None:
        raw = json.loads((folder / "config.json").read_text())
        raw |= fields
        (folder / "config.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))

    return damage


NORM, ATTENTION = "transformer.ln_f.weight", "transformer.h.0.attn.c_attn.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "model.safetensors: ends within .*; copy or download it again"),
        (garbage, "model.safetensors: .* damaged; copy or download it again"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights; expected model.safetensors"),
        (edited(lambda t: t.pop(NORM)), f"{NORM} is missing; complete the checkpoint"),
        (
            edited(lambda t: t.update({NORM: torch.ones(7)})),
            rf"{NORM} is \(7,\), but the model of config.json has \(40,\)",
        ),
        (
            edited(lambda t: t.update({NORM: torch.ones(40).int()})),
            f"{NORM} is torch.int32, but .* needs torch.float32",
        ),
        (
            edited(lambda t: t.update({NORM: torch.ones(40).to(torch.float8_e4m3fn)})),
            f"{NORM} is F8_E4M3, which cannot be widened; use the unquantised checkpoint",
        ),
        (
            edited(lambda t: t.update({"lm_head.weight": torch.ones(61, 40)})),
            "lm_head.weight are tied in the model but differ on disk; set tie_word_embeddings to false",
        ),
        (indexed({"ghost": "a.safetensors"}), "the index disagrees about ghost: it lists it there, but it is not in"),
        (indexed({"ghost": "b.safetensors"}), "lists b.safetensors, which is not there"),
        (indexed({"ghost": "../a.safetensors"}), "lists ../a.safetensors, which is not there"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot be read"),
        (
            config(architectures=None, model_type="bert"),
            "no class for bert finds all its weights; set its architectures",
        ),
        (config(model_type="unheard_of"), "transformers refuses it"),
        (config(quantization_config={"bits": 4}), "its weights are quantised"),
        (
            config(architectures=["MyModel"], auto_map={"AutoModel": "mine.MyModel"}),
            r"needs code that comes with it \(MyModel\), which is not run unless you ask: .* --trust-remote-code",
        ),
    ],
)
def test_a_damaged_source_is_refused_in_one_line(
    damage: Damage, message: str, copy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import re

    damage(copy)
    before = contents(copy)
    assert main(["clone", str(copy), "-o", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert contents(copy) == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_source_that_changes_underneath_is_noticed(copy: Path, tmp_path: Path) -> None:
    made = planned(copy)
    cut_off(copy)
    with pytest.raises(GraphcloneError, match=r"ends within .*; copy or download it again; nothing was left behind"):
        write_checkpoint(made, tmp_path / "out", verify=False)


def test_the_source_is_never_touched(copy: Path, tmp_path: Path) -> None:
    before = contents(copy)
    clone_checkpoint(copy, tmp_path / "out")
    assert contents(copy) == before


def test_an_index_with_several_files(copy: Path, tmp_path: Path) -> None:
    indexed(None)(copy)
    written = clone_checkpoint(copy, tmp_path / "out")
    assert written.verification is not None and written.verification.ok


def test_nans_are_reported_and_kept(copy: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[ATTENTION][3, 4] = float("nan")

    edited(spoil)(copy)
    written = clone_checkpoint(copy, tmp_path / "out", verify=False)
    assert f"{ATTENTION} holds NaNs in the source, and so it does here" in written.notes
    assert load_file(tmp_path / "out" / "model.safetensors")[ATTENTION].isnan().sum() == 4


# Pickle files


def test_pickle_files_are_read_without_running_them(copy: Path, tmp_path: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    written = clone_checkpoint(copy, tmp_path / "out")
    assert written.verification is not None and written.verification.ok
    assert any("safetensors files need less memory" in note for note in written.notes)
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_a_pickle_that_would_run_code_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    with pytest.raises(GraphcloneError, match=r"refused by torch.load\(weights_only=True\)"):
        open_checkpoint(copy)
    assert not (tmp_path / "pwned").exists()


# Code that comes with a checkpoint


def test_code_that_comes_with_a_checkpoint_runs_only_when_asked(copy: Path, tmp_path: Path) -> None:
    config(architectures=["MyModel"], auto_map={"AutoModelForCausalLM": "mine.MyModel"})(copy)
    (copy / "mine.py").write_text(
        "from transformers import GPT2LMHeadModel\n\n\nclass MyModel(GPT2LMHeadModel):\n    pass\n"
    )
    with pytest.raises(GraphcloneError, match="trust_remote_code=True runs it"):
        clone_checkpoint(copy, tmp_path / "out")
    written = clone_checkpoint(copy, tmp_path / "out", trust_remote_code=True)
    assert written.verification is not None and written.verification.ok
    assert (tmp_path / "out" / "mine.py").exists()
    for command in (["inspect", str(copy)], ["verify", str(copy), str(tmp_path / "out")]):
        assert main(command) == 2
        assert main([*command, "--trust-remote-code"]) == 0
