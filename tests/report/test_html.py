"""The page as a file, and in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from graphclone.cli import main
from graphclone.report import html, node_data, render, write
from graphclone.report.page import Page
from tests.report.models import model
from tests.report.screenshots import SCREENSHOTS
from tests.support.browser import MISSING, Browser, browser
from tests.support.command_line import Refused

needs_plotly = pytest.mark.skipif(find_spec("plotly") is None, reason="plotly is not installed")
needs_browser = pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed")

DOCS = Path(__file__).resolve().parents[2] / "docs" / "report.md"

MOST_BYTES = 8_000_000


@needs_plotly
def test_it_is_one_file_that_asks_for_nothing(page: Page, tmp_path: Path) -> None:
    write(page, tmp_path / "page.html")
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    assert len(text.encode()) < MOST_BYTES
    own = text.replace(html._charts().read_text(), "")
    assert "default-src 'none'" in own
    assert not any(word in own for word in ("http:", "https:", "//cdn", '<link rel="stylesheet', "src=", "{{"))


@needs_plotly
def test_names_cannot_break_out_of_the_page(page: Page) -> None:
    from dataclasses import replace

    text = render(replace(page, model="</script><script>alert(1)</script>"))
    assert "</script><script>alert" not in text


def test_without_plotly(folder: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_PACKAGE", "a-package-that-is-not-there")
    for command in (["inspect", "my_models:mlp"], ["clone", "my_models:mlp", "-o", "wide.safetensors"]):
        assert "pip install 'graphclone[report]'" in refused(*command, "--html", "page.html")


@needs_plotly
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--html", "page.txt"], ".html file"),
        (["--html", "nowhere/page.html"], "no folder"),
        (["--html", "page.html", "--why", "0"], "leave --why out"),
    ],
)
def test_a_page_that_cannot_be_written(folder: Path, refused: Refused, argv: list[str], message: str) -> None:
    assert message in refused("inspect", "my_models:mlp", *argv)


@needs_plotly
def test_a_dry_run_has_no_page(folder: Path, refused: Refused) -> None:
    assert "--dry-run" in refused("clone", "my_models:mlp", "-o", "wide.onnx", "--dry-run", "--html", "page.html")


@needs_plotly
def test_the_commands_write_pages(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "my_models:mlp", "--html", "before.html"]) == 0
    assert "written to before.html" in capfd.readouterr().out
    assert main(["clone", "my_models:mlp", "-o", "wide.safetensors", "--html", "after.html"]) == 0
    assert "written to wide.safetensors; the page to after.html" in capfd.readouterr().out
    assert "graphclone clone my_models:mlp -o wide.safetensors" in (folder / "after.html").read_text()
    assert (folder / "before.html").is_file()


@needs_plotly
def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    module, args = model()
    exec(compile(block, str(DOCS), "exec", dont_inherit=True), {"model": module, "args": args})
    assert {path.name for path in tmp_path.iterdir()} == {"before.html", "after.html"}


def test_links_of_the_docs_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", DOCS.read_text())
    assert [t for t in targets if not t.startswith("https://") and not (DOCS.parent / t).exists()] == []


@pytest.mark.parametrize("image", sorted(DOCS.with_suffix("").glob("*.png")), ids=lambda path: path.stem)
def test_images_are_small(image: Path) -> None:
    assert image.stat().st_size < 200_000


def test_every_image_can_be_taken_again() -> None:
    assert {image.stem for image in DOCS.with_suffix("").glob("*.png")} == {*SCREENSHOTS}


def test_node_data_has_every_operation_with_a_dim(folder: Path, page: Page) -> None:
    assert main(["inspect", "my_models:mlp", "--node-data", "dims.json"]) == 0
    results = json.loads((folder / "dims.json").read_text())["results"]
    assert {"linear", "relu", "linear_1"} <= set(results)
    assert results["linear"]["value"] == "[2, 14]" and results["linear"]["bgColor"].startswith("#")
    of_page: Any = node_data(page)["results"]
    assert of_page.keys() >= {"linear", "scaled_dot_product_attention_3"}
    assert "hidden=" in of_page["embedding"]["value"]


def test_node_data_that_cannot_be_written(folder: Path, refused: Refused) -> None:
    assert ".json file" in refused("inspect", "my_models:mlp", "--node-data", "dims.txt")
    assert "leave --ranks out" in refused("inspect", "my_models:mlp", "--node-data", "dims.json", "--ranks", "2")


# In a browser


@pytest.fixture(scope="module")
def shown(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The page of a model, opened from disk; every test leaves it as it was."""
    yield from _opened(page, tmp_path_factory.mktemp("model") / "page.html")


