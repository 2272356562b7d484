"""Runs, read back from what a study left of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from graphclone.errors import GraphcloneError
from graphclone.study.measures import final_loss
from graphclone.study.records import Evaluation, Run, read_runs
from graphclone.study.smoothing import crossing
from tests.study.test_measures import SETTINGS


def written(folder: Path, lines: str, **changed: Any) -> Path:
    """A study with one run of two steps; returns the run's folder."""
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps(SETTINGS | {"steps": 2} | changed))
    (run / "metrics.jsonl").write_text(lines)
    return run


def line(step: int, **more: Any) -> str:
    return json.dumps({"step": step, "tokens": 16 * step, "loss": 3.0 - step} | more)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path, f"{line(0)}\n{line(2, swap_cosine=0.5, accuracy=None, extra='x')}\n", extra=1)
    (run,) = read_runs(tmp_path)
    evaluations = (Evaluation(0, 0, 3.0), Evaluation(2, 32, 1.0, swap_cosine=0.5))
    assert run == Run(**SETTINGS | {"steps": 2}, evaluations=evaluations)
    assert run.finished


@pytest.mark.parametrize("torn", ["", '{"step": 2, "to', "{"])
def test_the_torn_last_line_of_an_unfinished_run_does_not_count(tmp_path: Path, torn: str) -> None:
    written(tmp_path, f"{line(0)}\n{line(1)}\n{torn}")
    (run,) = read_runs(tmp_path)
    assert [evaluation.step for evaluation in run.evaluations] == [0, 1]
    assert not run.finished


def test_a_last_line_that_lacks_only_the_newline_counts(tmp_path: Path) -> None:
    written(tmp_path, f"{line(0)}\n{line(2)}")
    assert read_runs(tmp_path)[0].finished


def test_a_run_that_was_not_evaluated_yet_is_unfinished(tmp_path: Path) -> None:
    (written(tmp_path, "") / "metrics.jsonl").unlink()
    (run,) = read_runs(tmp_path)
    assert not run.finished
    assert run.evaluations == ()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f"{line(0)}\n{{torn\n{line(2)}\n", "line 2: damaged"),
        (f"{line(0)}\n{line(2)}\n{{torn", "line 3: damaged"),
        (f"{line(0)}\n\n{line(2)}\n", "line 2: damaged"),
        (f"{line(0)}\n{line(0)}\n", "line 2: step 0 follows step 0"),
        (f"{line(0)}\n7\n", "line 2: expected a JSON object"),
        (f"{line(0, loss='low')}\n", "line 1: 'loss' is 'low', expected float"),
        ('{"step": 0, "tokens": 0}\n', "line 1: 'loss' is missing"),
        (f"{line(0, accuracy=True)}\n", "line 1: 'accuracy' is True"),
    ],
)
def test_damaged_metrics_are_named(tmp_path: Path, lines: str, says: str) -> None:
    path = written(tmp_path, lines) / "metrics.jsonl"
    with pytest.raises(GraphcloneError) as caught:
        read_runs(tmp_path)
    assert str(caught.value).startswith(f"{path}, {says}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "damaged"),
        ("[]", "expected a JSON object"),
        (json.dumps(SETTINGS | {"steps": "many"}), "'steps' is 'many', expected int"),
        (json.dumps({key: SETTINGS[key] for key in SETTINGS if key != "seed"}), "'seed' is missing"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_damaged_description_is_named(tmp_path: Path, text: str | bytes, says: str) -> None:
    path = written(tmp_path, f"{line(0)}\n") / "run.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GraphcloneError) as caught:
        read_runs(tmp_path)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=r"no runs/\*/run.json"):
        read_runs(tmp_path)


def test_a_loss_that_is_not_a_number_is_worse_than_any(tmp_path: Path) -> None:
    written(tmp_path, f"{line(0)}\n{line(2, loss=math.nan)}\n")
    (run,) = read_runs(tmp_path)
    assert final_loss(run) == math.inf
    assert crossing(run.smooth, 5.0) is None
