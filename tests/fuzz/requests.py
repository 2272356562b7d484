"""What is asked for a program: how wide, by which strategy, by which way in and out."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

import graphclone as gc

WAYS = {"factor": 6, "dims": 10, "sizes": 10, "into": 2, "onnx": 0.2, "file": 0.2}
"""How often each way is drawn: a factor, a factor or a size per dim, into a wider instance, out to ONNX, or in."""


STRATEGIES = {
    "symmetric": 3,
    "diagonal": 2,
    "noisy-symmetric": 2,
    "noisy-diagonal": 2,
    "net2net": 0.3,
    "low-rank": 0.5,
    "mup-noise": 0.3,
    "staged": 0.5,
    "blend:0.3": 0.5,
    "circulant": 0.3,
    "lemon": 0.5,
    "orthogonal": 0.5,
    "fresh": 1.5,
    "callable": 2,
    "matrix": 0.5,
}
"""How often each strategy is drawn; a matrix serves few graphs."""


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        way: of ``WAYS``.
        factor: for ``factor``, ``onnx`` and ``file`` that of every dim, for ``into`` the n of the wider instance.
        strategy: a name, or ``matrix`` or ``callable`` for one of the user's own.
        snr_db: of a noisy strategy.
        seed: of the noise, the user's matrix, and the factors or sizes of dims.
        untie: whether weights of two uses are parted.
    """

    way: str
    factor: int = 2
    strategy: str = "symmetric"
    snr_db: float | None = None
    seed: int = 0
    untie: bool = False

    def options(self) -> dict[str, Any]:
        """The keywords of ``gc.clone`` that any way takes."""
        chosen: dict[str, Any] = {"strategy": own_strategy(self.strategy, self.seed), "seed": self.seed}
        if self.snr_db is not None:
            chosen["snr_db"] = self.snr_db
        return chosen | ({"untie": True} if self.untie else {})

    def widths(self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A factor, or one from {1, 2, 3} or a size up to threefold for every dim that is free."""
        if self.way not in ("dims", "sizes"):
            return self.factor
        free = [group for group in gc.trace(model, args, kwargs).dims if group.pin is None]
        draws = {group.name: random.Random(f"{self.seed} {group.name}") for group in free}
        if self.way == "dims":
            return {name: rng.choice([1, 2, 2, 3]) for name, rng in draws.items()}
        sizes = {g.name: draws[g.name].choice([g.size, draws[g.name].randint(g.size, 3 * g.size)]) for g in free}
        return {name: size for name, size in sizes.items() if size > 1}

    def keyword(self) -> str:
        """What ``gc.clone`` calls the widths."""
        return "sizes" if self.way == "sizes" else "widen"

    def __str__(self) -> str:
        said = [self.way, f"factor={self.factor}", f"strategy={self.strategy}", f"seed={self.seed}"]
        said += [f"snr_db={self.snr_db}"] * (self.snr_db is not None) + ["untie"] * self.untie
        return " ".join(said)

    def code(self, widths: Any) -> str:
        """The call, as a user would write it."""
        given = [f"{name}={value!r}" for name, value in self.options().items() if isinstance(value, int | float | str)]
        if self.strategy in ("matrix", "callable"):
            given.append(f"strategy=own_strategy({self.strategy!r}, {self.seed})")
        given.append(f"into=make({self.factor})" if self.way == "into" else f"{self.keyword()}={widths!r}")
        return f"gc.clone(make(), *inputs(), {', '.join(given)})"


def own_strategy(name: str, seed: int) -> Any:
    """A strategy by name; a user's own matrix of random rows that sum to 1, or a function that gives one."""
    if name == "matrix":
        return _rows(2, 2, seed)
    return (lambda n_out, n_in: _rows(n_out, n_in, seed)) if name == "callable" else name


def _rows(n_out: int, n_in: int, seed: int) -> Any:
    rows = np.random.default_rng(seed).uniform(-0.5, 1.5, (n_out, n_in))
    rows[:, -1] = 1 - rows[:, :-1].sum(1)
    return rows


def drawn(rng: random.Random) -> Request:
    """A random request."""
    way = rng.choices(list(WAYS), list(WAYS.values()))[0]
    strategy = rng.choices(list(STRATEGIES), list(STRATEGIES.values()))[0]
    return Request(
        way=way,
        factor=2 if strategy == "matrix" else rng.choice([2, 2, 3]),
        strategy=strategy,
        snr_db=rng.choice([None, 0.0, 10.0]) if "noisy" in strategy else None,
        seed=rng.randrange(5),
        untie=way not in ("into", "file") and rng.random() < 0.12,
    )
