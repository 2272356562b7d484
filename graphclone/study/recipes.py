"""Recipes: how a wide model starts, from random weights or as a clone, and with what care in its first steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphclone.algebra.strategies import STRATEGIES, Strategy, strategy
from graphclone.errors import GraphcloneError

if TYPE_CHECKING:
    from collections.abc import Mapping

RANDOM = "random"
"""The recipe that every other is measured against: the wide model's own initialisation."""

CONTINUED = "continued"
"""The control of all growing: the base itself, trained on under the schedule that a clone gets."""

INEXACT: Mapping[str, str] = {
    "inexact-aki": "symmetric",
    "inexact-ligo": "symmetric",
    "inexact-merge": "staged",
    "inexact-stack": "symmetric",
}
"""Ways of others to begin a wide model, which are no clones, and the strategy of the clone that each starts from; see
``graphclone.study.initialisations``."""

MERGED = "inexact-merge"
"""The way that takes two bases."""

AVERAGED = "averaged"
"""The control of that: two bases as they are, trained on together, whose outputs are averaged."""

NEW = "fresh"
"""The strategy of clones in which each number of the base is there once, beside new ones."""

FRESH, GROWN, WARM = "fresh", "grown", "warm"
OPTIMIZERS = (FRESH, GROWN, WARM)
"""What a clone's optimizer begins with: nothing, the state of the base's, or what it measures at rate 0."""


@dataclass(frozen=True)
class Recipe:
    """One way to start the training of a wide model.

    Attributes:
        name: what reports call it.
        strategy: one of ``graphclone.algebra.strategies.STRATEGIES``; ``random`` for no clone, ``continued`` for the
            base as it is, ``averaged`` for two of them, or one of ``INEXACT``, which change what the model computes.
        snr_db: of a noisy strategy, in decibels; None for the strategy's own.
        learning_rate: factor of the study's learning rate.
        warmup: steps of the warm-up; None for the study's.
        weight_decay: None for the study's.
        copies: factor of the rate for what the clone has from its base; of ``fresh``, which has new entries beside it.
        dropout: probability on the input of every linear layer, for the first ``dropout_steps`` steps.
        dropout_steps: how many.
        optimizer: one of ``OPTIMIZERS``; ``grown`` takes a strategy whose gradients are multiples of the base's.
    """

    name: str
    strategy: str = RANDOM
    snr_db: float | None = None
    learning_rate: float = 1.0
    warmup: int | None = None
    weight_decay: float | None = None
    copies: float = 1.0
    dropout: float = 0.0
    dropout_steps: int = 0
    optimizer: str = FRESH

    def __post_init__(self) -> None:
        name, known = self.strategy.partition(":")[0], (RANDOM, CONTINUED, AVERAGED, *STRATEGIES, *INEXACT)
        if name not in known:
            names = ", ".join(known)
            raise GraphcloneError(f"recipe {self.name}: unknown strategy {self.strategy!r}; choose one of {names}")
        if not 0 <= self.dropout < 1:
            raise GraphcloneError(f"recipe {self.name}: dropout is a probability below 1, got {self.dropout}")
        is_clone = self.clones and self.strategy not in INEXACT
        if not is_clone and self.snr_db is not None:
            raise GraphcloneError(f"recipe {self.name}: strategy {self.strategy} has no noise, so no snr_db")
        if not 0 <= self.copies <= 1:
            raise GraphcloneError(f"recipe {self.name}: copies is a factor from 0 to 1, got {self.copies}")
        if self.copies < 1 and self.strategy != NEW:
            raise GraphcloneError(f"recipe {self.name}: only {NEW} tells copies from new entries; lower learning_rate")
        if self.optimizer not in OPTIMIZERS:
            names = ", ".join(OPTIMIZERS)
            raise GraphcloneError(f"recipe {self.name}: unknown optimizer {self.optimizer!r}; choose one of {names}")
        if self.optimizer == GROWN and not is_clone:
            raise GraphcloneError(f"recipe {self.name}: only a clone has an optimizer that was grown; choose {FRESH}")
        self.strategy_of_clones()

    @property
    def clones(self) -> bool:
        """Whether the wide model starts from the base."""
        return self.strategy not in (RANDOM, CONTINUED, AVERAGED)

    def strategy_of_clones(self) -> Strategy | None:
        """The strategy that clones are widened by; None where nothing is cloned."""
        if not self.clones:
            return None
        return strategy(INEXACT.get(self.strategy, self.strategy), self.snr_db)

    @property
    def bases(self) -> int:
        """How many bases the wide model starts from."""
        return 0 if self.strategy == RANDOM else 2 if self.strategy in (MERGED, AVERAGED) else 1


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(RANDOM),
        Recipe(CONTINUED, CONTINUED),
        Recipe(AVERAGED, AVERAGED),
        *(Recipe(name, name) for name in (*STRATEGIES, *INEXACT)),
        Recipe("symmetric-grown", "symmetric", optimizer=GROWN),
        Recipe("noisy-diagonal-warm", "noisy-diagonal", optimizer=WARM),
    )
}
"""The recipes that a study may name without saying what they are."""

RECOMMENDED = "noisy-diagonal"
"""What a study compares with random weights if nothing else is asked for; docs/study.md has its numbers."""
