"""Downstream tasks: what their items are, that a model that knows the text gets them right, and that one that does not
guesses.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphclone.cli import main
from graphclone.errors import GraphcloneError
from graphclone.models.huggingface import new_model
from graphclone.study import run_study
from graphclone.study.config import Downstream
from graphclone.study.downstream import likelihoods, score_module, task_names
from graphclone.study.tasks import TASKS, items, write_tasks
from tests.support.study_models import corpus, study

NAMES = ["".join(letters) for letters in product("bdfk", "aeiou", "lmnr", "aeo", "st")]
TEXT = "".join(
    f"def {name}_by(argument, value):\n    total = argument + value * {n}\n    return total - {name}\n"
    for n, name in enumerate(NAMES)
).encode()


@pytest.mark.parametrize("name", TASKS)
def test_an_item_is_what_the_text_says_and_others_as_long(name: str) -> None:
    found = items(TEXT, name, context=96, count=50)
    assert len(found) == 50
    assert found == items(TEXT, name, context=96, count=50)
    for item in found:
        assert len(set(item.choices)) == len(item.choices) == (2 if name == "lines" else 4)
        assert item.context + item.choices[item.answer] in TEXT
        assert len(item.context) + max(map(len, item.choices)) <= 96
        lengths = {len(choice.replace(b" ", b"")) for choice in item.choices}
        assert len(lengths) == 1 or name == "continuation"
    answers = {item.answer for item in found}
    assert answers == set(range(len(found[0].choices)))


def test_a_text_without_indentation_has_no_such_task(tmp_path: Path) -> None:
    prose = (
        b"All that is said here is said in lines of many words.\nSome are longer than others are, and some not.\n" * 90
    )
    assert items(prose, "indentation", context=96, count=5) == []
    assert "indentation" not in write_tasks(prose, tmp_path, context=96, count=5)


def test_files_hold_the_same_bytes(tmp_path: Path) -> None:
    text = TEXT.replace(b"total", "Größe".encode())
    assert write_tasks(text, tmp_path, context=96, count=20) == list(TASKS)
    line = json.loads((tmp_path / "words.jsonl").read_text().splitlines()[0])
    assert (line["context"] + line["choices"][line["answer"]]).encode("latin-1") in text
    assert json.loads((tmp_path / "words.yaml").read_text())["output_type"] == "multiple_choice"


class Copier(nn.Module):
    """Knows that after each byte comes the next greater one, nine times as likely as all others together."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        table = torch.full((*tokens.shape, 256), 0.1 / 255)
        return table.scatter(-1, ((tokens + 1) % 256)[..., None], 0.9).log()


def test_likelihoods_are_sums_over_the_continuation_alone() -> None:
    right, wrong = math.log(0.9), math.log(0.1 / 255)
    pairs = [([7, 8], [9, 10]), ([1], [2, 9, 10]), ([4, 4, 4, 4], [9])]
    found = likelihoods(Copier(), pairs, context=16)
    assert [total for total, _ in found] == pytest.approx([2 * right, 2 * right + wrong, wrong], rel=1e-5)
    assert [greedy for _, greedy in found] == [True, False, False]


def test_what_is_longer_than_a_model_can_see_loses_its_beginning() -> None:
    seen: list[int] = []

    class Watching(Copier):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            seen.append(tokens.shape[1])
            return super().forward(tokens)

    (whole,) = likelihoods(Watching(), [(list(range(40)), [40, 41])], context=10)
    assert seen == [10]
    assert whole[1]


class Knowing(nn.Module):
    """Knows a text by heart: after the last eight bytes comes what comes after them there."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.after: dict[bytes, set[int]] = {}
        for at in range(8, len(text)):
            self.after.setdefault(text[at - 8 : at], set()).add(text[at])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(*tokens.shape, 256)
        for row, line in enumerate(tokens.tolist()):
            for at in range(len(line)):
                for byte in self.after.get(bytes(line[max(0, at - 7) : at + 1]), ()):
                    table[row, at, byte] = 9.0
        return table


def test_a_model_that_knows_the_text_does_well_and_one_that_does_not_guesses(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    names = write_tasks(TEXT, tmp_path, context=64, count=60)
    known = score_module(Knowing(TEXT), tmp_path, names, 64)
    guessed = score_module(Copier(), tmp_path, names, 64)
    assert known["lines"].accuracy > 0.9
    assert known["indentation"].accuracy > 0.9
    assert guessed["words"].accuracy < 0.6
    assert 0 < guessed["words"].error < 0.1


def test_a_folder_without_tasks_is_named(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match="holds no task"):
        task_names(tmp_path)


def test_a_study_scores_every_model_when_it_is_trained(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    (tmp_path / "text").mkdir()
    made = replace(study(corpus(tmp_path / "text"), steps=4), downstream=Downstream(items=4))
    report = run_study(made, tmp_path / "out").read_text()
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("runs/*/run.json")]
    assert len(records) == 3
    for record in records:
        assert set(record["scores"]) >= {"lines"}  # what a context of 32 bytes has room for
        assert all(0 <= accuracy <= 1 for accuracy, _ in record["scores"].values())
    assert "## Downstream" in report
    assert report.count(" lines |") == 1


def test_the_command_scores_a_checkpoint_on_tasks_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It prints the scores and nothing else, in a folder that git does not know."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    module: Any = new_model("CausalLM", "gpt2", {"vocab_size": 256, "n_embd": 16, "n_layer": 1, "n_head": 2})
    module.save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    (tmp_path / "tasks").mkdir()
    names = write_tasks(TEXT, tmp_path / "tasks", context=64, count=8)
    argv = ["score", str(folder), "--tasks", str(tmp_path / "tasks"), "--json"]
    capfd.readouterr()
    assert main(argv) == 0
    said = capfd.readouterr()
    assert said.err == ""
    found = json.loads(said.out)[str(folder)]
    assert set(found) == set(names)
    expected = score_module(_Logits(module), tmp_path / "tasks", names, 64)
    assert {name: found[name]["accuracy"] for name in names} == {name: expected[name].accuracy for name in names}


def test_the_help_shows_a_task_that_can_be_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    shown = dict(re.findall(r"(tasks/[\w.]+):\n((?:  .*\n)+)", capfd.readouterr().out))
    Path("tasks").mkdir()
    for name, text in shown.items():
        Path(name).write_text(textwrap.dedent(text))
    module: Any = new_model("CausalLM", "gpt2", {"vocab_size": 256, "n_embd": 16, "n_layer": 1, "n_head": 2})
    module.save_pretrained("model")
    _byte_tokenizer().save_pretrained("model")
    capfd.readouterr()
    assert main(["score", "model", "--tasks", "tasks", "--json"]) == 0
    score = json.loads(capfd.readouterr().out)["model"]["sums"]
    assert score["accuracy"] in (0, 1)
    assert score["error"] is None  # the task has a single item


class _Logits(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.module(tokens).logits


def _byte_tokenizer() -> Any:
    """Tokens are bytes, by the alphabet of printable letters that stand for them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=letters[0], model_max_length=64)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["score", ".", "--tasks", "nowhere"], "--tasks nowhere: there is no such folder"),
        (["score", ".", "--tasks", "."], ".: holds no config.json"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert message in capfd.readouterr().err
