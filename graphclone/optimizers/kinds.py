"""Kinds of optimizers: what they keep of gradients, and how their updates follow from the next one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphclone.errors import GraphcloneError


class Power(NamedTuple):
    """The power of c by which a kept number grows if all gradients are c times as large.

    Attributes:
        degree: it is |c| to this power times as large.
        odd: and changes its sign with c.
    """

    degree: int
    odd: bool = False


_MEAN, _SQUARE = Power(1, odd=True), Power(2)


@dataclass(frozen=True)
class Kind:
    """One kind of optimizer.

    Attributes:
        name: of its class.
        entries: what it keeps of every element of a parameter.
        required: what it keeps of every parameter that it has updated.
        counters: what it keeps of a parameter as a whole, which is the same for a clone's.
        degree: its updates are |c| to this power times as large, if its epsilon is c times as large, too.
        decoupled: whether weight decay is apart from the gradient; None where a group says so.
    """

    name: str
    entries: Mapping[str, Power]
    required: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset({"step"})
    degree: int = 0
    decoupled: bool | None = False

    def is_decoupled(self, group: Mapping[str, Any]) -> bool:
        """Whether the weight decay of a group is apart from the gradient."""
        return bool(group.get("decoupled_weight_decay")) if self.decoupled is None else self.decoupled


_ADAM = {"exp_avg": _MEAN, "exp_avg_sq": _SQUARE, "max_exp_avg_sq": _SQUARE}
_MOMENTS = frozenset({"exp_avg", "exp_avg_sq", "step"})

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Adam", _ADAM, _MOMENTS, decoupled=None),
        Kind("AdamW", _ADAM, _MOMENTS, decoupled=True),
        Kind("NAdam", _ADAM, _MOMENTS | {"mu_product"}, frozenset({"step", "mu_product"}), decoupled=None),
        Kind("Adamax", {"exp_avg": _MEAN, "exp_inf": Power(1)}, frozenset({"exp_avg", "exp_inf", "step"})),
        Kind("Adagrad", {"sum": _SQUARE}, frozenset({"sum", "step"})),
        Kind(
            "RMSprop",
            {"square_avg": _SQUARE, "grad_avg": _MEAN, "momentum_buffer": Power(0, odd=True)},
            frozenset({"square_avg", "step"}),
        ),
        Kind("SGD", {"momentum_buffer": _MEAN}, degree=1),
        Kind("Lion", {"exp_avg": _MEAN}, frozenset({"exp_avg"}), decoupled=True),
    )
}
"""By the name of their class. That of Lion (Chen et al. 2023, arXiv 2302.06675) is not torch's own."""


def kind_of(optimizer: str | type) -> Kind:
    """The kind of an optimizer, by its class or the name of that.

    Raises:
        GraphcloneError: nobody knows how its state grows.
    """
    name = optimizer if isinstance(optimizer, str) else optimizer.__name__
    if name not in KINDS:
        raise GraphcloneError(
            f"{name}: graphclone does not know how the state of this optimizer grows; use one of {', '.join(KINDS)}"
        )
    return KINDS[name]


def kind_of_entries(keys: Collection[str]) -> Kind:
    """The kind of an optimizer by what it keeps of a parameter; of several alike the first.

    Raises:
        GraphcloneError: none keeps that.
    """
    for kind in KINDS.values():
        if kind.required <= set(keys) <= {*kind.entries, *kind.counters}:
            return kind
    raise GraphcloneError(
        f"how a state of {', '.join(sorted(keys))} grows is not known; take one of {', '.join(KINDS)}"
    )
