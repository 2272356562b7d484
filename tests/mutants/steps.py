"""Mistakes about functions that jump: comparisons of copies, and whole numbers that are summed up."""

from __future__ import annotations

from tests.mutants import Mutant

MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "ties: only extremes that both sides share count",
        "graphclone/analysis/ties.py",
        "yield from left.extremes ^ right.extremes\n            yield from self.apart",
        "yield from left.extremes & right.extremes\n            yield from self.apart",
        ("tests/analysis/test_ties.py",),
    ),
    Mutant(
        "ties: only one number meets itself, and no functions of it",
        "graphclone/analysis/ties.py",
        "(self.origin(computed[0]).bases if alone else frozenset())",
        "frozenset()",
        ("tests/analysis/test_ties.py",),
    ),
    Mutant(
        "ties: what has met is forgotten",
        "graphclone/analysis/ties.py",
        "tied=tied, met=left)",
        "tied=tied)",
        ("tests/analysis/test_ties.py",),
    ),
    Mutant(
        "ties: steep functions do not mind",
        "graphclone/analysis/ties.py",
        "self.facts.poles.get(node, ())",
        "()",
        ("tests/analysis/test_ties.py",),
    ),
    Mutant(
        "counts: what rounding makes depends on what it reads",
        "graphclone/analysis/counts.py",
        "        if node in self.facts.steps:\n            return ()\n",
        "",
        ("tests/analysis/test_counts.py",),
    ),
    Mutant(
        "counts: a number that is added and taken away still counts",
        "graphclone/analysis/counts.py",
        "len(set(factors)) < len(factors) or ",
        "",
        ("tests/analysis/test_counts.py",),
    ),
    Mutant(
        "pointwise: no bound is reached",
        "graphclone/rules/pointwise.py",
        "if any(isinstance(bound, int | float) and 0 < abs(bound) < _GREATEST for bound in bounds):",
        "if not bounds:",
        ("tests/analysis/test_counts.py",),
    ),
    Mutant(
        "counts: one number that is a count is enough",
        "graphclone/analysis/counts.py",
        "return all(map(self.is_count",
        "return any(map(self.is_count",
        ("tests/analysis/test_counts.py",),
    ),
    Mutant(
        "counts: the greatest of several is their sum",
        "graphclone/analysis/counts.py",
        "if out in self.facts.picked or out in self.facts.extremes:",
        "if out in self.facts.outlines:",
        ("tests/analysis/test_counts.py",),
    ),
    Mutant(
        "counts: any numbers are whole",
        "graphclone/passes/infer_dims.py",
        "bool((part == part.round()).all())",
        "bool((part == part).all())",
        ("tests/analysis/test_counts.py",),
    ),
)
