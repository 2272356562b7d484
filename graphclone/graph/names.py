"""Names that nothing else has."""

from __future__ import annotations


def fresh(name: str, taken: set[str]) -> str:
    """The name, or the name with a number where it is taken; it is taken from then on."""
    candidate, number = name, 1
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate
