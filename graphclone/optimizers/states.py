"""The state of an optimizer grown with the parameters, and the groups in which it holds them.

States are by the names of parameters here: ``{"state": {name: {..}}, "param_groups": [{.., "params": [name, ..]}]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from graphclone.algebra.recipes import Widening
from graphclone.algebra.strategies import SYMMETRIC
from graphclone.errors import GraphcloneError, Remedy
from graphclone.optimizers.kinds import Kind, Power
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.shares import Share
from graphclone.runtime.kernel import widen

Rule = Literal["function", "same"]
"""How rates follow: ``function`` lets the function move as the source's does, ``same`` leaves them as they are."""

Inexact = Literal["refuse", "fresh"]
"""What becomes of a state that cannot be grown: the call is refused, or the parameter begins with none."""

RATES = ("lr", "initial_lr")
"""Options of a group that are learning rates: the one in force, and the one that a schedule began with."""


@dataclass(frozen=True)
class Grown:
    """The state of an optimizer over the parameters of a clone.

    Attributes:
        entries: what is kept of every parameter that has a state, by name.
        groups: options and, as ``params``, names.
        origins: of every group, the place of the source's group that it came from.
        rates: of every group, how many times as large its learning rate is.
    """

    entries: dict[str, dict[str, Any]]
    groups: list[dict[str, Any]]
    origins: list[int]
    rates: list[float]


def grown(
    parameters: Parameters,
    kind: Kind,
    entries: Mapping[str, Mapping[str, Any]],
    groups: Sequence[Mapping[str, Any]],
    *,
    rule: Rule = "function",
    inexact: Inexact = "refuse",
) -> Grown:
    """The state and the groups of the source's optimizer, grown; they are left as they are.

    Args:
        parameters: of source and clone.
        kind: of the optimizer.
        entries: what it keeps of every parameter, by name; nothing of one that it has not updated yet.
        groups: options, with the names of parameters as ``params``.
        rule: how rates follow.
        inexact: what becomes of the state of a parameter whose gradient is no multiple of the source's.

    Raises:
        GraphcloneError: naming the first parameter that does not fit, or whose state cannot be grown.
    """
    check_choice("rule", rule, Rule)
    check_choice("inexact", inexact, Inexact)
    named = [name for group in groups for name in group["params"]]
    for name in (*named, *entries):
        if not parameters.heirs.get(name):
            raise GraphcloneError(f"the optimizer has {name}, which is no parameter of {parameters.model}")
    _check_once(parameters, named)
    lost = [name for name in entries if name not in set(named)]
    if lost:
        raise GraphcloneError(f"the optimizer has a state of {lost[0]}, which is in none of its groups")
    kept = {name: entries[name] for name in named if entries.get(name)}
    for name, entry in kept.items():
        _check_entry(kind, name, entry, parameters.source_shape(name))
    doubts = {name: doubt for name in kept if (doubt := parameters.doubt(name))}
    if doubts and inexact == "refuse":
        name, doubt = next(iter(doubts.items()))
        raise GraphcloneError(
            f"the gradient of {name} is no multiple of the source's: {doubt}",
            Remedy("inexact", "lets it begin without a state, which warm_moments() can measure", "fresh"),
        )
    heirs = {parameters.heirs[name][0]: entry for name, entry in kept.items() if name not in doubts}
    wide = [_of_clone(group, parameters) for group in groups]
    regrouped = [part for i, group in enumerate(wide) for part in regroup(parameters, kind, group, i, rule)]
    return Grown(
        {name: _widened(kind, e, parameters.recipes[name], parameters.shares[name]) for name, e in heirs.items()},
        [group for group, _, _ in regrouped],
        [place for _, place, _ in regrouped],
        [rate for _, _, rate in regrouped],
    )


def _check_once(parameters: Parameters, named: Sequence[str]) -> None:
    """Refuse groups that have a parameter twice, be it under another of its names."""
    seen: dict[str, str] = {}
    for name in named:
        heir = parameters.heirs[name][0]
        if heir in seen:
            raise GraphcloneError(f"the optimizer has one parameter twice, as {seen[heir]} and as {name}")
        seen[heir] = name


