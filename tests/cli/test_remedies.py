"""A parameter that helps is a keyword argument in Python, and an option on the command line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import graphclone as gc
from graphclone.cli.__main__ import main
from graphclone.cli.remedies import said
from graphclone.errors import GraphcloneError, NotEquivalentError, Remedy, StrategyError
from graphclone.formats.huggingface.staging import Interrupted, check_target
from tests.support.command_line import Refused, clone_args

ROOT = Path(__file__).resolve().parents[2]

REMEDIES = [
    (Remedy("force", "overwrites it"), "force=True overwrites it", "--force overwrites it"),
    (Remedy("resume", "goes on from them"), "resume=True goes on from them", "--resume goes on from them"),
    (Remedy("resume", value=None), "leave out resume=", "leave out --resume"),
    (
        Remedy("widen_io", "lets them grow", ["x", "past_*"]),
        "widen_io=['x', 'past_*'] lets them grow",
        "--widen-io x,past_* lets them grow",
    ),
    (Remedy("widen", "is enough", 2), "widen=2 is enough", "--widen 2 is enough"),
    (
        Remedy("verify", "writes it unseen", value=False),
        "verify=False writes it unseen",
        "--no-verify writes it unseen",
    ),
    (Remedy("trust_remote_code", "runs it"), "trust_remote_code=True runs it", "--trust-remote-code runs it"),
    (
        Remedy("inputs", "says what is accepted", {"NAME": "array or shape"}),
        "inputs={'NAME': 'array or shape'} says what is accepted",
        "--input NAME=SHAPE or --inputs FILE.npz says what is accepted",
    ),
    (
        Remedy("widen", "fits", {"hidden": 2, "layers.*.mlp": "3/2"}),
        "widen={'hidden': 2, 'layers.*.mlp': '3/2'} fits",
        "--widen 'hidden=2,layers.*.mlp=3/2' fits",
    ),
    (
        Remedy("sizes", "asks for one", {"hidden": 42}),
        "sizes={'hidden': 42} asks for one",
        "--size hidden=42 asks for one",
    ),
]


@pytest.mark.parametrize(("remedy", "in_python", "on_the_command_line"), REMEDIES, ids=str)
@pytest.mark.parametrize("kind", [GraphcloneError, NotEquivalentError, StrategyError])
def test_a_remedy_is_said_in_the_words_of_who_asked(
    kind: type[GraphcloneError], remedy: Remedy, in_python: str, on_the_command_line: str
) -> None:
    error = kind("x: is wrong", remedy)
    assert str(error) == f"x: is wrong; {in_python}"
    assert said(error) == f"x: is wrong; {on_the_command_line}"


@pytest.mark.parametrize("error", [GraphcloneError("x: is wrong"), KeyboardInterrupt("x: is wrong")], ids=repr)
def test_what_has_no_remedy_is_said_as_it_is(error: BaseException) -> None:
    assert str(error) == said(error) == "x: is wrong"


def test_an_interrupt_may_have_a_remedy() -> None:
    assert said(Interrupted("2 files are left", Remedy("resume", "goes on"))) == "2 files are left; --resume goes on"


IN_PYTHON = {"rule", "inexact", "into"}
"""Two of ``grow_optimizer``: the command line grows states by one rule, and refuses what it does not fit. It knows no
module to clone into."""


def _named() -> set[str]:
    """The parameters that the library's own remedies name, but for those of functions that no command calls."""
    files = (path for folder in ("graphclone", "passes", "models") for path in (ROOT / folder).rglob("*.py"))
    calls = (node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    named = {
        ast.literal_eval(call.args[0]) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Remedy"
    }
    return named - IN_PYTHON


def test_every_remedy_names_an_option_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    named = _named()
    assert named >= {"force", "resume", "widen_io", "verify", "trust_remote_code", "inputs"}
    with pytest.raises(SystemExit, match="0"):
        main(["clone", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    values = {"verify": False, "sizes": {"hidden": 42}}
    words = [said(GraphcloneError("", Remedy(name, value=values.get(name, True)))) for name in sorted(named)]
    assert {option for word in words for option in re.findall(r"--[a-z][a-z-]*", word)} <= options


# From end to end


def test_what_would_let_a_dim_grow(refused: Refused) -> None:
    reason = "nothing to widen: every dim is pinned, {} by the output keeps its shape ({}); {}"
    expected = reason.format("weight", "output", "--widen-io output lets it grow")
    assert refused(*clone_args("my_models:nothing_grows")) == f"graphclone: {expected}\n"
    expected = reason.format("weight", "output", "widen_io=['output'] lets it grow")
    with pytest.raises(GraphcloneError, match=f"^{re.escape(expected)}$"):
        gc.clone(nn.Linear(6, 5), (torch.ones(2, 6),))


def test_a_dim_that_was_named(refused: Refused) -> None:
    words = refused(*clone_args("my_models:mlp", "wide.onnx", "--widen", "2=2"))
    assert words.endswith("keeps its shape (output); --widen-io output would free it\n")


def test_what_is_in_the_way(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "wide.onnx").touch()
    assert refused(*clone_args(out="wide.onnx")) == "graphclone: wide.onnx: exists already; --force overwrites it\n"
    with pytest.raises(GraphcloneError, match=r"wide\.onnx: exists already; force=True overwrites it$"):
        check_target(tmp_path / "wide.onnx", tmp_path / "source", force=False, resume=False)


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=r"there is nothing to resume; leave out resume=$") as caught:
        check_target(tmp_path / "wide", tmp_path / "source", force=False, resume=True)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(GraphcloneError, match="link: a link to nowhere, which is not there"):
        check_target(tmp_path / "link", tmp_path / "source", force=True, resume=False)
    assert said(caught.value).endswith("there is nothing to resume; leave out --resume")
