"""The page as one HTML file, which opens from disk and asks no network for anything.

Charts are drawn by plotly, whose wheel ships its JavaScript as one file and which needs but one package besides; other
libraries that do so bring tables and servers along. The tree, its bands and the search are the page's own, in
``assets/``. A content security policy in the page forbids whatever is not in it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from html import escape
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path

from graphclone.errors import GraphcloneError
from graphclone.report.page import Page
from graphclone.runtime.files import written

_PACKAGE = "plotly"

_SCRIPT = "plotly/package_data/plotly.min.js"


def check_target(path: Path) -> None:
    """Refuse a path that no page can be written to, before any work is done.

    Raises:
        GraphcloneError: it does not end in ``.html``, its folder does not exist, or plotly is not installed.
    """
    if path.suffix != ".html":
        raise GraphcloneError(f"{path}: a page is an .html file; give it that suffix")
    if not path.parent.is_dir():
        raise GraphcloneError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise GraphcloneError(f"{path}: is a folder; give the path of a file")
    _charts()


def write(page: Page, path: Path) -> None:
    """Write a page, whole or not at all; a page that is there already is replaced.

    Raises:
        GraphcloneError: as ``check_target`` does, or the file cannot be written.

    Examples:
        >>> from graphclone.report import page_of
        >>> write(page_of(gc.trace(model, (x,))), folder.with_name("page.html"))
    """
    check_target(path)
    text = render(page)
    with written(path) as stage:
        stage.write_text(text, encoding="utf-8")


def render(page: Page) -> str:
    """The page as text.

    Raises:
        GraphcloneError: plotly is not installed.
    """
    assets = files("graphclone.report") / "assets"
    parts = {
        name: (assets / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "tree.js", "page.js")
    }
    data = json.dumps(page.to_dict(), separators=(",", ":"), allow_nan=False)
    text = parts.pop("page.html")
    slots = {
        "title": escape(page.model, quote=False),
        "style": parts["page.css"],
        "charts": _charts().read_text(encoding="utf-8"),
        "script": parts["tree.js"] + parts["page.js"],
        "data": data.replace("<", "\\u003c"),
    }
    head, *rest = text.split("{{")
    pieces = (piece.split("}}", 1) for piece in rest)
    return head + "".join(slots[name] + tail for name, tail in pieces)


def _charts() -> Path:
    """Where the JavaScript of plotly is; the Python around it is not loaded."""
    with suppress(PackageNotFoundError):
        path = Path(str(distribution(_PACKAGE).locate_file(_SCRIPT)))
        if path.is_file():
            return path
    raise GraphcloneError("a page needs plotly, which is not there: pip install 'graphclone[report]'")
