"""The report of a study, from folders written here whose numbers are known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from graphclone.errors import GraphcloneError
from graphclone.study import looks, plots, tables
from graphclone.study.markdown import files
from graphclone.study.measures import comparisons
from graphclone.study.records import read_runs
from graphclone.study.tables import report, write_report

STEPS = 1000


def write(folder: Path, name: str, loss: Callable[[int], float], *, until: int = STEPS, **changed: Any) -> None:
    """A run evaluated every 50 steps; entries of evaluations among ``changed`` are the same in all of them."""
    settings = {
        "name": name,
        "kind": "wide",
        "model": "small",
        "recipe": "symmetric",
        "factor": 2,
        "seed": 0,
        "base": "base-s0",
        "base_label": "short",
        "parameters": 1000,
        "steps": STEPS,
        "batch": 2,
        "context": 8,
        "learning_rate": 0.001,
        "warmup": 10,
        "corpus": "0123456789abcdef",
        "command": "graphclone study s.toml",
        "scores": {},
    }
    run = settings | {key: value for key, value in changed.items() if key in settings}
    more = {key: value for key, value in changed.items() if key not in settings}
    place = folder / "runs" / name
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps(run))
    lines = ({"step": step, "tokens": 16 * step, "loss": loss(step)} | more for step in range(0, until + 1, 50))
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_base(folder: Path, seed: int = 0, loss: float = 3.0) -> None:
    run = {"kind": "base", "recipe": None, "base": None, "factor": 1, "parameters": 250, "steps": 400, "seed": seed}
    write(folder, f"base-s{seed}", lambda step: loss, until=400, effective_rank=0.75, **run)


def write_random(folder: Path, seed: int = 0, end: float = 2.0) -> None:
    """From 5 to ``end`` in a straight line."""
    run = {"recipe": "random", "base": None, "base_label": None, "seed": seed}
    write(folder, f"random-s{seed}", lambda step: 5 - (5 - end) * step / STEPS, **run)


def study(folder: Path) -> Path:
    """Two seeds of random, and of clones that begin at 3, are at 2 after 250 and 500 steps, and end at 1.5 and 1.6."""
    for seed, pace, end in ((0, 250, 1.5), (1, 500, 1.6)):
        write_base(folder, seed)
        write_random(folder, seed)
        more = {"accuracy": 0.25 + 0.5 * seed, "row_cosine": 1.0, "column_cosine": None, "swap_cosine": 0.5}

        def fall(step: int, pace: int = pace, end: float = end) -> float:
            return max(end, 3 - step / pace)

        write(folder, f"sym-s{seed}", fall, seed=seed, base=f"base-s{seed}", effective_rank=0.125, **more)
    return folder


def rows(text: str, title: str) -> dict[str, dict[str, str]]:
    """The first table under a heading, by its first column."""
    after = text.split(f"{title}\n", 1)[1]
    lines = [line for line in after.split("\n\n#", 1)[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


RESULTS = "### small, 2x, base short"


def result(folder: Path, recipe: str = "symmetric") -> dict[str, str]:
    return rows(report(folder), RESULTS)[recipe]


# --- Numbers ---


def test_a_row_has_the_numbers_of_its_runs(tmp_path: Path) -> None:
    """Ratios 4 and 2. Compute of seed 0: 1000 x 1000 over 1000 x 250 + 250 x 400, and of seed 1 with 500 steps."""
    assert result(study(tmp_path)) == {
        "recipe": "symmetric",
        "seeds": "2",
        "loss": "1.550 ± 0.071",
        "accuracy": "0.500",
        "brackets": "",
        "indentation": "",
        "identifiers": "",
        "speedup": "3.00 (2.00..4.00)",
        "with base": f"{(1000 / 350 + 1000 / 600) / 2:.2f} ({1000 / 600:.2f}..{1000 / 350:.2f})",
        "dip": "0.000",
        "back at": "0",
        "row": "1.000",
        "column": "",
        "swap": "0.500",
        "rank": "0.125",
        "runs": "`runs/sym-s*`",
    }


def test_bases_and_random_stand_above_the_clones(tmp_path: Path) -> None:
    found = rows(report(study(tmp_path)), RESULTS)
    assert list(found) == ["*base*", "random", "symmetric"]
    assert found["*base*"]["loss"] == "3.000 ± 0.000"
    assert found["*base*"]["rank"] == "0.750"
    assert found["random"]["loss"] == "2.000 ± 0.000"
    assert [found["random"][column] for column in ("speedup", "dip", "back at")] == ["", "", ""]


def test_what_was_run(tmp_path: Path) -> None:
    text = report(study(tmp_path))
    table = text.split("## Results")[0]
    assert "`0123456789abcdef`" in table
    assert "    graphclone study s.toml\n" in table
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    same = ["0.001", "10", "0123456789ab"]
    assert cells[2:] == [
        ["small", "base short", "250", "400", "2", "8", "6,400", *same, "2", ""],
        ["small", "grown 2x", "1,000", "1,000", "2", "8", "16,000", *same, "4", "random, symmetric"],
    ]


def test_numbers_are_flush_right(tmp_path: Path) -> None:
    rule = next(line for line in report(study(tmp_path)).split(RESULTS)[1].splitlines() if line.startswith("| --"))
    aligned = [cell.strip().endswith(":") for cell in rule.strip("|").split("|")]
    assert aligned == [False, *[True] * 14, False]


def test_a_dip_and_the_way_back(tmp_path: Path) -> None:
    """Up from 3 to 3.5 at step 50, then straight down to 2.5 at 150: back at 100."""
    write(tmp_path, "sym", lambda step: [3.0, 3.5, 3.0, 2.5][min(step // 50, 3)])
    found = result(tmp_path)
    assert (found["dip"], found["back at"]) == ("0.500", "100")


# --- What cannot be said ---


def test_a_clone_that_never_gets_there(tmp_path: Path) -> None:
    write_base(tmp_path)
    write_random(tmp_path)
    write(tmp_path, "sym", lambda step: 2.5)
    assert result(tmp_path)["speedup"] == "1 never ¹"
    assert result(tmp_path)["with base"] == "1 never ¹"
    assert f"\n¹ {tables.NOTES['¹']}" in report(tmp_path)


def test_a_mean_over_some_seeds_says_so(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_base(tmp_path, seed)
        write_random(tmp_path, seed)
        write(tmp_path, f"sym-{seed}", lambda step, s=seed: 3 - step / (500 + 800 * s), seed=seed, base=f"base-s{seed}")
    assert result(tmp_path)["speedup"] == "2.00, 1 never ¹"


def test_a_speedup_over_a_random_model_no_better_than_the_base_means_nothing(tmp_path: Path) -> None:
    write_base(tmp_path, loss=3.0)
    write_random(tmp_path, end=2.995)
    write(tmp_path, "sym", lambda step: 3 - step / STEPS)
    assert result(tmp_path)["speedup"] == result(tmp_path)["with base"] == "1 no gap ³"
    assert tables.NOTES["³"] in report(tmp_path)


def test_a_seed_without_a_gap_does_not_count(tmp_path: Path) -> None:
    for seed, end in ((0, 2.0), (1, 2.995)):
        write_base(tmp_path, seed, loss=3.0)
        write_random(tmp_path, seed, end=end)
        write(tmp_path, f"sym-{seed}", lambda step: 3 - step / 500, seed=seed, base=f"base-s{seed}")
    assert result(tmp_path)["speedup"] == "2.00, 1 no gap ³"


def test_a_clone_that_begins_below(tmp_path: Path) -> None:
    """Random ends at 2, the base at 3; the clone, which is not its base's equal, begins at 1.9."""
    write_base(tmp_path)
    write_random(tmp_path)
    write(tmp_path, "sym", lambda step: 1.9 - step / STEPS)
    assert result(tmp_path)["speedup"] == "begins below ²"
    assert result(tmp_path)["with base"] == "10.00 ²"


