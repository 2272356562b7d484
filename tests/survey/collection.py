"""Widen every file of ``tests.support.onnx_zoo`` two- and threefold, verify it, and count.

    python -m tests.survey.collection [GROUP ..] [--folder DIR] [--rows FILE]

prints one line per group: files, clones attempted, widened, verified and refused, the least growth beside that of the
same class built as many times as wide, and the greatest error in ONNX Runtime over the source's own. ``--rows`` keeps
one JSON line per clone. It takes about half an hour.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import torch

import graphclone as gc
from graphclone.inspection import parameter_count
from tests.support.onnx_zoo import GROUPS, model_file
from tests.support.zoo import ZOO

FACTORS = (2, 3)

_GROWING_PORTS = {
    "cache": ("past*", "present*"),
    "fused": ("past*", "present*"),
    **dict.fromkeys(("pytorch-converted", "pytorch-operator"), ("*",)),
}
"""Inputs and outputs that grow, by group: a key/value cache; everything where there is but one operator."""


@dataclass
class Row:
    """One clone.

    Attributes:
        name: of the file.
        factor: it was widened by.
        growth: parameters of the clone over those of the source.
        expected: the same of the class built that many times as wide, where there is one.
        refused: why it was not widened.
        ok: whether it is equivalent.
        checks: what verification says.
        ratio: greatest error in ONNX Runtime over the source's own.
        pins: nodes that no rule understands.
        seconds: all it took.
    """

    name: str
    factor: int
    growth: float = 1.0
    expected: float | None = None
    refused: str = ""
    ok: bool = False
    checks: list[str] = field(default_factory=list)
    ratio: float = 0.0
    pins: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def widened(self) -> bool:
        """Whether parameters really grew; where the class can say how much, by nearly that."""
        return not self.refused and self.growth > 1


def surveyed(name: str, folder: Path, factor: int) -> Row:
    """Clone one file and verify the clone."""
    row = Row(name, factor, expected=expected_growth(name, factor))
    start = time.perf_counter()
    path = model_file(name, folder)
    try:
        clone = gc.clone(path, widen=factor, widen_io=_GROWING_PORTS.get(name.partition("/")[0], ()))
        facts = clone.state.facts
        row.growth = parameter_count(facts, clone.state.growths) / max(parameter_count(facts), 1)
        row.pins = sorted({f"{refusal.node.op}: {refusal.why.text}" for refusal in facts.refusals})
        report = clone.verify(provider="cpu")
        row.ok, row.checks = report.ok and report.onnx_checked, [str(check) for check in report.checks]
        row.ratio = next(float(c.figures.get("ratio", 0)) for c in report.checks if c.name == "ONNX Runtime")
    except gc.GraphcloneError as error:
        row.refused = str(error)
    row.seconds = time.perf_counter() - start
    return row


@cache
def expected_growth(name: str, factor: int) -> float | None:
    """How many times the parameters of a zoo model built wider by its own class are those of the source."""
    model = name.partition("/")[2].removesuffix("-dynamo")
    if model not in ZOO:
        return None
    narrow, wide = (
        sum(parameter.numel() for parameter in ZOO[model].build(n).module.parameters()) for n in (1, factor)
    )
    return wide / narrow


def summary(group: str, rows: Sequence[Row]) -> str:
    """One line about a group."""
    files = len({row.name for row in rows})
    counts = {
        "attempted": len(rows),
        "widened": sum(row.widened for row in rows),
        "verified": sum(row.ok and row.widened for row in rows),
        "refused": sum(bool(row.refused) for row in rows),
    }
    text = ", ".join(f"{count} {what}" for what, count in counts.items())
    shares = [row.growth / row.expected for row in rows if row.expected]
    least = f", least growth {min(shares):.3f} of the class's" if shares else ""
    grown = [row.growth for row in rows if row.factor == FACTORS[0] and row.widened]
    span = f", x{min(grown):.2f} to x{max(grown):.2f} at 2x" if grown else ""
    return f"{group:<18} {files} files: {text}{span}{least}, error at most {max(r.ratio for r in rows):.2f} of 4"


def survey(groups: Sequence[str], folder: Path) -> Iterator[tuple[str, list[Row]]]:
    """All rows of every group."""
    for group in groups:
        yield group, [surveyed(name, folder, factor) for name in GROUPS[group] for factor in FACTORS]


def main() -> None:
    """Print the counts, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("groups", nargs="*", default=list(GROUPS), metavar="GROUP")
    parser.add_argument("--folder", type=Path, help="where files are kept for the next time")
    parser.add_argument("--rows", type=Path, help="where to write one JSON line per clone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="graphclone-survey-") as temporary:
        for group, rows in survey(arguments.groups, arguments.folder or Path(temporary)):
            print(summary(group, rows), flush=True)
            for row in rows:
                if not row.ok or not row.widened or (row.expected and row.growth < 0.9 * row.expected):
                    why = row.refused or "; ".join(row.checks) if not row.ok else "; ".join(row.pins)
                    print(f"    {row.name} {row.factor}x: x{row.growth:.2f} {why}", flush=True)
            if arguments.rows:
                with arguments.rows.open("a") as file:
                    file.writelines(f"{json.dumps(asdict(row))}\n" for row in rows)


if __name__ == "__main__":
    main()
