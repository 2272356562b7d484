"""The page of a study: its data, and what a user does to it in a browser."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from graphclone.report import html, write_study
from graphclone.study.page import page_of_study
from tests.study.test_curves import ended, family, saved_runs
from tests.study.test_measures import base, made
from tests.support.browser import MISSING, Browser, browser
from tests.support.command_line import Refused, folder, refused

__all__ = ["folder", "refused"]

needs_plotly = pytest.mark.skipif(find_spec("plotly") is None, reason="plotly is not installed")
needs_browser = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed")


def test_every_run_is_there_with_its_curve() -> None:
    page = page_of_study(family())
    (clone,) = (run for run in page["runs"] if run["recipe"] == "diagonal" and run["steps"] == 500)
    assert (clone["steps_at"], clone["loss"], clone["last"]) == ([0, 500], [2.6, 1.6], 1.6)
    # 6 operations a parameter and token: 1000 of them on 16 tokens a step, and a quarter for 1000 steps of the base
    assert (clone["compute_per_step"], clone["base_compute"]) == (6 * 1000 * 16, 6 * 250 * 16 * 1000)
    assert {run["recipe"] for run in page["runs"]} == {"base", "random", "diagonal"}


def test_ratios_are_lines_over_the_gap() -> None:
    (line,) = page_of_study(family())["ratios"]
    assert line["points"][-1] == [pytest.approx(0.85), pytest.approx(4)]
    assert all(ratio == pytest.approx(4) for _, ratio in line["points"])


def test_what_is_no_number_becomes_none() -> None:
    page = page_of_study([base(), ended(100, math.inf, "diagonal")])
    assert page["runs"][1]["last"] is None
    json.dumps(page, allow_nan=False)


def test_a_run_that_has_just_begun_is_left_out_and_one_under_way_is_not() -> None:
    half = made(lambda step: 2.0, steps=100, name="half")
    begun = type(half)(**{**vars(half), "name": "begun", "evaluations": ()})
    under_way = type(half)(**{**vars(half), "evaluations": half.evaluations[:6]})
    (run,) = page_of_study([begun, under_way])["runs"]
    assert (run["name"], run["finished"], run["done"]) == ("half", False, 0.5)


@needs_plotly
def test_it_is_one_small_file_that_asks_for_nothing(tmp_path: Path) -> None:
    write_study("A <study>", page_of_study(family((0, 1))), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    own = text.replace(html._charts().read_text(), "")
    assert "A &lt;study&gt;" in own
    assert len(text) < 8_000_000
    assert not any(word in own for word in ("http:", "https:", "src=", "{{"))


@needs_plotly
def test_a_page_that_cannot_be_written_is_refused_before_anything_is_trained(folder: Path, refused: Refused) -> None:
    assert ".html file" in refused("study", "mini", "--html", "page.txt")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    place = tmp_path_factory.mktemp("page")
    runs = [*family((0, 1)), *(ended(steps, loss + 0.1, "uneven") for steps, loss in ((250, 2.0), (500, 1.6)))]
    saved_runs(place, runs)
    write_study("A study", page_of_study(runs), place / "page.html")
    with browser() as found:
        found.open(place / "page.html")
        yield found


@needs_plotly
@needs_browser
@pytest.mark.slow
class TestInABrowser:
    """What a user does to the page."""

    def test_all_charts_are_drawn_without_a_complaint(self, shown: Browser) -> None:
        for chart in ("ratio", "ends", "run-chart"):
            assert shown.count(f"#{chart} .main-svg") > 0
        assert shown.complaints() == []

    def test_a_filter_takes_lines_and_rows_away(self, shown: Browser) -> None:
        lines = "return document.getElementById('run-chart').data.length"
        before, rows = shown.run(lines), shown.count("#runs tbody tr")
        shown.click("#recipes input[value=uneven]")
        assert shown.run(lines) == before - 2
        assert shown.count("#runs tbody tr") == rows - 2
        shown.click("#recipes input[value=uneven]")
        shown.click("#seeds input[value='1']")
        assert "s1" not in shown.text("#runs")
        shown.click("#seeds input[value='1']")
        assert shown.run(lines) == before
        assert shown.complaints() == []

    def test_compute_counts_the_base(self, shown: Browser) -> None:
        first = "const lines = document.getElementById('run-chart').data; "
        first += "return lines.find((line) => line.hovertemplate.includes('diagonal')).x[0]"
        assert shown.run(first) == 0
        select = "const axis = document.getElementById('against'); axis.value = arguments[0]; "
        select += "axis.dispatchEvent(new Event('change'))"
        shown.run(select, "compute")
        assert shown.run(first) == 6 * 250 * 16 * 1000
        shown.run(select, "steps")

    @pytest.mark.parametrize("width", [375, 1440])
    def test_nothing_sticks_out(self, shown: Browser, width: int) -> None:
        shown.resize(width, 900)
        assert shown.soon(f"return document.documentElement.scrollWidth <= {width}")
        tall = "return [...document.querySelectorAll('.chart')].every("
        tall += "(it) => it.offsetHeight >= it.querySelector('.svg-container').offsetHeight)"
        assert shown.soon(tall)
        assert shown.complaints() == []