def test_a_loss_that_does_not_come_back(tmp_path: Path) -> None:
    write(tmp_path, "sym", lambda step: 3.0 + (step > 0))
    assert result(tmp_path)["back at"] == "1 never ⁴"


def test_marks_that_are_not_used_are_not_explained(tmp_path: Path) -> None:
    text = report(study(tmp_path))
    assert not [sign for sign in tables.NOTES if sign in text]


def test_a_clone_without_a_random_run_has_no_speedup(tmp_path: Path) -> None:
    write(tmp_path, "sym", lambda step: 2.0)
    assert (result(tmp_path)["speedup"], result(tmp_path)["with base"]) == ("", "")
    assert result(tmp_path)["loss"] == "2.000"


def test_a_speedup_without_its_base_has_no_compute(tmp_path: Path) -> None:
    write_random(tmp_path)
    write(tmp_path, "sym", lambda step: 3 - step / 250)
    assert (result(tmp_path)["speedup"], result(tmp_path)["with base"]) == ("4.00", "")


def test_unfinished_runs_are_listed_and_not_counted(tmp_path: Path) -> None:
    write(study(tmp_path), "sym-s2", lambda step: 9.0, until=250, seed=2)
    write(tmp_path, "waiting", lambda step: 9.0, until=-1, seed=3)
    text = report(tmp_path)
    assert rows(text, "## Unfinished") == {
        "`sym-s2`": {"run": "`sym-s2`", "step": "250", "of": "1,000", "done": "25%", "loss": "9.000"},
        "`waiting`": {"run": "`waiting`", "step": "0", "of": "1,000", "done": "0%", "loss": ""},
    }
    assert rows(text, RESULTS)["symmetric"]["loss"] == "1.550 ± 0.071"
    assert rows(text, RESULTS)["symmetric"]["runs"] == "`runs/sym-s0` `runs/sym-s1`", "a pattern would match sym-s2"


