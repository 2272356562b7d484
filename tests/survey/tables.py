"""What came out of a survey, for people.

    python -m tests.survey.tables ROWS

prints two tables in Markdown: one line per package, and one per file.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath

from tests.survey.rows import EMPTY, FAILED, REFUSED, WIDENED, Row, distinct, latest

FILES = ("package", "file", "producer", "opset", "parameters", "growth", "error", "seconds", "why not")
PACKAGES = ("package", "files", "producer", "opsets", "widened", "growth", "error", "why not")

_WORDS = {
    WIDENED: "widened and verified",
    EMPTY: "without weights, nothing to widen",
    REFUSED: "refused with a reason",
    FAILED: "failed",
}


def line(row: Row) -> str:
    """A file on one line, as a survey goes."""
    package, file, *cells, why = cells_of(row)
    return f"{package:<28} {file:<34} {'  '.join(cells)}  {why}".rstrip()


def summary(rows: Iterable[Row]) -> str:
    """How many files were tried, and what became of them."""
    tried = distinct(rows)
    counts = Counter(row.outcome for row in tried)
    weighty = len(tried) - counts[EMPTY]
    share = f" ({counts[WIDENED] / weighty:.0%} of those with weights)" if weighty else ""
    said = [f"{counts[what]} {words}{share if what == WIDENED else ''}" for what, words in _WORDS.items()]
    return f"{len(tried)} files: {', '.join(said)}"


def by_file(rows: Iterable[Row]) -> str:
    """A Markdown table with one line per file."""
    return _markdown(FILES, [cells_of(row) for row in rows])


def by_package(rows: Iterable[Row]) -> str:
    """A Markdown table with one line per package; files that another one ships are not counted again."""
    groups = groupby(rows, lambda row: row.package)
    return _markdown(PACKAGES, [_package(name, list(group)) for name, group in groups])


def cells_of(row: Row) -> list[str]:
    """What ``FILES`` says of a row."""
    if row.same:
        return [row.package, PurePosixPath(row.file).name, *[""] * 6, f"the same as {row.same}"]
    return [
        row.package,
        PurePosixPath(row.file).name,
        row.producer or "?",
        str(row.opset or "?"),
        f"{row.parameters:,}" if row.parameters else "",
        _growth([row] if row.outcome == WIDENED else []),
        _error([row]),
        f"{row.seconds:.0f}" if row.seconds else "",
        row.why,
    ]


def _package(name: str, rows: Sequence[Row]) -> list[str]:
    own = distinct(rows)
    if not own:
        return [name, "0", *[""] * 5, f"the same as {rows[0].same}"]
    widened = [row for row in own if row.outcome == WIDENED]
    return [
        name,
        str(len(own)),
        ", ".join(sorted({row.producer.partition(" ")[0] or "?" for row in own})),
        ", ".join(str(opset) for opset in sorted({row.opset for row in own})),
        str(len(widened)),
        _growth(widened),
        _error(widened),
        "; ".join(dict.fromkeys(row.why for row in own if row.why)),
    ]


def _growth(rows: Sequence[Row]) -> str:
    return _span([f"x{growth:.2f}" for growth in sorted(row.growth for row in rows)])


def _error(rows: Sequence[Row]) -> str:
    measured = [row.ratio for row in rows if row.ratio is not None]
    return f"{max(measured):.2f}" if measured else ""


def _span(ordered: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys((ordered[0], ordered[-1]))) if ordered else ""


def _markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def kept(file: Path) -> Iterator[Row]:
    """The rows that a survey has kept; none where there is no file."""
    if not file.exists():
        return
    with file.open(encoding="utf-8") as lines:
        yield from (Row(**json.loads(text)) for text in lines)


if __name__ == "__main__":
    found = latest(kept(Path(sys.argv[1])))
    print(summary(found), by_package(found), by_file(found), sep="\n\n")
