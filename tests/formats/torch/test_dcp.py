"""Checkpoints of torch.distributed.checkpoint: written from recipes in parts, and read into modules."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.formats.torch import dcp
from graphclone.formats.torch.dcp import load_dcp, save_dcp
from graphclone.formats.torch.source import FunctionSource
from tests.support.checkpoints import saved
from tests.support.sharded_models import Decoder, source


@pytest.fixture(scope="module")
def clone() -> gc.Clone:
    model, inputs = source()
    return gc.clone(model, inputs, widen=2, strategy="noisy-symmetric")


def equal(module: nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    found = module.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("part", [100, dcp.PART])
def test_a_clone_is_written_in_parts_and_loaded_whole(
    part: int, clone: gc.Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcp, "PART", part)
    save_dcp(clone.state, tmp_path / "out")
    big = Decoder(2)
    checkpoint.load({"model": big.state_dict()}, checkpoint_id=tmp_path / "out", no_dist=True)
    assert equal(big, clone.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    unique = {t.data_ptr(): t.nbytes for t in clone.state_dict().values()}  # a tied tensor is there once
    stored = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.distcp"))
    files = len(checkpoint.FileSystemReader(tmp_path / "out").read_metadata().storage_data)
    assert sum(unique.values()) <= stored <= sum(unique.values()) + 2000 * files - 19 * 18 * 4


@pytest.mark.parametrize("prefix", ["", "model.", "app.state."])
def test_a_state_dict_is_found_within_another(prefix: str, tmp_path: Path) -> None:
    model, _ = source()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    checkpoint.save({**state, "step": 3}, checkpoint_id=tmp_path / "in", no_dist=True)
    found = Decoder()
    load_dcp(found, tmp_path / "in")
    assert equal(found, model.state_dict())


def test_what_is_no_checkpoint_of_the_module_is_refused(clone: gc.Clone, tmp_path: Path) -> None:
    save_dcp(clone.state, tmp_path / "out")
    with pytest.raises(GraphcloneError, match=r"out: model\.shift is \(18,\), but the model's is \(9,\)"):
        load_dcp(Decoder(), tmp_path / "out")
    with pytest.raises(GraphcloneError, match=r"out: lacks blocks\.2\.norm\.weight; give the checkpoint of this model"):
        load_dcp(Decoder(2, blocks=3), tmp_path / "out")
    with pytest.raises(GraphcloneError, match=r"not a DCP checkpoint, since it has no file \.metadata"):
        load_dcp(Decoder(), tmp_path)
    with pytest.raises(GraphcloneError, match=r"out: exists already; force=True overwrites it"):
        save_dcp(clone.state, tmp_path / "out")
    (tmp_path / "other").mkdir()
    with pytest.raises(GraphcloneError, match=r"exists and is not a DCP checkpoint, so it is not overwritten"):
        save_dcp(clone.state, tmp_path / "other", force=True)


def test_a_checkpoint_that_has_been_cut_off_is_refused(clone: gc.Clone, tmp_path: Path) -> None:
    save_dcp(clone.state, tmp_path / "out")
    for file in (tmp_path / "out").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(GraphcloneError, match="out: cannot be read: "):
        load_dcp(Decoder(2), tmp_path / "out")


def test_what_is_in_the_way_is_left_alone(clone: gc.Clone, tmp_path: Path) -> None:
    (tmp_path / "out.partial").write_text("a diary")
    with pytest.raises(GraphcloneError, match=r"out.partial: is in the way, and no checkpoint that is being written"):
        save_dcp(clone.state, tmp_path / "out")
    assert (tmp_path / "out.partial").read_text() == "a diary"
    (tmp_path / "out.partial").unlink()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "__0_0.distcp").write_text("half a checkpoint, of a run that was killed")
    save_dcp(clone.state, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), ValueError("of a writer"), KeyboardInterrupt()]
)
def test_what_cannot_be_written_leaves_nothing(
    failure: BaseException, clone: gc.Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_dcp(clone.state, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("graphclone.formats.torch.dcp.FileSystemWriter.write_data", fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else GraphcloneError
    with pytest.raises(expected) as raised:
        save_dcp(clone.state, tmp_path / "out", force=True)
    if expected is GraphcloneError:
        reason = getattr(failure, "strerror", None) or str(failure)
        assert str(raised.value) == f"cannot write {tmp_path / 'out'}: {reason}; nothing was left behind"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("what", [Harmful(), os.system, pickle.loads])
def test_nothing_harmful_is_unpickled(what: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(what))
    with pytest.raises(GraphcloneError, match=r"would import .*, which no description needs"):
        load_dcp(Decoder(), tmp_path)
    names = (b"torch.distributed.checkpoint.metadata", b"os.system")  # a way through what a module has imported
    pushed = b"".join(b"\x8c" + bytes([len(name)]) + name for name in names)
    (tmp_path / ".metadata").write_bytes(b"\x80\x04" + pushed + b"\x93.")
    with pytest.raises(GraphcloneError, match=r"would import .*os\.system, which no description needs"):
        load_dcp(Decoder(), tmp_path)
    assert not (tmp_path / "harm").exists()


def as_an_attribute(member: Any, _: int) -> Any:
    """How Python 3.11.0 to 3.11.3 pickle a member of an enumeration."""
    return getattr, (type(member), member.name)


def test_a_checkpoint_that_another_python_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = source()
    with monkeypatch.context() as patch:
        patch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", as_an_attribute)
        checkpoint.save(model.state_dict(), checkpoint_id=tmp_path, no_dist=True)
    assert b"getattr" in (tmp_path / ".metadata").read_bytes()
    module = Decoder()
    load_dcp(module, tmp_path)
    assert equal(module, model.state_dict())


@pytest.mark.parametrize("read", [(Metadata, "__init__"), (_MEM_FORMAT_ENCODING, "__init__"), (torch.Size, "numel")])
def test_no_other_attribute_is_read(read: tuple[Any, str], tmp_path: Path) -> None:
    class Read:
        def __reduce__(self) -> Any:
            return getattr, read

    (tmp_path / ".metadata").write_bytes(pickle.dumps(Read()))
    with pytest.raises(GraphcloneError, match=r"would read the attribute .*, which no description needs"):
        load_dcp(Decoder(), tmp_path)


def test_a_function_takes_its_weights_from_a_checkpoint(tmp_path: Path) -> None:
    model, inputs = source()
    checkpoint.save({"model": model.state_dict()}, checkpoint_id=tmp_path / "in", no_dist=True)
    made = FunctionSource("f", lambda: (Decoder(), inputs), tmp_path / "in").build()
    assert equal(made.module, model.state_dict())


def test_the_command_line_reads_and_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = saved("llama-gqa", tmp_path / "llama")
    assert main(["clone", "llama", "-o", "wide", "--format", "dcp", "--no-verify"]) == 0
    assert (tmp_path / "wide" / "config.json").is_file()
    assert main(["clone", str(folder), "-o", "hf", "--no-verify"]) == 0
    import transformers

    big = transformers.AutoModelForCausalLM.from_pretrained("hf")
    expected = {name: tensor.clone() for name, tensor in big.state_dict().items()}
    for tensor in big.state_dict().values():
        tensor.zero_()
    checkpoint.load({"model": big.state_dict()}, checkpoint_id="wide", no_dist=True)
    assert equal(big, expected)
    (tmp_path / "mine.py").write_text("from tests.support.sharded_models import source\nmodel = source\n")
    assert main(["clone", "mine.py:model", "-o", "small", "--format", "dcp", "--widen", "1"]) == 0
    assert main(["clone", "mine.py:model", "--weights", "small", "-o", "two.safetensors", "--no-verify"]) == 0
    into_itself = ["--weights", "small", "-o", "small", "--format", "dcp", "--force"]
    assert main(["clone", "mine.py:model", *into_itself]) == 2
    assert "small: is where small is, which is read; write elsewhere" in capfd.readouterr().err
    words = ["--weights", "small", "-o", "two.safetensors", "--force", "--no-verify"]  # it is as it was
    assert main(["clone", "mine.py:model", *words]) == 0
    assert main(["clone", "llama", "--weights", "small", "-o", "x"]) == 2
    assert "--weights is for package.module:function" in capfd.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--verify", "sample"), ("--max-shard-size", "1GB")])
def test_options_that_mean_nothing_here_are_refused(option: str, value: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["clone", "tests.support.sharded_models:source", "-o", "x", "--format", "dcp", option, value]
    assert main(words) == 2
    assert f"{option} is not for DCP checkpoints" in capfd.readouterr().err