def _of_clone(group: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """A group with what its parameters have become, and what has been made after them."""
    names = [n for made in (parameters.heirs, parameters.additions) for name in group["params"] for n in made[name]]
    return {**group, **{key: names for key in ("params", "param_names") if key in group}}


def check_choice(name: str, value: object, choices: Any) -> None:
    """Refuse a value that is none of those of a ``Literal``."""
    if value not in get_args(choices):
        expected = " or ".join(map(repr, get_args(choices)))
        raise GraphcloneError(f"{name}={value!r}: give {expected}")


# Entries


def _check_entry(kind: Kind, name: str, entry: Mapping[str, Any], expected: tuple[int, ...]) -> None:
    """Refuse a state that has other entries than the optimizer keeps, or other shapes than the parameter."""
    for key in sorted(kind.required):
        if key not in entry:
            raise GraphcloneError(f"the state of {name} has no {key}, which {kind.name} keeps of every parameter")
    for key, value in entry.items():
        if key in kind.entries and value is not None:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            if shape != expected:
                raise GraphcloneError(f"the state of {name} has {key} of {shape}, but it is {expected}")
        elif key not in kind.entries and key not in kind.counters:
            raise GraphcloneError(f"the state of {name} has {key}, which {kind.name} does not keep")


def _widened(kind: Kind, entry: Mapping[str, Any], recipe: Widening, share: Share) -> dict[str, Any]:
    """What is kept of a parameter of the clone."""
    return {
        key: _grown_tensor(value, kind.entries[key], recipe, share)
        if key in kind.entries and value is not None
        else value.clone()
        if isinstance(value, torch.Tensor)
        else value
        for key, value in entry.items()
    }


@torch.no_grad()
def _grown_tensor(tensor: torch.Tensor, power: Power, recipe: Widening, share: Share) -> torch.Tensor:
    """Every copy has what its gradients would have left there.

    Pads, of whose gradients nothing is known, have 0, but for what an update is divided by: that is, on an average,
    as large as elsewhere, lest the first updates be many times too large.
    """
    plain = replace(recipe, contracted=(), strategy=SYMMETRIC, scale=1.0, shift=0.0)
    wide = widen(tensor.detach(), plain)
    for axis, vector in enumerate(share.gradient):
        factor = np.abs(vector) ** power.degree * (np.sign(vector) if power.odd else vector != 0)
        if (factor != 1).any():
            shape = [-1 if other == axis else 1 for other in range(wide.dim())]
            wide.mul_(torch.from_numpy(factor).to(wide).view(shape))
    if share.scale != 1:
        wide.mul_(share.scale**-power.degree)
    if not power.odd:
        _fill_pads(wide, share)
    return wide


def _fill_pads(wide: torch.Tensor, share: Share) -> None:
    held = [torch.from_numpy(vector != 0) for vector in share.held]
    if all(bool(mask.all()) for mask in held) or not wide.numel():
        return
    mean = wide.sum() / max(1, int(np.prod([int(mask.sum()) for mask in held])))
    for axis, mask in enumerate(held):
        wide.index_fill_(axis, (~mask).nonzero()[:, 0].to(wide.device), float(mean))


# Groups


def regroup(
    parameters: Parameters, kind: Kind, group: Mapping[str, Any], place: int, rule: Rule
) -> list[tuple[dict[str, Any], int, float]]:
    """A group of a clone's parameters, or several where these want other rates; its place, its rate's factor."""
    parts: dict[tuple[str, ...], tuple[_Factors, list[int]]] = {}
    for at, name in enumerate(group["params"]):
        factors = _factors(parameters.shares[name], kind, group) if rule == "function" else _Factors()
        key = tuple(f"{factor:.9g}" for factor in factors)  # equal but for rounding
        parts.setdefault(key, (factors, []))[1].append(at)
    return [
        ({**_scaled(group, factors), **_chosen(group, members)}, place, factors.rate)
        for factors, members in parts.values() or [(_Factors(), [])]
    ]


def _scaled(group: Mapping[str, Any], factors: _Factors) -> dict[str, Any]:
    scales = {**dict.fromkeys(RATES, factors.rate), "weight_decay": factors.decay, "eps": factors.epsilon}
    scaled = {key: value * scales[key] if scales.get(key, 1.0) != 1 else value for key, value in group.items()}
    return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in scaled.items()}


def _chosen(group: Mapping[str, Any], members: Sequence[int]) -> dict[str, Any]:
    """What a group says of every parameter, of some of them."""
    return {key: [group[key][at] for at in members] for key in ("params", "param_names") if key in group}


class _Factors(NamedTuple):
    """What options of a group are multiplied by: learning rates, weight decay, epsilon."""

    rate: float = 1.0
    decay: float = 1.0
    epsilon: float = 1.0


def _factors(share: Share, kind: Kind, group: Mapping[str, Any]) -> _Factors:
    """The factors that let a parameter move as the source's does.

    With copies of a times the size, and gradients of c times the size, an update u of degree d becomes c^d u, and
    should be a u. Weight decay should take a times as much as well, or, as a part of the gradient, be c times as much.

    Raises:
        GraphcloneError: no one rate does.
    """
    if share.uneven:
        raise GraphcloneError(
            f"{share.name}: its indices are repeated unevenly, so no one learning rate moves all as the source's does",
            _SAME_RATES,
        )
    if share.shifted and group.get("weight_decay"):
        raise GraphcloneError(
            f"{share.name}: a number is added to it, so weight decay would pull it elsewhere than the source's; put it "
            "into a group without weight decay",
            _SAME_RATES,
        )
    size, gradient = share.size_factor, share.gradient_factor or 1.0
    rate = size / gradient**kind.degree
    return _Factors(rate, 1 / rate if kind.is_decoupled(group) else gradient / size, gradient)


_SAME_RATES = Remedy("rule", "leaves the rates as they are", "same")
