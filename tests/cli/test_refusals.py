"""The command line: how it refuses. One line, exit code 1 or 2, and nothing is written."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from graphclone.cli import clone_command
from graphclone.clones.clone import Clone
from graphclone.errors import NotEquivalentError
from graphclone.models.huggingface import new_model
from graphclone.pipeline.state import State
from tests.support.command_line import Refused, clone_args

pytestmark = pytest.mark.usefixtures("folder")


# Not equivalent


@dataclass(frozen=True)
class Corrupt:
    """Scale one weight, as no pass should."""

    name: ClassVar[str] = "corrupt"
    requires: ClassVar[frozenset[str]] = frozenset({"recipes"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, state: State) -> bool:
        recipes = state.recipes
        value = state.graph.initializers[2].value
        recipes[value] = replace(recipes[value], scale=1.01)
        return True


class EntryPoint:
    @staticmethod
    def load() -> type[Corrupt]:
        return Corrupt


@pytest.mark.parametrize("suffix", clone_command.SUFFIXES)
def test_a_wrong_clone_is_not_written(suffix: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphclone.passes.registry.entry_points", lambda group: [EntryPoint])
    names = "canonicalize,infer-dims,choose-widths,balance-scales,widen-initializers,rewrite-literals,corrupt"
    argv = clone_args("my_models:mlp", f"wide{suffix}", "--passes", names, "--provider", "cpu")
    assert "linear_1" in refused(*argv, code=1)


def test_a_pipeline_that_leaves_out_what_a_model_needs(refused: Refused) -> None:
    names = "infer-dims,choose-widths,balance-scales,widen-initializers,rewrite-literals"
    err = refused(*clone_args("my_models:chunked", "wide.safetensors", "--passes", names))
    assert "infer-dims requires canonical, which no earlier pass ensures: chunk (aten.chunk.default) is spelled" in err


def test_a_wrong_clone_does_not_replace_a_file(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(self: Clone, **options: Any) -> None:
        raise NotEquivalentError("layer 3 is wrong")

    monkeypatch.setattr(Clone, "verify", verify)
    Path("wide.safetensors").write_text("old")
    assert refused(*clone_args(), "--force", code=1) == "graphclone: layer 3 is wrong\n"
    assert Path("wide.safetensors").read_text() == "old"


# Refusals


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing.onnx", "missing.onnx: no such file; give an .onnx file, package.module:function"),
        ("missing.py:build", "missing.py: no such file"),
        ("folder/missing", "folder/missing: no such folder, and the hub gives none"),
        ("./missing", "./missing: no such file or folder; give an .onnx file"),
        ("../missing", "../missing: no such file or folder; give an .onnx file"),
        ("opt-minj", "no model is called 'opt-minj'; did you mean 'opt-mini'?"),
        ("", "the model has an empty name; give an .onnx file"),
        ("pipe.onnx", "pipe.onnx: is no file and no folder; give an .onnx file"),
        ("\udcff.onnx", "is no UTF-8: ONNX Runtime opens no file of such a name; rename it"),
        ("my_models:later", "my_models:later: an async function; give one that returns (module, args) at once"),
        ("zzz", "no model is called 'zzz'; there are opt-mini, opt-350m"),
        ("my_models.py", "my_models.py: names no function; give my_models.py:FUNCTION, which returns (module, args)"),
        ("my_imp:build", "my_imp: cannot be imported: ModuleNotFoundError: No module named 'my_im'"),
        ("missing_module:build", "missing_module: no such module; run from the directory it is in"),
        ("my_broken:build", "my_broken: cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("my_broken.py:build", "my_broken.py: cannot be imported: ModuleNotFoundError"),
        ("my_wrong:build", "my_wrong: cannot be imported: ZeroDivisionError: division by zero"),
        ("my_models:absent", "my_models:absent: my_models has no absent"),
        ("my_models:number", "my_models:number: number is a int, not a function"),
        ("my_models:junk", "my_models:junk: not a model: expected (module, args) or (module, args, kwargs), got int"),
        ("my_models:module_alone", "expected (module, args) or (module, args, kwargs), got Linear"),
        ("my_models:no_module", "but the module is str"),
        ("my_models:bare_tensor", "my_models:bare_tensor: the args must be a tuple of inputs, got Tensor"),
        ("my_models:wrong_kwargs", "my_models:wrong_kwargs: the kwargs must be a dict of inputs, got list"),
        ("my_models:broken", "my_models:broken: building the model failed: KeyError: 'weights'"),
        ("my_models:untraceable", "my_models:untraceable: torch.export failed at my_models.py:"),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "clone"])
def test_what_is_no_model(command: str, model: str, message: str, refused: Refused) -> None:
    os.mkfifo("pipe.onnx")
    argv = ["inspect", model] if command == "inspect" else clone_args(model)
    assert message in refused(*argv)


def test_files_that_cannot_be_widened_yet(refused: Refused, folder: Path) -> None:
    Path("model.onnx").touch()
    assert "model.onnx: " in refused("inspect", "model.onnx")
    Path("weights.pt").touch()
    assert "weights.pt: weights alone are no model; give file.py:FUNCTION" in refused("inspect", "weights.pt")
    (folder / "hub").mkdir()
    assert "hub: is empty; give the folder of a Hugging Face checkpoint" in refused("inspect", "hub")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--widen", "0"],
            "argument --widen: '0': a factor is a number such as 2, 1.5 or 4/3, and at least 1; see graphclone",
        ),
        (["--widen", "two"], "'two': a factor is a number such as 2"),
        (["--widen", "0=x"], "'0=x': a factor is a number such as 2"),
        (["--widen", "0=2,hidden"], "'hidden' is not NAME=NUMBER"),
        (["--widen", "1.01"], "no whole number; the nearest sizes are"),
        (["--size", "0=1.5"], "argument --size: '0=1.5': a size is a whole number; see graphclone clone"),
        (["--size", f"0={'9' * 5000}"], "a size is a whole number; see graphclone clone"),
        (["--widen", "1e100000000"], "no factor may be above 1,000,000"),
        (["--widen", "2", "--widen", "3"], "argument --widen: is given twice; see graphclone clone"),
        (["--seed", "1", "--seed", "1"], "argument --seed: is given twice"),
        (["--size", "0=1"], "0=1: a size is a whole number of at least 14, the source's"),
        (["--widen", "hidden=2"], "no dim is called 'hidden'; there are 0"),
        (["--strategy", "none"], "unknown strategy 'none': choose one of symmetric"),
        (["--snr-db", "10"], "strategy 'symmetric' has no noise"),
        (["--snr-db", "loud"], "argument --snr-db: invalid float value: 'loud'"),
        (["--passes", "none"], "no pass is called 'none'; there are canonicalize"),
        (["--passes", "canonicalize{x=1}"], "pass canonicalize has no option 'x'"),
        (["--passes", "choose-widths"], "--passes: choose-widths needs dims, which no pass before it ensures"),
        (["--passes", "infer-dims"], "--passes: nothing ensures literals, recipes, so there is no clone"),
        (["--print-after", "none"], "--print-after: no pass is called 'none'; there are canonicalize"),
        (["--provider", "tpu"], "argument --provider: invalid choice: 'tpu'"),
    ],
)
def test_wrong_options(options: list[str], message: str, refused: Refused) -> None:
    assert message in refused(*clone_args(), *options)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "my_models:mlp", "--devices", "A100"], "--devices goes with --ranks"),
        (["inspect", "my_models:mlp", "--devices", "A1", "--ranks", "2"], "--devices: 'A1' is not known; choose one"),
        (["inspect", "my_models:mlp", "--keep-vocab"], "--keep-vocab goes with --like"),
        (["rules", "--input", "x=1x2"], "--input and --inputs go with --missing"),
        (["inspect", "m.onnx", "--input", "x=1", "--input", "x=2"], "--input: x is given twice"),
        (["inspect", "m.onnx", "--inputs", "x.npy"], "x.npy: one array without a name; write it with numpy.savez"),
    ],
)
def test_options_that_mean_nothing(words: list[str], message: str, refused: Refused) -> None:
    assert message in refused(*words)


def test_a_name_that_is_nearly_right(refused: Refused) -> None:
    argv = clone_args("opt-mini", "wide.onnx", "--widen", "hiden=2")
    assert "no dim is called 'hiden'; did you mean 'hidden'?" in refused(*argv)


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (
            "my_models:keyword",
            "up",
            "'up' cannot grow: up is pinned: the input keeps its shape (y); --widen-io y,sum would free it",
        ),
        (
            "my_models:mysterious",
            "up",
            "no rule says what it means (mystery); no input or output that may grow would free it",
        ),
        (
            "opt-mini",
            "model.decoder.embed_tokens",
            "rows looked up by number (embedding); no input or output that may grow would free it",
        ),
    ],
)
def test_a_pinned_dim_says_by_what(model: str, name: str, message: str, refused: Refused) -> None:
    assert message in refused(*clone_args(model), "--widen", f"{name}=2")


def test_nothing_can_grow(refused: Refused) -> None:
    assert "nothing to widen: every dim is pinned" in refused(*clone_args("my_models:nothing_grows"))


@pytest.mark.parametrize(
    ("model", "depth", "message"),
    [
        ("blocks", "1", "depth: layers=1: the depth is a whole number of at least 2, the source's"),
        ("blocks", "2.5", "argument --depth: '2.5': a depth is a whole number of blocks"),
        ("blocks", "encoder=3", "depth: no stack of blocks is called 'encoder'; there are layers (2)"),
        ("mlp", "3", "depth: my_models:mlp has no blocks that are repeated"),
    ],
)
def test_a_depth_that_cannot_be(model: str, depth: str, message: str, refused: Refused) -> None:
    assert message in refused(*clone_args(f"my_models:{model}"), "--depth", depth)


# Where it writes


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("there.safetensors", "there.safetensors: exists already; --force overwrites it"),
        ("there.onnx", "there.onnx.data: exists already; --force overwrites it"),
        ("wide.bin", "wide.bin: the suffix says what to write: .onnx, .pt2, .safetensors"),
        ("wide", "wide: the suffix says what to write"),
        ("nowhere/wide.onnx", "nowhere/wide.onnx: there is no folder nowhere; make it first"),
        ("folder.onnx", "folder.onnx: is a folder; give the path of a file"),
    ],
)
def test_where_it_cannot_write(out: str, message: str, refused: Refused, folder: Path) -> None:
    for name in ("there.safetensors", "there.onnx.data"):
        (folder / name).touch()
    (folder / "folder.onnx").mkdir()
    assert message in refused(*clone_args("my_models:mlp", out))


def test_a_checkpoint_becomes_no_file_of_weights(refused: Refused, folder: Path) -> None:
    new_model("CausalLM", "gpt2", {"n_embd": 8, "n_layer": 1, "n_head": 2}).save_pretrained("small")
    message = "wide.bin: a checkpoint is written as a folder, or as .onnx, .pt2, .safetensors; leave the suffix out"
    assert message in refused("clone", "small", "-o", "wide.bin")
    assert not Path("wide.bin").exists()


def test_too_little_room(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    message = refused(*clone_args())
    assert re.search(r"wide.safetensors: needs [\d.]+ kB of disk, and 100 bytes are free; make room or write", message)


def test_the_disk_runs_full(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(clone: Clone, path: Path) -> None:
        path.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(clone_command, "_write", write)
    assert refused(*clone_args()) == "graphclone: cannot write wide.safetensors: No space left on device\n"


@pytest.mark.parametrize("out", ["wide.onnx", "wide.pt2", "wide.safetensors"])
def test_the_disk_runs_full_within_the_writer(out: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onnx_ir.save", full)
    monkeypatch.setattr("torch.export.save", full)
    monkeypatch.setattr("os.posix_fallocate", full)
    message = refused(*clone_args("my_models:mlp", out))
    assert message.startswith(f"graphclone: cannot write {out}: ")
    assert "No space left on device" in message


def test_an_interrupt_leaves_nothing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(clone: Clone, path: Path) -> None:
        path.write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(clone_command, "_write", write)
    assert refused(*clone_args(), code=130) == "graphclone: interrupted; nothing was left behind\n"
