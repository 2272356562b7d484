"""What is known of one file once it has been tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDENED, EMPTY, REFUSED, FAILED = "widened", "no weights", "refused", "failed"
"""Outcomes: wider and verified; nothing to widen; not cloned, or not judged for the
source's own sake, with the reason; a crash, a clone that is not equivalent, no end in time."""


@dataclass(frozen=True)
class Row:
    """One file.

    Attributes:
        package: that ships it, with its version.
        file: its path in the package.
        digest: SHA-256 of its content.
        outcome: one of the constants of this module.
        why: what stood in the way, in one line; empty of a file that was widened.
        producer: what wrote the file, as it says.
        opset: of the default domain.
        parameters: how many numbers its weights hold.
        growth: parameters of the clone over those.
        ratio: greatest error of the clone in ONNX Runtime over the source's own; None where none was measured.
        seconds: of the processor, for all of it, verification included.
        pins: what no rule understands, by operator.
        same: the file tried before that this one equals to the byte.
    """

    package: str
    file: str
    digest: str = ""
    outcome: str = FAILED
    why: str = ""
    producer: str = ""
    opset: int = 0
    parameters: int = 0
    growth: float = 1.0
    ratio: float | None = None
    seconds: float = 0.0
    pins: Sequence[str] = field(default_factory=list)
    same: str = ""

    @property
    def name(self) -> str:
        """Package and file."""
        return f"{self.package}: {self.file}"


def latest(rows: Iterable[Row]) -> list[Row]:
    """The last row of every file, where it was tried more than once."""
    return list({row.name: row for row in rows}.values())


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Every file once, however many packages ship it."""
    return [row for row in rows if not row.same]
