"""Mutants: plausible mistakes in the library, each of which some test must notice.

Run ``python -m tests.mutants``, or ``python -m tests.mutants NAME ..`` for some of them. A mutant is an entry of one of
the tables beside this file: what a tired programmer might have written, and the tests that notice it soonest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        name: what it is about, and what is wrong.
        file: that it is made in, from the root of the tree.
        old: text that occurs once in that file.
        new: what stands there instead.
        tests: arguments of pytest, for the tests that are run first: files, or functions in them (``FILE::NAME``).
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The source of its file with the mistake.

        Raises:
            StaleError: the old text does not occur once.
        """
        count = source.count(self.old)
        if count != 1:
            raise StaleError(f"{self.name}: its old text occurs {count} times in {self.file}; adapt the mutant")
        return source.replace(self.old, self.new)


class StaleError(Exception):
    """A mutant that the library has outgrown."""


def mutants() -> tuple[Mutant, ...]:
    """All of them, in the order of the library's layers."""
    from tests.mutants import (
        algebra,
        depth,
        fills,
        formats,
        passes,
        rules,
        rules_of_shapes,
        steps,
        traces,
        verification,
    )

    tables = (algebra, fills, rules, rules_of_shapes, steps, depth, passes, traces, verification, formats)
    return tuple(mutant for table in tables for mutant in table.MUTANTS)