def test_a_study_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    write(tmp_path, "sym", lambda step: 9.0, until=0)
    text = report(tmp_path)
    assert "## Results" not in text
    assert list(rows(text, "## Unfinished")) == ["`sym`"]


def test_corpora_that_differ_are_pointed_out(tmp_path: Path) -> None:
    write_random(tmp_path)
    write(tmp_path, "sym", lambda step: 2.0, corpus="fedcba")
    assert "`0123456789abcdef`, `fedcba`. Losses on different corpora cannot be compared" in report(tmp_path)
    assert result(tmp_path)["speedup"] == ""


@pytest.mark.parametrize(
    ("wanted", "others", "pattern"),
    [
        (["a-s0", "a-s1"], ["b-s0"], "`runs/a-s*`"),
        (["x-s0-y", "x-s12-y"], [], "`runs/x-s*-y`"),
        (["a", "a-b"], ["a-c"], "`runs/a` `runs/a-b`"),
        (["a-s0"], [], "`runs/a-s0`"),
    ],
)
def test_patterns_match_what_they_stand_for(tmp_path: Path, wanted: list[str], others: list[str], pattern: str) -> None:
    for name in (*wanted, *others):
        write(tmp_path, name, lambda step: 2.0, until=0)
    runs = read_runs(tmp_path)
    assert files([run for run in runs if run.name in wanted], [run.name for run in runs]) == pattern


# --- Plots ---


def drawn(folder: Path) -> str:
    write_report(folder)
    return (folder / "plots" / "small-2x-short.svg").read_text()


