"""The public names, what they refuse, and every Python example of the documentation."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphclone as gc
from graphclone.cli.grammar import parser
from tests.support import pages

ROOT = Path(__file__).resolve().parents[1]
INPUTS = (torch.ones(2, 6),)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 14), nn.ReLU(), nn.Linear(14, 10), nn.ReLU(), nn.Linear(10, 5)).eval()


# Names


def test_every_public_name_is_there() -> None:
    assert {name: getattr(gc, name).__name__ for name in gc.__all__} == {name: name for name in gc.__all__}
    assert set(gc.__all__) <= set(dir(gc))
    assert re.fullmatch(r"\d+\.\d+\.\d+", gc.__version__)


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="module 'graphclone' has no attribute 'widen'"):
        _ = gc.widen  # type: ignore[attr-defined]


def test_the_signature_can_be_read() -> None:
    assert "Make a model bigger without changing what it computes" in (gc.clone.__doc__ or "")


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widen": "two"}, "widen=two: a factor is a number such as 2, 1.5 or 4/3, and at least 1"),
        ({"widen": 0}, "widen=0: a factor is a number such as 2"),
        ({"widen": True}, "widen=True: a factor is a number such as 2"),
        ({"widen": {"2": 0}}, "2=0: a factor is a number such as 2"),
        ({"sizes": 960}, "sizes=960: give a dict of sizes by dim, such as {'hidden': 960}"),
        ({"widen": {"hiden": 2}}, "no dim is called 'hiden'"),
        ({"widen": {1: 2}}, "widen={1: 2}: give a factor, or a dict of factors by dim"),
        ({"widen": [2]}, "widen=[2]: a factor is a number such as 2"),
        ({"sizes": {0: 28}}, "sizes={0: 28}: give a dict of sizes by dim"),
        ({"depth": "4"}, "depth='4': give a whole number of blocks, or a dict of them by stack"),
        ({"new_blocks": "middle"}, "new_blocks='middle': give 'spread' or 'end' or 'start'"),
        ({"like": 3}, "like=3: give a config.json, a folder with one, or a hub id"),
        ({"like": "config.json", "depth": 4}, "like already says every width and depth; leave out depth="),
        (
            {"keep_vocab": True},
            "keep_vocab goes with like, whose target may have another vocabulary; leave out keep_vocab=",
        ),
        ({"omit": "head"}, "omit='head': give a list of names, ['head']"),
        ({"widen_io": "output"}, "widen_io='output': give a list of names, ['output']"),
        ({"widen_io": None}, "widen_io=None: give a list of names"),
        ({"snr_db": "10"}, "snr_db='10': give a number of decibels"),
        ({"seed": None}, "seed=None: give a whole number"),
        ({"strategy": print.__self__}, "a strategy cannot be made of <module 'builtins'"),
        ({"kwargs": [1]}, "kwargs: list; give a dict of example inputs by name"),
        ({"dynamic_axes": {"input": 1}}, "dynamic_axes={'input': 1}: give a dict of lists of axes by input"),
        ({"passes": 3}, "passes=3: give a list of passes"),
        ({"passes": ["canonicalize"]}, "passes=['canonicalize']: give a list of passes"),
        ({"after": "print"}, "after='print': give a function of a pass and a state"),
        ({"widen_io": ["output", "logits"]}, "no input or output is called 'logits'; there are input, output"),
        ({"strategy": "symetric"}, "unknown strategy 'symetric': choose one of symmetric, diagonal"),
        ({"snr_db": 10}, "strategy 'symmetric' has no noise, so snr_db does not apply"),
        ({"strategy": "noisy-symmetric", "snr_db": float("nan")}, "snr_db must be a finite number"),
        ({"strategy": np.ones((2, 2))}, "every row must sum to 1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gc.GraphcloneError) as error:
        gc.clone(model(), INPUTS, **options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ("nowhere.onnx", "nowhere.onnx: no such file"),
        ("model.bin", "the folder of a checkpoint, got 'model.bin'"),
        (model, "the folder of a checkpoint, got function"),
    ],
)
@pytest.mark.parametrize("function", [gc.clone, gc.trace])
def test_what_is_no_model(function: Callable[..., Any], thing: Any, message: str) -> None:
    with pytest.raises(gc.GraphcloneError, match=message):
        function(thing, INPUTS)


@pytest.mark.parametrize(("args", "got"), [(INPUTS[0], "a tensor"), (5, "int"), (None, "NoneType"), ({}, "dict")])
def test_example_inputs_are_a_tuple(args: Any, got: str) -> None:
    with pytest.raises(gc.GraphcloneError, match=rf"args: {got}; give a tuple of the example inputs, such as \(x,\)"):
        gc.clone(model(), args)


def test_a_clone_is_shown_in_one_line() -> None:
    assert repr(gc.clone(model(), INPUTS)).startswith("Clone(")
    assert len(repr(gc.trace(model(), INPUTS))) < 100


def test_not_equivalent_is_a_graphclone_error() -> None:
    assert issubclass(gc.NotEquivalentError, gc.GraphcloneError)


# What it does


def test_clone_and_trace() -> None:
    source = model()
    assert {group.name: group.size for group in gc.trace(source, INPUTS).dims if group.default} == {
        "0": 14,
        "2": 10,
    }
    wide = gc.clone(source, INPUTS, widen={"0": 2, "2": 3}, strategy=np.eye(2)[[0, 1, 0]])
    assert {group.name: wide.factors(group) for group in wide.dims if group.default} == {"0": (2,), "2": (3,)}
    assert isinstance(wide, gc.Clone)
    assert isinstance(wide, gc.Traced)


@pytest.mark.parametrize(
    "strategy",
    [
        "diagonal",
        gc.Strategy("ours", lambda n, m: np.full((n, m), 1 / m)),
        lambda n, m: np.eye(m)[np.arange(n) % m],
    ],
    ids=["name", "strategy", "function"],
)
def test_the_strategy_may_be_given_in_every_form(strategy: Any) -> None:
    source = model()
    wide = gc.clone(source, INPUTS, strategy=strategy)
    torch.testing.assert_close(wide.module()(*INPUTS), source(*INPUTS))


def test_the_source_is_left_as_it_is() -> None:
    source = model()
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    gc.clone(source, INPUTS, widen=2).state_dict()["0.weight"].zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.state_dict().items())


# The documentation


def blocks(language: str) -> list[str]:
    return [block.text for block in pages.blocks("README.md") if block.language == language]


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "readme"}
    monkeypatch.setitem(sys.modules, "readme", type(sys)("readme"))  # dataclasses look up their module
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec", dont_inherit=True), scope)
    assert isinstance(scope["clone"], gc.Clone)


def test_the_example_has_ten_lines() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("graphclone ")]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_parse(line: str) -> None:
    parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_readme_has_a_command_of_every_kind() -> None:
    assert {line.split()[1] for line in COMMANDS} == {"inspect", "clone", "verify", "study", "rules"}


def test_the_pipeline_of_the_readme_is_the_default_one() -> None:
    from graphclone.passes import PASSES

    drawn = re.findall(r"^ ([a-z]+-?[a-z]+)  ", blocks("text")[0], re.MULTILINE)
    assert drawn == [*(cls.name for cls in PASSES), "verify"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])  # those of the site are checked as it is built
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [t for t in targets if not t.startswith("https://") and not (page.parent / t).exists()] == []
