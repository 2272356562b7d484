"""Take the screenshots of ``docs/report.md``: ``python -m tests.report.screenshots`` writes ``docs/report/*.png``.

It needs Chromium and chromedriver. Look at every picture before you commit it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import graphclone as gc
from graphclone.report import page_of, page_of_clone, write
from graphclone.report.page import Page
from tests.support.browser import browser
from tests.support.zoo import ZOO

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "report"


@dataclass(frozen=True)
class Screenshot:
    """A picture of a page.

    Attributes:
        page: makes the page.
        size: width and height, in pixels.
        dim: the name of the dim that is clicked.
        section: the id of the element that the page is scrolled to; empty for its top.
        dark: whether the reader prefers dark colours.
    """

    page: Callable[[], Page]
    size: tuple[int, int]
    dim: str
    section: str = ""
    dark: bool = False


def _inspected(name: str) -> Page:
    source = ZOO[name].build()
    return page_of(gc.trace(source.module, source.args, source.kwargs, name=name))


def _cloned(name: str) -> Page:
    source = ZOO[name].build()
    clone = gc.clone(source.module, source.args, source.kwargs, widen=2, strategy="noisy-symmetric", name=name)
    return page_of_clone(clone, f"graphclone clone models.py:{name} -o wide.onnx", clone.verify())


SCREENSHOTS = {
    "mini": Screenshot(partial(_inspected, "opt-mini"), (1100, 1000), "hidden"),
    "language-model": Screenshot(partial(_inspected, "llama-gqa"), (1100, 1150), "layers.*.self_attn.heads"),
    "image-classifier": Screenshot(
        partial(_cloned, "mobilenet"), (1100, 900), "pointwise", "weights-heading", dark=True
    ),
}
"""Every screenshot, by the name of its file."""


def take(name: str, shot: Screenshot) -> None:
    """Take a screenshot, in a browser of its own.

    Raises:
        ValueError: the page has no such dim, or its script complains.
    """
    with TemporaryDirectory() as folder, browser() as shown:
        path = Path(folder) / "page.html"
        write(shot.page(), path)
        shown.resize(*shot.size)
        if shot.dark:
            shown.darken()
        shown.open(path)
        dim = shown.run("return data.dims.findIndex((dim) => dim.name === arguments[0])", shot.dim)
        if dim < 0:
            raise ValueError(f"{name}: there is no dim {shot.dim}")
        shown.run("select(arguments[0])", dim)
        if shot.section:
            shown.run("document.getElementById(arguments[0]).scrollIntoView()", shot.section)
        picture = shown.devtools("Page.captureScreenshot", {"format": "png"})["data"]
        if complaints := shown.complaints():
            raise ValueError(f"{name}: {complaints}")
    (FOLDER / f"{name}.png").write_bytes(base64.b64decode(picture))


def main() -> None:
    for name, shot in SCREENSHOTS.items():
        take(name, shot)


if __name__ == "__main__":
    main()