def test_the_report_is_written_with_its_plots(tmp_path: Path) -> None:
    path = write_report(study(tmp_path))
    assert path == tmp_path / "report.md"
    text = path.read_text()
    image = "\n\n![Loss and symmetry of small, 2x, base short](plots/small-2x-short.svg)"
    assert text.replace(image, "") == report(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plots", "report.md", "runs"]


def test_a_plot_is_the_same_bytes_again_and_small(tmp_path: Path) -> None:
    first, second = drawn(study(tmp_path / "a")), drawn(study(tmp_path / "b"))
    assert first == second
    assert len(first) < 150_000


def test_a_plot_says_what_it_shows(tmp_path: Path) -> None:
    root = ET.fromstring(drawn(study(tmp_path)))
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    named = {"random", "symmetric", "base's last", "random's last", "small, 2x, base short", "steps"}
    assert named | {"swap cosine", "row cosine", "validation loss, nats per token"} <= texts


def test_a_plot_without_cosines_has_one_panel(tmp_path: Path) -> None:
    write_random(tmp_path)
    write(tmp_path, "sym", lambda step: 2.0)
    assert "swap cosine" not in drawn(tmp_path)


def test_many_recipes_and_evaluations_stay_small(tmp_path: Path) -> None:
    for recipe in range(14):
        for seed in (0, 1):
            write(
                tmp_path,
                f"r{recipe}-s{seed}",
                lambda step, r=recipe, s=seed: 3 - r / 20 - s / 9 + (step // 50 % 7) / 10,
                recipe=f"recipe-{recipe}",
                seed=seed,
                swap_cosine=0.5,
                row_cosine=0.4,
                steps=20_000,
                until=20_000,
            )
    assert len(drawn(tmp_path)) < 150_000


def test_a_line_is_the_mean_over_seeds_with_its_range(tmp_path: Path) -> None:
    (compared,) = comparisons(read_runs(study(tmp_path)))
    line = plots.over_seeds(compared.recipes["symmetric"], "loss")
    assert line[0] == (0, 3.0, 3.0, 3.0)
    assert line[5] == (250, 2.25, 2.0, 2.5)
    assert line[-1] == (1000, pytest.approx(1.55), 1.5, 1.6)
    assert plots.over_seeds(compared.recipes["symmetric"], "column_cosine") == []


def test_a_thinned_line_keeps_its_ends() -> None:
    line = [(step, 1.0, 1.0, 1.0) for step in range(1000)]
    thin = plots.thinned(line)
    assert (len(thin), thin[0], thin[-1]) == (looks.POINTS, line[0], line[-1])
    assert plots.thinned(line[:50]) == line[:50]


@pytest.mark.parametrize(
    ("places", "moved"),
    [([0.1, 0.5], [0.1, 0.5]), ([0.5, 0.5], [0.5, 0.75]), ([0.9, 1.0], [0.75, 1.0]), ([-1.0, 0.1], [0.0, 0.25])],
)
def test_labels_are_apart(places: list[float], moved: list[float]) -> None:
    assert plots.apart(places, 0.25) == pytest.approx(moved)


def test_without_matplotlib_the_report_says_that_there_are_no_plots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    text = write_report(study(tmp_path)).read_text()
    assert "matplotlib is not installed" in text
    assert rows(text, RESULTS)["symmetric"]["speedup"] == "3.00 (2.00..4.00)"
    assert not (tmp_path / "plots").exists()


def test_tables_need_no_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from graphclone.study.tables import report\n"
        "assert '3.00 (2.00..4.00)' in report(Path(sys.argv[1])); print('matplotlib' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, study(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (study(tmp_path) / "plots").write_text("in the way")
    with pytest.raises(GraphcloneError, match=r"cannot write to .*plots"):
        write_report(tmp_path)


def test_scores_of_several_rates_stand_apart(tmp_path: Path) -> None:
    """Only runs that differ in nothing but the seed have a mean."""
    for name, seed, rate, score in (("a", 0, 1e-3, 0.25), ("b", 1, 1e-3, 0.75), ("c", 0, 2e-3, 1.0)):
        run = {"recipe": "random", "base": None, "base_label": None}
        write(tmp_path, name, lambda step: 2.0, seed=seed, learning_rate=rate, scores={"lines": [score, 0.125]}, **run)
    section = report(tmp_path).partition("## Downstream")[2]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if "random" in line]
    assert [row[4:] for row in rows] == [
        ["1,000", "0.001", "2", "0.500 ± 0.125"],
        ["1,000", "0.002", "1", "1.000 ± 0.125"],
    ]


@pytest.mark.parametrize("name", ["small", "curves", "downstream", "gpu", "further"])
def test_the_published_report_is_what_its_runs_say(name: str, tmp_path: Path) -> None:
    published = Path(__file__).resolve().parents[2] / "docs" / "study" / name
    shutil.copytree(published / "runs", tmp_path / "runs")
    assert write_report(tmp_path).read_text() == (published / "report.md").read_text()
    drawn = {path.name for path in (tmp_path / "plots").glob("*")}
    assert drawn == {path.name for path in (published / "plots").glob("*")}
