"""The command line: what it writes and prints."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from graphclone import __version__, terminal
from graphclone.algebra.strategies import STRATEGIES
from graphclone.cli import commands, demo, main
from graphclone.sources import resolve
from tests.support.command_line import Refused, clone_args, run_json
from tests.support.zoo import ZOO

pytestmark = pytest.mark.usefixtures("folder")


# inspect


def test_inspect_shows_dims_and_what_they_cost(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:mlp"]) == 0
    out = capfd.readouterr().out
    assert "my_models:mlp: 3 operations, 173 parameters" in out
    row = next(line.split() for line in out.splitlines() if line.split()[:2] == ["0", "14"])
    assert " ".join(row) == "0 14 1 by default 341 (+97%)"
    assert "the output keeps its shape (output)" in out
    assert "--widen 2 makes it 341 parameters (1.97 times)" in out


@pytest.mark.parametrize("name", ["opt-mini", "olmo-mini", "pythia-mini"])
def test_inspect_counts_as_the_wider_model_does(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    found = run_json(capfd, "inspect", name)
    counts = [sum(p.numel() for p in ZOO[name].build(n).module.parameters()) for n in (1, 2)]
    assert [found["parameters"], found["doubled"]] == counts


def test_inspect_groups_layers(capfd: pytest.CaptureFixture[str]) -> None:
    found = run_json(capfd, "inspect", "opt-mini")
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


@pytest.mark.parametrize("ranks", [1, 4, 28])
def test_inspect_says_what_each_process_does(ranks: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Of the weights (14, 6) and (5, 14) and their biases, made twice as wide in the middle; in numbers of 4 bytes."""
    found = run_json(capfd, "inspect", "my_models:mlp", "--ranks", str(ranks), "--devices", "H200")
    assert (found["source"], found["clone"]) == (4 * 173, 4 * 341)
    rows = [-(-28 // ranks), -(-28 // ranks), -(-5 // ranks), -(-5 // ranks)]
    assert found["written"] == 4 * (rows[0] * 6 + rows[1] + rows[2] * 28 + rows[3])
    assert found["read"] == 4 * (min(rows[0], 14) * 6 + min(rows[1], 14) + rows[2] * 14 + rows[3])
    assert found["training"] == 4 * found["written"]
    assert found["fits"]
    assert found["seconds"] == pytest.approx([found["read"] / 2e9, found["read"] / 64e9, found["written"] / 4.8e12])
    assert main(["inspect", "my_models:mlp", "--ranks", str(ranks)]) == 0
    assert f"over {ranks} processes, one H100 each" in " ".join(capfd.readouterr().out.split())
    assert main(["inspect", "my_models:mlp", "--ranks", "2", "--devices", "abacus"]) == 2
    assert "--devices: 'abacus' is not known; choose one of A100, H100" in capfd.readouterr().err


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
        "from graphclone.cli.__main__ import main\n"
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


@pytest.mark.parametrize("name", ["opt-mini", "pythia-mini", "olmo-mini"])
def test_fake_weights_show_the_same_dims(name: str) -> None:
    from graphclone.api import trace

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
    assert "testcli.mystery.default: no rule says what it means (mystery)" in out
    found = run_json(capfd, "inspect", "my_models:mysterious")
    assert found["refusals"] == [
        {
            "node": "mystery",
            "op": "testcli.mystery.default",
            "scope": "",
            "reason": "testcli.mystery.default: no rule says what it means",
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
    assert "it cannot grow: testcli.mystery.default: no rule says what it means (mystery)" in out
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


def test_an_unknown_op_holds_back_only_what_it_touches() -> None:
    assert main(clone_args("my_models:mysterious", "wide.safetensors", "--no-verify")) == 0
    state = load_file("wide.safetensors")
    assert state["up.weight"].shape == (14, 6)
    assert state["mid.weight"].shape == (20, 14)


# The rest


def test_verify_wants_onnx_files(refused: Refused) -> None:
    Path("a.safetensors").touch()
    Path("folder").mkdir()
    assert "missing.onnx: no such file" in refused("verify", "missing.onnx", "a.safetensors")
    assert "missing: no such file or folder" in refused("verify", "folder", "missing")
    message = "a.safetensors: verify compares .onnx files"
    assert message in refused("verify", "a.safetensors", "a.safetensors")


def test_passes_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["passes"]) == 0
    assert "Infer" not in capfd.readouterr().err
    found = {row["name"]: row for row in run_json(capfd, "passes")}
    assert list(found)[:3] == ["canonicalize", "deepen", "infer-dims"]
    assert found["choose-widths"]["options"] == {"factor": 0}
    assert found["choose-widths"]["requires"] == ["dims"]
    assert found["choose-widths"]["summary"] == "Decide how every dim grows."


@dataclass(frozen=True)
class Needing:
    """Wants a number."""

    name: ClassVar[str] = "needing"
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()

    a_number: int
    names: list[str] = field(default_factory=list)


def test_a_pass_may_have_options_without_a_default(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = SimpleNamespace(load=lambda: Needing)
    monkeypatch.setattr("graphclone.passes.registry.entry_points", lambda group: [entry])
    found = {row["name"]: row for row in run_json(capfd, "passes")}
    assert found["needing"]["options"] == {"a-number": None, "names": []}


def test_rules_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    assert "conv" in capfd.readouterr().out
    rules = run_json(capfd, "rules")
    assert rules["linear"]["aten.linear.default"] == "... i, o.. i + o..? -> ... o.."
    assert rules["reduce"]["onnx.Softmax"] == rules["reduce"]["aten.softmax.int"] == "| a.. ~n b.. -> a.. n b.."
    assert rules["view"]["aten.permute.default"] is None
    assert main(["rules", "--missing", "my_models:mlp"]) == 0
    assert capfd.readouterr().out == "my_models:mlp: every op has a rule\n"
    assert main(["rules", "--missing", "my_models:mysterious"]) == 0
    assert "testcli.mystery.default" in capfd.readouterr().out


def test_rules_and_their_patterns_are_read_in_80_columns(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PIPE_WIDTH", 80)
    assert main(["rules"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if line.split()[:1] == ["bilinear"]]
    assert line.split(maxsplit=1)[1].strip() == "... i, ... j, o i j + o? -> ... o"
    shown = " ".join(word for line in lines for word in line.split())
    for name in ("com.microsoft.BiasDropout", "onnx.Gemm", "permute", "conv2d"):
        assert name in shown


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--json"], "the following arguments are required: COMMAND; see graphclone --help"),
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
    def broken(*_: object) -> None:
        raise RuntimeError("this\ncannot be")

    monkeypatch.setattr(commands, "resolve", broken)
    message = refused("inspect", "opt-mini")
    assert "a defect of graphclone, please report it with --debug: RuntimeError: this cannot be" in message


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (SystemExit(0), "code of the model ended the process: sys.exit(0)"),
        (MemoryError("Unable to allocate 59.6 GiB"), "not enough memory: Unable to allocate 59.6 GiB"),
    ],
)
def test_what_ends_a_process_does_not_pass_for_done(
    raised: BaseException, message: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ending(*_: object) -> None:
        raise raised

    monkeypatch.setattr(commands, "resolve", ending)
    assert message in refused("inspect", "opt-mini")


@pytest.mark.parametrize(("words", "first"), [(["rules", "--json"], "{"), (["rules"], "pointwise: ")])
def test_a_reader_that_has_had_enough(words: list[str], first: str) -> None:
    code = f"import sys; from graphclone.cli.__main__ import main; sys.exit(main({words}))"
    command = f'{sys.executable} -c "{code}" | head -1'
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(first)
    assert run.stderr == ""


def test_the_demo_without_its_weights(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PACKAGE", "no_such_weights")
    assert demo.main([]) == 2
    err = "graphclone: the pretrained weights are not installed; run make demo, which does that\n"
    assert capfd.readouterr().err == err


def test_cosines_leave_padding_out() -> None:
    states = np.array([[[3, 0], [1, 0]], [[1, 1], [9, 7]]], np.float32)
    mask = np.array([[1, 1], [1, 0]])
    assert demo._cosines(states, mask) == pytest.approx([0.5**0.5])
    assert demo._cosines(np.concatenate([states, states], 2), mask) == pytest.approx([0.5**0.5])


def test_without_arguments_it_shows_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    assert "graphclone inspect MODEL" in capsys.readouterr().out.partition("Three things to try:")[2]


@pytest.mark.parametrize("command", ["", "inspect", "clone", "verify", "study", "passes", "rules"])
def test_help_is_readable_in_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_help_names_every_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["clone", "--help"])
    assert set(STRATEGIES) <= set(re.split(r"[\s,;]+", re.sub(r"-\s+", "-", capsys.readouterr().out)))


def test_help_is_fast_and_imports_no_framework() -> None:
    code = (
        "import sys\nfrom graphclone.cli.grammar import parser\nparser().format_help()\n"
        "print(sorted({'torch', 'onnx', 'numpy'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_more_blocks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["clone", "my_models:blocks", "-o", "deep.safetensors", "--depth", "4", "--new-blocks", "end", "--no-verify"]
    assert main([*argv, "--new-from", "random"]) == 0
    assert "new blocks: layers.2, layers.3" in capsys.readouterr().out
    assert "layers.3.1.weight" in load_file("deep.safetensors")


def test_inspect_shows_the_stacks_of_blocks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:blocks"]) == 0
    assert "layers has 2 blocks and can have more: --depth layers=3" in capsys.readouterr().out
    assert main(["inspect", "my_models:blocks", "--json"]) == 0
    (stack,) = json.loads(capsys.readouterr().out)["stacks"]
    assert stack == {"name": "layers", "count": 2, "kinds": 1, "obstacle": ""}
