"""The page as one HTML file, which opens from disk and asks no network for anything.

Charts are drawn by plotly, whose wheel ships its JavaScript as one file and which needs but one package besides; other
libraries that do so bring tables and servers along. The tree, its bands and the search are the page's own, in
``assets/``. A content security policy in the page forbids whatever is not in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from importlib.metadata import PackageNotFoundError, distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphclone.errors import GraphcloneError
from graphclone.extras import MissingExtraError
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
    """Write the page of a model or a clone, whole or not at all; one that is there already is replaced.

    Raises:
        GraphcloneError: as ``check_target`` does, or the file cannot be written.

    Examples:
        >>> from graphclone.report import page_of
        >>> write(page_of(gc.trace(model, (x,))), folder.with_name("page.html"))
    """
    _write(render(page), path)


def write_study(title: str, data: Mapping[str, Any], path: Path) -> None:
    """Write the page of a study, as ``write`` does.

    Args:
        title: of the page.
        data: what ``graphclone.study.page`` gives.
        path: of the file.

    Raises:
        GraphcloneError: as for ``write``.
    """
    _write(render_study(title, data), path)


def render(page: Page) -> str:
    """The page of a model or a clone as text.

    Raises:
        GraphcloneError: plotly is not installed.
    """
    return _rendered("model.html", ["common.js", "tree.js", "model.js"], page.model, page.to_dict())


def render_study(title: str, data: Mapping[str, Any]) -> str:
    """The page of a study as text; see ``write_study``.

    Raises:
        GraphcloneError: plotly is not installed.
    """
    return _rendered("study.html", ["common.js", "study.js"], title, data)


def _write(text: str, path: Path) -> None:
    check_target(path)
    with written(path) as stage:
        stage.write_text(text, encoding="utf-8")


def _rendered(body: str, scripts: Sequence[str], title: str, data: Mapping[str, Any]) -> str:
    """A page from its assets; the slots of the body are filled as those of the frame are."""
    slots = {
        "title": escape(title, quote=False),
        "style": _asset("page.css"),
        "charts": _charts().read_text(encoding="utf-8"),
        "script": "".join(_asset(name) for name in scripts),
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    }
    slots["body"] = _filled(_asset(body), slots)
    return _filled(_asset("frame.html"), slots)


def _asset(name: str) -> str:
    return (files("graphclone.report") / "assets" / name).read_text(encoding="utf-8")


def _filled(text: str, slots: Mapping[str, str]) -> str:
    head, *rest = text.split("{{")
    pieces = (piece.split("}}", 1) for piece in rest)
    return head + "".join(slots[name] + tail for name, tail in pieces)


def _charts() -> Path:
    """Where the JavaScript of plotly is; the Python around it is not loaded."""
    with suppress(PackageNotFoundError):
        path = Path(str(distribution(_PACKAGE).locate_file(_SCRIPT)))
        if path.is_file():
            return path
    raise MissingExtraError("a page", _PACKAGE, "report")
