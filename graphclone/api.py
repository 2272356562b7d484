"""What users call: ``clone`` and ``trace``, with what they are given checked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from graphclone.clone import clone as _clone
from graphclone.clone import trace as _trace
from graphclone.errors import GraphcloneError
from graphclone.strategies import strategy

P = ParamSpec("P")
R = TypeVar("R")


def _checked(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which says in the user's words what is wrong with its arguments."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        _check_model(args[0] if args else kwargs.get("model"))
        _check_widen(kwargs.get("widen", 1))
        _check_patterns(kwargs.get("widen_io", ()))
        _resolve_strategy(kwargs)
        return function(*args, **kwargs)

    return call


def _check_model(model: object) -> None:
    if isinstance(model, torch.nn.Module):
        return
    got = f"{model!r}" if isinstance(model, str) else type(model).__name__
    raise GraphcloneError(f"the model must be a torch.nn.Module, got {got}; files cannot be widened yet")


def _check_widen(widen: object) -> None:
    if not isinstance(widen, int | Mapping):
        raise GraphcloneError(f"widen={widen!r}: give a whole number, or a dict of whole numbers by dim")


def _check_patterns(patterns: object) -> None:
    if isinstance(patterns, str):
        raise GraphcloneError(f"widen_io={patterns!r}: give a list of names, [{patterns!r}]")


def _resolve_strategy(options: dict[str, Any]) -> None:
    """Replace the strategy, however it is given, by what it stands for."""
    if "strategy" not in options and "snr_db" not in options:
        return
    try:
        options["strategy"] = strategy(options.get("strategy", "symmetric"), options.pop("snr_db", None))
    except ValueError as error:
        raise GraphcloneError(str(error)) from error


clone = _checked(_clone)
trace = _checked(_trace)
