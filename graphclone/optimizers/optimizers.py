"""Torch's optimizers: read by the names of parameters, made anew over those of the clone, or grown in place."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from graphclone.errors import GraphcloneError, one_line
from graphclone.optimizers.kinds import Kind, kind_of
from graphclone.optimizers.parameters import Parameters
from graphclone.optimizers.states import Grown, Inexact, Rule, check_choice, grown, regroup


def grown_optimizer(
    parameters: Parameters,
    optimizer: Optimizer,
    names: Mapping[int, str],
    module: torch.nn.Module,
    *,
    rule: Rule,
    inexact: Inexact,
) -> Optimizer:
    """An optimizer of the same class over a clone, that goes on where the source's is.

    Args:
        parameters: of source and clone.
        optimizer: of the source.
        names: of the source's parameters, by ``id``.
        module: the clone.
        rule: how rates follow.
        inexact: what becomes of a state that cannot be grown.

    Raises:
        GraphcloneError: naming the first parameter that does not fit, or whose state cannot be grown.
    """
    own = plain(optimizer)
    result, tensors = _prepared(parameters, own, names, module, rule=rule, inexact=inexact)
    made = _made(own, _bound(result.groups, tensors))
    _fill(made, result, tensors)
    return made


def grow_in_place(
    parameters: Parameters,
    optimizer: Optimizer,
    names: Mapping[int, str],
    module: torch.nn.Module,
    *,
    rule: Rule,
    inexact: Inexact,
) -> Grown:
    """The same, for an optimizer that others hold: it has the clone's parameters afterwards.

    Returns:
        What it holds now, for schedules that count its groups.
    """
    own = plain(optimizer)
    result, tensors = _prepared(parameters, own, names, module, rule=rule, inexact=inexact)
    own.param_groups[:] = _bound(result.groups, tensors)
    own.state.clear()
    _fill(own, result, tensors)
    return result


def plain(optimizer: Any) -> Optimizer:
    """The optimizer of torch in a wrapper such as Accelerate's.

    Raises:
        GraphcloneError: there is none.
    """
    own = optimizer if hasattr(optimizer, "defaults") else None
    while own is not None and isinstance(getattr(own, "optimizer", None), Optimizer):
        own = own.optimizer
    if not isinstance(own, Optimizer):
        raise GraphcloneError(f"optimizer: expected one of torch.optim, got {type(optimizer).__name__}")
    return own


def entries_of(optimizer: Optimizer, names: Mapping[int, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """State and groups of an optimizer by the names of its parameters.

    Raises:
        GraphcloneError: it has a parameter without a name.
    """

    def named(parameter: torch.Tensor) -> str:
        if id(parameter) not in names:
            raise GraphcloneError(
                f"the optimizer has a parameter of shape {tuple(parameter.shape)}, which is none of the source's; "
                "give the optimizer of the module that was cloned"
            )
        return names[id(parameter)]

    groups = [{**group, "params": [named(p) for p in group["params"]]} for group in optimizer.param_groups]
    return {named(parameter): dict(entry) for parameter, entry in optimizer.state.items()}, groups


def _prepared(
    parameters: Parameters,
    optimizer: Optimizer,
    names: Mapping[int, str],
    module: torch.nn.Module,
    *,
    rule: Rule,
    inexact: Inexact,
) -> tuple[Grown, dict[str, torch.nn.Parameter]]:
    """All that may fail, before anything is changed."""
    kind = kind_of(type(optimizer))
    entries, groups = entries_of(optimizer, names)
    result = grown(parameters, kind, entries, groups, rule=rule, inexact=inexact)
    return result, parameters_of(module, parameters, (name for group in result.groups for name in group["params"]))


def parameters_of(
    module: torch.nn.Module, parameters: Parameters, names: Iterable[str]
) -> dict[str, torch.nn.Parameter]:
    """The parameters of a clone by name.

    Raises:
        GraphcloneError: naming the first that the module lacks, or has in another shape.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    found = {}
    for name in names:
        if name not in own:
            raise GraphcloneError(f"the module has no parameter {name}; give clone.module(), or the module cloned into")
        if name not in parameters.recipes:
            raise GraphcloneError(f"the clone has no parameter {name}; give clone.module(), or the module cloned into")
        shape, expected = tuple(own[name].shape), parameters.recipes[name].shape
        if shape != expected:
            raise GraphcloneError(f"{name} of the module is {shape}, but that of the clone is {expected}")
        found[name] = own[name]
    return found


