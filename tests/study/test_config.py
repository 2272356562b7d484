"""What a RUN.toml may say, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphclone.cli.__main__ import main
from graphclone.errors import GraphcloneError
from graphclone.study.config import read, shipped
from graphclone.study.recipes import RANDOM, RECIPES, RECOMMENDED, Recipe
from graphclone.study.runs import jobs

PLAIN = """
[[model]]
name = "a"
source = "opt-mini"
[[model]]
name = "b"
source = "olmo-mini"
[[base]]
name = "short"
steps = 10
[[base]]
name = "long"
steps = 100
learning_rate = 1
[training]
steps = 50
"""


def _read(tmp_path: Path, text: str):
    path = tmp_path / "run.toml"
    path.write_text(text)
    return read(str(path))


def test_a_plain_study_compares_the_recommended_recipe_with_random_weights(tmp_path: Path) -> None:
    study = _read(tmp_path, PLAIN)
    assert [job.name for job in jobs(study)] == [
        f"{model}-{name}"
        for model in "ab"
        for name in (
            "1x-short-base-s0",
            "2x-random-s0",
            f"2x-short-{RECOMMENDED}-s0",
            "1x-long-base-s0",
            f"2x-long-{RECOMMENDED}-s0",
        )
    ]


def test_base_and_recipe_change_the_schedule(tmp_path: Path) -> None:
    own = '[[recipe]]\nname = "gentle"\nstrategy = "diagonal"\nlearning_rate = 0.5\nwarmup = 3\n'
    study = _read(tmp_path, PLAIN + own + '[[compare]]\nrecipes = ["gentle"]\nbases = ["long"]\nmodels = ["a"]\n')
    base, random, gentle = jobs(study)
    assert (base.training.steps, base.training.learning_rate) == (100, 1.0)
    assert (random.training.steps, random.training.learning_rate, random.training.warmup) == (50, 2e-3, 100)
    assert (gentle.training.steps, gentle.training.learning_rate, gentle.training.warmup) == (50, 1e-3, 3)
    assert gentle.needs == (base,)
    assert random.needs == ()


def test_overlapping_grids_run_once(tmp_path: Path) -> None:
    grid = '[[compare]]\nmodels = ["a"]\nbases = ["short"]\nseeds = [0, 1]\n'
    more = '[[compare]]\nmodels = ["a"]\nbases = ["short"]\nseeds = [1, 2]\nfactors = [2, 4]\n'
    names = [job.name for job in jobs(_read(tmp_path, PLAIN + grid + more))]
    assert len(names) == len(set(names)) == 3 + 2 * (3 + 2)


def test_budgets_and_rates_are_runs_of_their_own(tmp_path: Path) -> None:
    own = '[[recipe]]\nname = "gentle"\nstrategy = "diagonal"\nlearning_rate = 0.5\n'
    grid = '[[compare]]\nmodels = ["a"]\nbases = ["short"]\nrecipes = ["gentle", "continued", "random"]\n'
    study = _read(tmp_path, PLAIN + own + grid + "budgets = [20, 40]\nrates = [1, 0.25]\n")
    found = {job.name: job for job in jobs(study)}
    several = ("b20", "b20-r0.25", "b40", "b40-r0.25")
    wide = [
        f"a-{name}-{budget}-s0" for name in ("2x-short-gentle", "1x-short-continued", "2x-random") for budget in several
    ]
    assert list(found) == ["a-1x-short-base-s0", "a-2x-random-s0", *wide]
    gentle, control = found["a-2x-short-gentle-b40-r0.25-s0"], found["a-1x-short-continued-b20-s0"]
    assert (gentle.training.steps, gentle.training.learning_rate) == (40, 2e-3 * 0.5 * 0.25)
    assert (control.factor, control.needs) == (1, (found["a-1x-short-base-s0"],))


def test_two_bases_are_merged(tmp_path: Path) -> None:
    grid = '[[compare]]\nmodels = ["a"]\nbases = ["short"]\nrecipes = ["inexact-merge"]\n'
    found = {job.name: job for job in jobs(_read(tmp_path, PLAIN + grid))}
    both = (found["a-1x-short-base-s0"], found["a-1x-short-base-s1"])
    assert found["a-2x-short-inexact-merge-s0"].needs == both


def test_a_base_may_keep_its_rate_up(tmp_path: Path) -> None:
    own = '[[base]]\nname = "open"\nsteps = 7\nfinal = 1\nmeasured_from = "short"\n'
    found = {job.name: job for job in jobs(_read(tmp_path, PLAIN + own))}
    assert found["a-1x-open-base-s0"].training.final == 1
    assert found["a-1x-short-base-s0"].training.final == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "model is missing"),
        (PLAIN + "[[compare]]\nbudgets = [0]\n", r"budgets = 0: must be at least 1"),
        (PLAIN + "[[compare]]\nrates = [0]\n", r"rates = 0.0: must be above 0"),
        (PLAIN + "[[base]]\nname = 'x'\nsteps = 1\nmeasured_from = 'y'\n", "measured_from: there is no 'y'"),
        ("model = []\nbase = []\n", r"no \[\[model\]\]"),
        (PLAIN + "[traning]\n", "unknown key 'traning'"),
        (PLAIN + "[[compare]]\nrecipe = []\n", r"compare\[0\]: unknown key 'recipe'"),
        (PLAIN + "[[compare]]\nrecipes = ['nothing']\n", "there is no 'nothing'; choose from random"),
        (PLAIN + "[[compare]]\nmodels = ['c']\n", "there is no 'c'; choose from a, b"),
        (PLAIN + "[[compare]]\nfactors = [1]\n", "at least 2"),
        (PLAIN + "[[compare]]\nseeds = 3\n", r"compare\[0\]: seeds: must be a list"),
        (PLAIN + "[data]\ncontext = '9'\n", "data: context = '9': must be int"),
        (PLAIN + "[data]\ncontext = true\n", "must be int"),
        (PLAIN + "[data]\ncontext = 0\n", "at least 1"),
        (PLAIN.replace("steps = 50", "steps = 0"), "must be at least 1"),
        (PLAIN.replace("steps = 50", "evaluate = 0"), "must be at least 1"),
        (PLAIN.replace("steps = 10\n", "steps = -1\n"), "at least 0"),
        (PLAIN + "[[recipe]]\nname = 'x'\nstrategy = 'wild'\n", "unknown strategy 'wild'"),
        (PLAIN + "[[recipe]]\nname = 'x'\nstrategy = 'diagonal'\nsnr_db = 3\n", "has no noise"),
        (PLAIN + "[[recipe]]\nname = 'x'\nsnr_db = 3\n", "has no noise"),
        (PLAIN + "[[recipe]]\nname = 'x'\nstrategy = 'diagonal'\ndropout = 1\n", "probability below 1"),
        (PLAIN + "[[model]]\nname = 'a'\nsource = 'y'\n", "two .* called 'a'"),
        (PLAIN + "[[model]]\nname = 'c'\nsource = 'y'\ngrows = 'deep'\n", "c: grows = 'deep': must be 'width'"),
        (PLAIN + "[[model]]\nname = 'c'\nsource = 'y'\ngrows = 'depth'\ndims = ['a']\n", "c: dims are widths"),
        (PLAIN + "[[model]]\nname = 'a/b'\nsource = 'y'\n", "letters, digits"),
        ("model = [", "cannot be read"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GraphcloneError, match=message) as caught:
        _read(tmp_path, text)
    assert "run.toml" in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_the_command_refuses_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(tmp_path / "none.toml")]) == 2
    assert capsys.readouterr().err.startswith("graphclone: ")
    (tmp_path / "run.toml").write_text(PLAIN)
    assert main(["study", str(tmp_path / "run.toml"), "--recipe", "wild", "-o", str(tmp_path / "out")]) == 2
    assert "recipe: there is no 'wild'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["study", "mini", "--jobs", "0"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GraphcloneError, match=r"no such file; give a RUN\.toml, or one of"):
        read(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", sorted(shipped()))
def test_the_shipped_studies_can_be_read(name: str) -> None:
    found = jobs(read(name))
    assert {job.recipe.name for job in found if job.recipe} > {RANDOM}
    assert len({job.name for job in found}) == len(found)


def test_the_studies_that_are_documented_are_there() -> None:
    assert set(shipped()) == {"mini", "small", "curves", "downstream", "gpu"}


def test_recipes_know_their_names() -> None:
    assert all(recipe.name == name for name, recipe in RECIPES.items())
    assert RECOMMENDED in RECIPES
    assert not Recipe("x").clones