@pytest.fixture(scope="module")
def shown_clone(clone_page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from _opened(clone_page, tmp_path_factory.mktemp("clone") / "page.html")


def _opened(page: Page, path: Path) -> Iterator[Browser]:
    write(page, path)
    with browser() as found:
        found.open(path)
        yield found


def _chip(page: Page, name: str) -> str:
    number = next(number for number, dim in enumerate(page.dims) if dim.name == name)
    return f"#tree .chip[data-dim='{number}']"


@needs_plotly
@needs_browser
@pytest.mark.slow
class TestInABrowser:
    """What a user does to the page."""

    def test_a_click_lights_up_a_dim_and_names_its_pin(self, shown: Browser, page: Page) -> None:
        assert shown.count(".row.lit") == 0
        shown.click(_chip(page, "head"))
        assert "Pinned: the output keeps its shape (output)." in shown.text("#detail")
        assert "head.weight" in shown.text("#detail")
        lit = shown.run("return [...document.querySelectorAll('.row.lit')].map((row) => row.innerText)")
        assert any("head.weight" in row for row in lit) and not any("qkv" in row for row in lit)
        shown.click("#detail .close")
        assert shown.count(".row.lit") == 0
        assert shown.complaints() == []

    def test_search_opens_what_is_found(self, shown: Browser) -> None:
        shown.type("#search", "layers.3.down.weight")
        assert "1 found" in shown.text("#found")
        shown.click("#found button")
        assert "down" in shown.text(".row.found")
        assert shown.run("return document.querySelector('.row.found').offsetHeight") > 0
        assert shown.complaints() == []

    def test_search_finds_dims(self, shown: Browser) -> None:
        shown.type("#search", "HIDDEN")
        shown.click("#found button")
        assert shown.text("#detail h3").strip() == "hidden"
        shown.run("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))")
        assert shown.count(".row.lit") == 0

    def test_the_slider_counts(self, shown: Browser, page: Page) -> None:
        counts = {cost.factor: sum(cost.parameters) for cost in page.choices[0].costs}
        assert f"{counts[2]:,}" in shown.text("#count")
        move = "const slider = document.getElementById('factor'); slider.value = arguments[0]; "
        move += "slider.dispatchEvent(new Event('input'))"
        shown.run(move, 12)
        assert f"{counts[4]:,}" in shown.text("#count")
        shown.run(move, 1)
        assert "no whole number" in shown.text("#count")
        assert shown.complaints() == []

    def test_operations_without_a_dim_are_shown_on_request(self, shown: Browser) -> None:
        visible = "return [...document.querySelectorAll('.bare')].filter((row) => row.offsetParent).length"
        assert shown.count(".bare") > 0 and shown.run(visible) == 0
        shown.click("#all")
        assert shown.run(visible) == shown.count(".bare")
        shown.click("#all")

    def test_layers_unfold(self, shown: Browser) -> None:
        rows = {}
        for _ in range(2):
            shown.click("#tree .more")
            visible = "return [...document.querySelectorAll('.row')].filter((row) => row.offsetParent).length"
            rows[shown.text("#tree .more")] = shown.run(visible)
            assert ("0 to 3" in shown.text("#tree")) == (shown.text("#tree .more") == "unfold")
        assert rows["fold 4 into one"] >= rows["unfold"] + 3

    @pytest.mark.parametrize("width", [375, 1440])
    def test_nothing_sticks_out(self, shown_clone: Browser, width: int) -> None:
        shown_clone.resize(width, 900)
        assert shown_clone.soon(f"return document.documentElement.scrollWidth <= {width}")
        assert shown_clone.complaints() == []

    def test_a_clone_has_its_charts(self, shown_clone: Browser) -> None:
        for chart in ("bars", "before", "after", "errors", "outputs"):
            assert shown_clone.count(f"#{chart} .main-svg") > 0
        assert "equivalent" in shown_clone.text("#verdict")
        shown_clone.darken()
        assert shown_clone.run("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        assert shown_clone.complaints() == []
