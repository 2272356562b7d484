"""The command line: what it writes and prints, and how it refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from graphclone import __version__, commands, saving
from graphclone.cli import main
from graphclone.clone import Clone
from graphclone.errors import NotEquivalentError
from graphclone.pipeline import State
from graphclone.sources import resolve
from tests.zoo import ZOO

MODELS = """
import torch
from torch import nn


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 5)), (torch.ones(2, 6),)


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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, but for a file of models; nothing of it stays imported."""
    (tmp_path / "my_models.py").write_text(MODELS)
    (tmp_path / "my_broken.py").write_text("import nowhere_at_all\n")
    (tmp_path / "my_wrong.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    for name in ("my_models", "my_broken", "my_wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], folder: Path) -> Refused:
    """Run a command that must fail. What it says: one line, no traceback, and nothing is left behind."""

    def run(*argv: str, code: int = 2) -> str:
        before = sorted(folder.rglob("*"))
        try:
            exit_code = main(argv)
        except SystemExit as stop:
            exit_code = stop.code  # type: ignore[assignment]
        out, err = capfd.readouterr()
        assert exit_code == code, err
        assert "Traceback" not in out + err
        assert err.startswith("graphclone: ")
        assert err.count("\n") == 1
        assert [path for path in folder.rglob("*") if path not in before and "__pycache__" not in str(path)] == []
        return err

    return run


def run_json(capfd: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main([*argv, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def clone_args(model: str = "my_models:mlp", out: str = "wide.safetensors", *more: str) -> list[str]:
    return ["clone", model, "-o", out, *more]


# inspect


def test_inspect_shows_dims_and_what_they_cost(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:mlp"]) == 0
    out = capfd.readouterr().out
    assert "my_models:mlp: 3 operations, 173 parameters" in out
    row = next(line.split() for line in out.splitlines() if line.split()[:2] == ["0", "14"])
    assert " ".join(row) == "0 14 1 by default 341 (+97%)"
    assert "the output keeps its shape (output)" in out
    assert "--widen 2 makes it 341 parameters (1.97 times)" in out


def test_inspect_counts_as_the_wider_model_does(capfd: pytest.CaptureFixture[str]) -> None:
    found = run_json(capfd, "inspect", "opt-mini")
    wide = sum(parameter.numel() for parameter in ZOO["opt-mini"].build(2).module.parameters())
    assert found["doubled"] == wide
    assert found["parameters"] == sum(p.numel() for p in ZOO["opt-mini"].build().module.parameters())
    dims = {row["name"]: row for row in found["dims"]}
    assert (dims["hidden"]["size"], dims["hidden"]["count"], dims["hidden"]["default"]) == (80, 1, True)
    assert dims["layers.*.self_attn.heads"]["count"] == 2
    assert not dims["layers.*.self_attn.head_dim"]["default"]
    assert found["parameters"] < dims["hidden"]["parameters"] < found["doubled"]


def test_inspect_says_what_would_free_a_dim(capfd: pytest.CaptureFixture[str]) -> None:
    (row,) = (row for row in run_json(capfd, "inspect", "my_models:keyword")["dims"] if row["size"] == 14)
    assert row["pinned"] == "the input keeps its shape (y)"
    assert row["freed_by"] == ["y", "sum"]
    rows = run_json(capfd, "inspect", "my_models:keyword", "--widen-io", "y,sum")["dims"]
    assert [row["pinned"] for row in rows if row["size"] == 14] == [None]


def test_windows_are_shown_only_if_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:conv"]) == 0
    short = capfd.readouterr().out
    assert main(["inspect", "my_models:conv", "--all"]) == 0
    full = capfd.readouterr().out
    assert "more cannot grow" in short
    assert "--all" in short
    assert "window" in full
    assert len(full.splitlines()) > len(short.splitlines()) - 1


def test_inspect_allocates_no_weights() -> None:
    """10 GB of weights, which would not fit."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))\n"
        "from graphclone.cli import main\n"
        "sys.exit(main(['inspect', 'huge.py:huge', '--json']))"
    )
    Path("huge.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def huge():\n"
        "    return nn.Sequential(nn.Linear(6, 50000), nn.Linear(50000, 50000)), (torch.ones(2, 6),)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["parameters"] == 50000 * (6 + 1 + 50000 + 1)


def test_fake_weights_show_the_same_dims() -> None:
    from graphclone.clone import trace

    for name in ("opt-mini", "pythia-mini", "olmo-mini"):
        built = resolve(name).build()
        fake, real = resolve(name).trace(), trace(built.module, built.args, built.kwargs)
        shown = [[(g.name, g.size, len(g.dims), str(g.pin)) for g in traced.dims] for traced in (fake, real)]
        assert shown[0] == shown[1]
        assert not fake.graph.notes


def test_a_model_that_reads_its_weights_is_built_with_them(capfd: pytest.CaptureFixture[str]) -> None:
    found = run_json(capfd, "inspect", "my_models:reads_its_weights")
    assert found["notes"] == ["built with its weights: it cannot be built or traced without them"]
    assert found["parameters"] == 173


def test_an_unknown_op_is_listed_with_its_node(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:mysterious"]) == 0
    out = capfd.readouterr().out
    assert "in the way" in out
    assert "no rule for testcli.mystery.default (mystery)" in out
    found = run_json(capfd, "inspect", "my_models:mysterious")
    assert found["refusals"] == [
        {
            "node": "mystery",
            "op": "testcli.mystery.default",
            "scope": "",
            "reason": "no rule for testcli.mystery.default",
        }
    ]
    assert run_json(capfd, "rules", "--missing", "my_models:mysterious") == [
        {"op": "testcli.mystery.default", "count": 1, "node": "mystery", "scope": ""}
    ]


def test_inspect_explains_one_dim(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:mysterious", "--why", "up"]) == 0
    out = capfd.readouterr().out
    assert "up (14)" in out
    assert "  up.weight\n" in out
    assert "it cannot grow: no rule for testcli.mystery.default (mystery)" in out
    (found,) = run_json(capfd, "inspect", "my_models:mlp", "--why", "0")
    assert found == {
        "name": "0",
        "size": 14,
        "parameters": ["0.weight", "0.bias", "2.weight"],
        "pinned": None,
        "path": [],
    }


def test_no_such_dim_to_explain(refused: Refused) -> None:
    assert "no dim is called 'x'; there are 0" in refused("inspect", "my_models:mlp", "--why", "x")


# clone


def source_state(model: str) -> dict[str, torch.Tensor]:
    return resolve(model).build().module.state_dict()


def test_clone_writes_a_state_dict(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    found = run_json(capfd, *clone_args("my_models.py:mlp", "wide.safetensors", "--no-verify", "--seed", "3"))
    assert found["output"] == "wide.safetensors"
    assert found["parameters"] == {"source": 173, "clone": 341}
    assert found["verification"] is None
    assert [(row["name"], row["new_size"]) for row in found["dims"] if row["pinned"] is None] == [("0", 28)]
    state, source = load_file("wide.safetensors"), source_state("my_models:mlp")
    assert torch.equal(state["0.weight"], source["0.weight"].repeat(2, 1))
    assert torch.equal(state["2.weight"], source["2.weight"].repeat(1, 2) / 2)
    assert sorted(path.name for path in folder.glob("*wide*")) == ["wide.safetensors"]
    Path("other").touch()
    assert Path("wide.safetensors").stat().st_mode == Path("other").stat().st_mode


def test_tied_tensors_are_stored_once() -> None:
    assert main(clone_args("opt-mini", "wide.safetensors", "--no-verify")) == 0
    with safe_open("wide.safetensors", "pt") as file:
        names, aliases = set(file.keys()), file.metadata()
    assert aliases.pop("format") == "pt"
    assert aliases == {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    assert not names & aliases.keys()
    assert names | aliases.keys() == source_state("opt-mini").keys()


def test_clone_says_what_it_did(capfd: pytest.CaptureFixture[str]) -> None:
    argv = clone_args("my_models:mlp", "wide.safetensors", "--no-verify", "--timing", "--widen", "0=3")
    assert main(argv) == 0
    out = capfd.readouterr().out
    assert "14 -> 42" in out
    assert "parameters: 173 -> 509 (2.94 times)" in out
    assert "rewrite-literals" in out
    assert "not verified" in out
    assert "written to wide.safetensors" in out


def test_clone_is_verified_and_can_be_verified_again(capfd: pytest.CaptureFixture[str]) -> None:
    wide = run_json(capfd, *clone_args("my_models:mlp", "wide.onnx", "--provider", "cpu"))
    assert wide["verification"]["ok"] is True
    assert wide["verification"]["provider"] == "CPUExecutionProvider"
    assert main(clone_args("my_models:mlp", "same.onnx", "--widen", "1", "--no-verify")) == 0
    capfd.readouterr()
    assert run_json(capfd, "verify", "same.onnx", "wide.onnx", "--provider", "cpu")["ok"] is True


def test_verify_tells_models_apart(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(clone_args("my_models:mlp", "a.onnx", "--no-verify")) == 0
    text = Path("my_models.py").read_text().replace("manual_seed(0)", "manual_seed(1)")
    Path("other_models.py").write_text(text.replace("testcli::", "testother::"))
    assert main(clone_args("other_models.py:mlp", "b.onnx", "--no-verify")) == 0
    capfd.readouterr()
    assert main(["verify", "a.onnx", "b.onnx", "--provider", "cpu"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("graphclone: ")
    assert err.count("\n") == 1


def test_clone_writes_an_exported_program() -> None:
    assert main(clone_args("my_models:mlp", "wide.pt2", "--no-verify")) == 0
    source = resolve("my_models:mlp").build()
    program = torch.export.load("wide.pt2")
    torch.testing.assert_close(program.module()(*source.args), source.module(*source.args))


def test_noise_depends_on_the_seed() -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        noisy = ["--strategy", "noisy-diagonal", "--snr-db", "20", "--seed", seed, "--no-verify"]
        assert main(clone_args("my_models:mlp", f"{out}.safetensors", *noisy)) == 0
    a, b, c = (Path(f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_graphs_are_printed_after_passes(capfd: pytest.CaptureFixture[str]) -> None:
    printed = ["--print-after", "infer-dims", "--print-after", "rewrite-literals", "--no-verify"]
    assert main(clone_args("my_models:mlp", "wide.safetensors", *printed)) == 0
    out = capfd.readouterr().out
    assert "parameter 0.weight: float32[0=14, 6]\n" in out
    assert "parameter 0.weight: float32[0=14x2, 6] contracts 1\n" in out
    found = run_json(capfd, *clone_args("my_models:mlp", "wide.safetensors", "--force", *printed))
    assert list(found["graphs"]) == ["infer-dims", "rewrite-literals"]


def test_another_pipeline() -> None:
    names = "canonicalize,infer-dims,choose-widths{factor=3},balance-scales,widen-initializers,rewrite-literals"
    assert main(clone_args("my_models:mlp", "wide.safetensors", "--passes", names, "--no-verify")) == 0
    assert load_file("wide.safetensors")["0.weight"].shape == (42, 6)


def test_force_overwrites() -> None:
    Path("wide.safetensors").write_text("old")
    assert main(clone_args("my_models:mlp", "wide.safetensors", "--force", "--no-verify")) == 0
    assert load_file("wide.safetensors")["0.weight"].shape == (28, 6)


# Not equivalent


@dataclass(frozen=True)
class Corrupt:
    """Scale one weight, as no pass should."""

    name: ClassVar[str] = "corrupt"
    requires: ClassVar[frozenset[str]] = frozenset({"recipes"})
    ensures: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, state: State) -> bool:
        recipes = state.recipes or {}
        value = state.graph.initializers[2].value
        recipes[value] = replace(recipes[value], scale=1.01)
        return True


class EntryPoint:
    @staticmethod
    def load() -> type[Corrupt]:
        return Corrupt


@pytest.mark.parametrize("suffix", saving.SUFFIXES)
def test_a_wrong_clone_is_not_written(suffix: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphclone.pipeline.entry_points", lambda group: [EntryPoint])
    names = "canonicalize,infer-dims,choose-widths,balance-scales,widen-initializers,rewrite-literals,corrupt"
    argv = clone_args("my_models:mlp", f"wide{suffix}", "--passes", names, "--provider", "cpu")
    assert "linear_1" in refused(*argv, code=1)


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
        ("missing.onnx", "missing.onnx: no such file; give a name in models/"),
        ("missing.py:build", "missing.py: no such file"),
        ("folder/missing", "folder/missing: no such file"),
        ("opt-minj", "no model is called 'opt-minj'; did you mean 'opt-mini'?"),
        ("zzz", "no model is called 'zzz'; there are opt-mini, opt-350m"),
        ("my_models.py", "my_models.py: not a model; give a name in models/"),
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
        ("my_models:untraceable", "my_models:untraceable: torch.export failed: "),
    ],
)
@pytest.mark.parametrize("command", ["inspect", "clone"])
def test_what_is_no_model(command: str, model: str, message: str, refused: Refused) -> None:
    argv = ["inspect", model] if command == "inspect" else clone_args(model)
    assert message in refused(*argv)


def test_files_that_cannot_be_widened_yet(refused: Refused, folder: Path) -> None:
    Path("model.onnx").touch()
    assert "model.onnx: ONNX models cannot be widened yet; give" in refused("inspect", "model.onnx")
    (folder / "hub").mkdir()
    assert "hub: a directory is not a model" in refused("inspect", "hub")
    (folder / "hub" / "config.json").touch()
    assert "hub: Hugging Face directories cannot be widened yet" in refused(*clone_args("hub"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--widen", "1.5"], "argument --widen: '1.5': a factor is a whole number of at least 1; see graphclone clone"),
        (["--widen", "0"], "'0': a factor is a whole number of at least 1"),
        (["--widen", "two"], "'two': a factor is a whole number of at least 1"),
        (["--widen", "0=x"], "'0=x': a factor is a whole number of at least 1"),
        (["--widen", "0=2,hidden"], "'hidden' is not NAME=FACTOR"),
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
            "up is pinned: no rule for testcli.mystery.default (mystery); --widen-io would not free it",
        ),
        (
            "opt-mini",
            "model.decoder.embed_tokens",
            "the output keeps its shape (logits); --widen-io would not free it",
        ),
    ],
)
def test_a_pinned_dim_says_by_what(model: str, name: str, message: str, refused: Refused) -> None:
    assert message in refused(*clone_args(model), "--widen", f"{name}=2")


def test_nothing_can_grow(refused: Refused) -> None:
    assert "nothing to widen: every dim is pinned" in refused(*clone_args("my_models:nothing_grows"))


def test_an_unknown_op_holds_back_only_what_it_touches() -> None:
    assert main(clone_args("my_models:mysterious", "wide.safetensors", "--no-verify")) == 0
    state = load_file("wide.safetensors")
    assert state["up.weight"].shape == (14, 6)
    assert state["mid.weight"].shape == (20, 14)


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


def test_too_little_room(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = os.statvfs_result  # the type does not matter
    assert usage
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    message = refused(*clone_args())
    assert "wide.safetensors: needs 0.0 GB of disk, and 0.0 GB are free; make room or write elsewhere" in message


def test_the_disk_runs_full(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(clone: Clone, path: Path) -> None:
        path.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "write", write)
    assert refused(*clone_args()) == "graphclone: cannot write wide.safetensors: No space left on device\n"


@pytest.mark.parametrize("out", ["wide.onnx", "wide.pt2", "wide.safetensors"])
def test_the_disk_runs_full_within_the_writer(out: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_safetensors(*args: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("onnx_ir.save", full)
    monkeypatch.setattr("torch.export.save", full)
    monkeypatch.setattr("safetensors.torch.save_file", full_safetensors)
    message = refused(*clone_args("my_models:mlp", out))
    assert message.startswith(f"graphclone: cannot write {out}: ")
    assert "No space left on device" in message


def test_an_interrupt_leaves_nothing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(clone: Clone, path: Path) -> None:
        path.write_text("half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(saving, "write", write)
    assert refused(*clone_args(), code=130) == "graphclone: interrupted; nothing was left behind\n"


# The rest


def test_verify_wants_onnx_files(refused: Refused) -> None:
    Path("a.safetensors").touch()
    assert "missing.onnx: no such file" in refused("verify", "missing.onnx", "a.safetensors")
    message = "a.safetensors: verify compares .onnx files"
    assert message in refused("verify", "a.safetensors", "missing.onnx")


def test_passes_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["passes"]) == 0
    assert "Infer" not in capfd.readouterr().err
    found = {row["name"]: row for row in run_json(capfd, "passes")}
    assert list(found)[:2] == ["canonicalize", "infer-dims"]
    assert found["choose-widths"]["options"] == {"factor": 0}
    assert found["choose-widths"]["requires"] == ["dims"]
    assert found["choose-widths"]["summary"] == "Decide how every dim grows."


def test_rules_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    assert "conv" in capfd.readouterr().out
    found = run_json(capfd, "rules")
    assert "aten.linear.default" in found["linear"]
    assert main(["rules", "--missing", "my_models:mlp"]) == 0
    assert capfd.readouterr().out == "my_models:mlp: every op has a rule\n"
    assert main(["rules", "--missing", "my_models:mysterious"]) == 0
    assert "testcli.mystery.default" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND; see graphclone --help"),
        (["widen"], "invalid choice: 'widen'"),
        (["clone", "opt-mini"], "the following arguments are required: -o/--output; see graphclone clone --help"),
        (["inspect", "opt-mini", "--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_usage(argv: list[str], message: str, refused: Refused) -> None:
    assert message in refused(*argv)


def test_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capfd.readouterr().out == f"graphclone {__version__}\n"


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:broken", "--debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("graphclone: my_models:broken: building the model failed")


def test_a_defect_says_so(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> None:
        raise RuntimeError("this\ncannot be")

    monkeypatch.setattr(commands, "resolve", broken)
    message = refused("inspect", "opt-mini")
    assert "a defect of graphclone, please report it with --debug: RuntimeError: this cannot be" in message


def test_a_reader_that_has_had_enough() -> None:
    code = "import sys; from graphclone.cli import main; sys.exit(main(['rules', '--json']))"
    command = f'{sys.executable} -c "{code}" | head -1'
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert run.stdout == "{\n"
    assert run.stderr == ""


def test_help_is_fast_and_imports_no_framework() -> None:
    code = (
        "import sys\nfrom graphclone.cli import parser\nparser().format_help()\n"
        "print(sorted({'torch', 'onnx', 'numpy'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