def _made(optimizer: Optimizer, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """A new optimizer of a class, with the options of another."""
    cls = type(optimizer)
    accepted = inspect.signature(cls).parameters
    options = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    try:
        return cls([dict(group) for group in groups], **options)
    except Exception as error:  # it may be the user's own class
        raise GraphcloneError(f"{cls.__name__}: cannot be made over the clone: {one_line(error)}") from error


def _bound(groups: Iterable[Mapping[str, Any]], parameters: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Groups with what stands for each of their parameters in its place."""
    return [{**group, "params": [parameters[key] for key in group["params"]]} for group in groups]


def _fill(optimizer: Optimizer, result: Grown, tensors: Mapping[str, torch.nn.Parameter]) -> None:
    for name, entry in result.entries.items():
        parameter = tensors[name]
        optimizer.state[parameter] = {
            key: value.to(parameter.device) if isinstance(value, torch.Tensor) and value.dim() else value
            for key, value in entry.items()
        }


# Bare states


def named_state(
    state: Mapping[str, Any], names: Sequence[str] | None, order: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """State and groups of a ``state_dict()`` by the names of parameters.

    Args:
        state: of an optimizer: parameters are numbers, or names as in distributed checkpoints.
        names: of the parameters that the numbers stand for; None for those that the groups give.
        order: the names if neither says them.

    Raises:
        GraphcloneError: it is no state of an optimizer, or has more or fewer parameters.
    """
    try:
        entries, groups = dict(state["state"]), [dict(group) for group in state["param_groups"]]
        keys = [key for group in groups for key in group["params"]]
    except (KeyError, TypeError, ValueError):
        raise GraphcloneError("this is not the state of an optimizer: it has no 'state' and 'param_groups'") from None
    if is_by_name(state):
        return entries, groups
    if names is None and all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
    names = order if names is None else names
    if len(names) != len(keys):
        first = next(iter(names[len(keys) :]), None)
        lack = f"{first} is the first without one" if first else f"they are {len(names)}"
        raise GraphcloneError(f"the state is of {len(keys)} parameters, which are not those of the model: {lack}")
    by_key = dict(zip(keys, names, strict=True))
    if extra := [key for key in entries if key not in by_key]:
        raise GraphcloneError(f"the state has an entry of parameter {extra[0]}, which is in none of its groups")
    groups = _bound(groups, by_key)
    return {by_key[key]: entry for key, entry in entries.items()}, groups


def is_by_name(state: Mapping[str, Any]) -> bool:
    """Whether the parameters of a state are names, and no numbers."""
    return any(isinstance(key, str) for group in state["param_groups"] for key in group["params"])


def state_dict(result: Grown, *, by_name: bool) -> dict[str, Any]:
    """A grown state as ``load_state_dict`` takes it: its parameters are numbers, in the order of the groups."""
    if by_name:
        return {"state": result.entries, "param_groups": result.groups}
    numbers: dict[str, int] = {}
    for name in (name for group in result.groups for name in group["params"]):
        numbers[name] = len(numbers)
    entries = {numbers[name]: entry for name, entry in result.entries.items()}
    return {"state": entries, "param_groups": _bound(result.groups, numbers)}


def param_groups(
    parameters: Parameters, module: torch.nn.Module, kind: Kind, options: Mapping[str, float], rule: Rule
) -> list[dict[str, Any]]:
    """The parameters of a clone in groups with rates of their own, for an optimizer that begins without a state.

    Args:
        parameters: of source and clone.
        module: the clone.
        kind: of the optimizer.
        options: of the source's optimizer, such as ``lr``.
        rule: how they follow.
    """
    check_choice("rule", rule, Rule)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    tensors = parameters_of(module, parameters, names)
    groups = [group for group, _, _ in regroup(parameters, kind, {**options, "params": names}, 0, rule)]
    return _bound(groups, tensors)
